//! What `ptxas -v` says about each kernel.

/// The resources of one kernel on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    pub kernel: String,
    /// Per thread.
    pub registers: u32,
    /// Static shared memory of a block in bytes; the project's kernels use dynamic shared memory
    /// only.
    pub shared: u32,
    /// Stack frame of a thread in bytes: arrays indexed at run time live there.
    pub stack: u32,
    /// Bytes a thread writes to local memory because registers ran out.
    pub spill_stores: u32,
    /// Bytes a thread reads back.
    pub spill_loads: u32,
}

/// Warnings that mean the kernel does not do what its author wrote, and so fail the build.
const FATAL: [&str; 3] = [
    "wgmma.mma_async instructions are serialized",
    "setmaxnreg ignored",
    "'setmaxnreg' ignored",
];

/// The kernels reported in `log`, in its order.
pub fn resources(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    // Device functions that were not inlined have properties too; they count only towards their
    // callers.
    let mut in_kernel = false;
    for line in log.lines() {
        if let Some(name) = between(line, "Compiling entry function '", "'") {
            found.push(Resources {
                kernel: name.to_string(),
                registers: 0,
                shared: 0,
                stack: 0,
                spill_stores: 0,
                spill_loads: 0,
            });
            in_kernel = true;
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            in_kernel = found.last().is_some_and(|last| last.kernel == name.trim());
        }
        let Some(last) = found.last_mut() else {
            continue;
        };
        if in_kernel && line.contains("bytes stack frame") {
            last.stack = number_before(line, " bytes stack frame").unwrap_or(0);
            last.spill_stores = number_before(line, " bytes spill stores").unwrap_or(0);
            last.spill_loads = number_before(line, " bytes spill loads").unwrap_or(0);
        } else if line.contains(": Used ") {
            last.registers = number_before(line, " registers").unwrap_or(0);
            last.shared = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    found
}

/// Lines of `log` that are warnings, and whether one of them must fail the build.
pub fn warnings(log: &str) -> (Vec<&str>, bool) {
    let fatal = |line: &str| FATAL.iter().any(|text| line.contains(text));
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("warning") || fatal(line))
        .collect();
    let any_fatal = lines.iter().any(|line| fatal(line));
    (lines, any_fatal)
}

fn between<'a>(line: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(open)?;
    Some(rest.split_once(close)?.0)
}

fn number_before(line: &str, unit: &str) -> Option<u32> {
    let (head, _) = line.split_once(unit)?;
    head.rsplit([' ', ',']).next()?.parse().ok()
}
