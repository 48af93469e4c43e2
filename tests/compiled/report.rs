//! What the build script wrote down about the kernels it compiled.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The folder with the report and the fatbins.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("OUT_DIR"))
}

/// The kernels of a build.
#[derive(Debug, Default)]
pub struct Report {
    /// Version of the compiler.
    pub compiler: String,
    /// Folder with the compiler's other programs.
    pub bin: PathBuf,
    /// The targets of each module's fatbin.
    pub fatbins: BTreeMap<String, Vec<String>>,
    pub resources: BTreeMap<Key, Resources>,
}

/// One kernel on one target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub module: String,
    pub kernel: String,
    pub target: String,
}

/// Per thread, except for the shared memory, which is a block's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub registers: u32,
    pub shared: u32,
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
}

impl Resources {
    /// From the words after the key, in the order of the fields.
    pub fn parse(words: &[&str]) -> Option<Self> {
        let numbers: Vec<u32> = words
            .iter()
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        let [registers, shared, stack, spill_stores, spill_loads] = numbers[..] else {
            return None;
        };
        Some(Self {
            registers,
            shared,
            stack,
            spill_stores,
            spill_loads,
        })
    }
}

/// The report of this build, or nothing, said aloud, where it has no kernels.
pub fn read() -> Option<Report> {
    let text = fs::read_to_string(directory().join("report.txt"))
        .expect("the build script writes a report");
    let mut report = Report::default();
    for line in text.lines() {
        let (word, rest) = line
            .split_once(' ')
            .expect("a line of the report is a word and its facts");
        let words: Vec<&str> = rest.split(' ').collect();
        match word {
            "not-built" => {
                announce(&format!("SKIPPED: the CUDA kernels were not built: {rest}"));
                return None;
            }
            "compiler" => report.compiler = rest.to_string(),
            "bin" => report.bin = PathBuf::from(rest),
            "fatbin" => {
                let targets = words[1..].iter().map(|target| target.to_string()).collect();
                report.fatbins.insert(words[0].to_string(), targets);
            }
            "kernel" => {
                let key = Key {
                    module: words[0].into(),
                    kernel: words[1].into(),
                    target: words[2].into(),
                };
                let resources = Resources::parse(&words[3..]).expect("a kernel has five numbers");
                report.resources.insert(key, resources);
            }
            other => panic!("unknown fact `{other}` in the report"),
        }
    }
    Some(report)
}

/// Says something even where the test harness captures what passing tests print.
pub fn announce(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
