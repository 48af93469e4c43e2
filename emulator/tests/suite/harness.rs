//! Loads the tables of test kernels, and launches them on small buffers.

use evenkeel_emulator::{
    Architecture, CudaEmulatorKernel, Emulator, FindingKind, Kernel, Launch, Memory, Report,
};

macro_rules! tables {
    ($($file:ident: $function:ident),* $(,)?) => {
        unsafe extern "C" {
            $(fn $function(count: *mut usize) -> *const CudaEmulatorKernel;)*
        }

        /// The kernel of this name, with the source it was compiled from.
        pub fn kernel(name: &str) -> (Kernel, &'static str) {
            $(
                // SAFETY: the tables are made by CUDA_EMULATOR_TABLE and compiled with the
                // crate's flags.
                let table = unsafe { Kernel::table($function) };
                if let Some(kernel) = table.into_iter().find(|kernel| kernel.name() == name) {
                    return (kernel, include_str!(concat!("../kernels/", stringify!($file), ".cc")));
                }
            )*
            panic!("no kernel {name}")
        }
    };
}

tables!(
    asynchronous: test_async,
    block: test_block,
    cluster: test_cluster,
    grid: test_grid,
    memory: test_memory,
    pipeline: test_pipeline,
    registers: test_registers,
    tensor_core: test_tensor_core,
    tensor_map: test_tensor_map,
    traffic: test_traffic,
    warp: test_warp,
    wgmma: test_wgmma,
);

/// Mirrors `Args` of tests/kernels/test_kernel.h.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Args {
    pub input: u64,
    pub output: u64,
    pub words: u64,
    pub n: i64,
}

impl Args {
    pub fn bytes(&self) -> Vec<u8> {
        [self.input, self.output, self.words, self.n as u64]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

/// An emulator with an input of floats 0, 1, 2, ..., an output, and zeroed words.
pub struct Bench {
    pub emulator: Emulator,
    pub input: Memory,
    pub output: Memory,
    pub words: Memory,
    pub len: usize,
}

impl Bench {
    pub fn new(len: usize) -> Bench {
        Bench::on(Architecture::sm_90(), len)
    }

    pub fn on(architecture: Architecture, len: usize) -> Bench {
        let emulator = Emulator::new(architecture);
        let input = emulator.alloc(len * 4).unwrap();
        let output = emulator.alloc(len * 4).unwrap();
        let words = emulator.alloc(len * 4).unwrap();
        let values: Vec<u8> = (0..len).flat_map(|i| (i as f32).to_le_bytes()).collect();
        input.write(0, &values).unwrap();
        words.fill(0, len * 4, 0).unwrap();
        Bench {
            emulator,
            input,
            output,
            words,
            len,
        }
    }

    pub fn args(&self) -> Args {
        Args {
            input: self.input.addr(),
            output: self.output.addr(),
            words: self.words.addr(),
            n: self.len as i64,
        }
    }

    pub fn run(&self, name: &str, launch: &Launch) -> Report {
        self.run_with(name, launch, &self.args())
    }

    pub fn run_with(&self, name: &str, launch: &Launch, args: &Args) -> Report {
        self.emulator.launch(&kernel(name).0, launch, &args.bytes())
    }

    pub fn floats(&self) -> Vec<f32> {
        let mut bytes = vec![0; self.len * 4];
        self.output.read(0, &mut bytes).unwrap();
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    pub fn words(&self) -> Vec<u32> {
        let mut bytes = vec![0; self.len * 4];
        self.words.read(0, &mut bytes).unwrap();
        bytes
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }
}

pub const SEEDS: std::ops::Range<u64> = 0..6;

/// The line of the kernel's source that ends in this marker.
fn line_of(source: &str, marker: &str) -> u32 {
    let ending = format!("// {marker}");
    let mut lines = source
        .lines()
        .enumerate()
        .filter(|(_, line)| line.ends_with(&ending));
    let (index, _) = lines
        .next()
        .unwrap_or_else(|| panic!("no line ends in {ending}"));
    index as u32 + 1
}

/// Asserts that `name` is caught with this kind, at the marked line, under every seed.
pub fn caught(name: &str, launch: &Launch, len: usize, kind: FindingKind, marker: &str) {
    caught_on(Architecture::sm_90(), name, launch, len, kind, marker);
}

pub fn caught_on(
    architecture: Architecture,
    name: &str,
    launch: &Launch,
    len: usize,
    kind: FindingKind,
    marker: &str,
) {
    for seed in SEEDS {
        let bench = Bench::on(architecture.clone(), len);
        let report = bench.run(name, &launch.clone().seed(seed));
        caught_by(&report, name, kind, marker);
    }
}

/// Asserts that a launch of `name` reports this kind at the marked line.
pub fn caught_by(report: &Report, name: &str, kind: FindingKind, marker: &str) {
    let line = line_of(kernel(name).1, marker);
    let hit = report
        .findings
        .iter()
        .find(|f| f.kind == kind && f.location.as_ref().is_some_and(|l| l.line == line));
    let Some(hit) = hit else {
        panic!("{name}: no {kind:?} at line {line}: {:#?}", report.findings);
    };
    assert!(hit.block.is_some() && hit.thread.is_some(), "{name}: {hit}");
    assert!(
        !hit.message.is_empty() && hit.to_string().contains(name),
        "{name}: {hit}"
    );
}

/// Asserts that `name` has no finding under any seed; returns the last bench for its results.
pub fn passes(name: &str, launch: &Launch, len: usize) -> Bench {
    passes_on(Architecture::sm_90(), name, launch, len)
}

pub fn passes_on(architecture: Architecture, name: &str, launch: &Launch, len: usize) -> Bench {
    let mut last = None;
    for seed in SEEDS {
        let bench = Bench::on(architecture.clone(), len);
        let report = bench.run(name, &launch.clone().seed(seed));
        assert!(
            report.is_clean(),
            "{name}, seed {seed}: {:#?}",
            report.findings
        );
        last = Some(bench);
    }
    last.unwrap()
}
