//! Vectors made by independent software: see tests/golden/README.md.

#[cfg(feature = "quant")]
pub mod activation;
#[cfg(feature = "loss")]
pub mod loss;
#[cfg(feature = "matmul")]
pub mod matmul;
#[cfg(feature = "norm")]
pub mod norm;
#[cfg(feature = "quant")]
pub mod quant;

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;

/// Lines of a file that belong together.
#[derive(Clone, Debug)]
pub struct Block {
    /// `inputs` or `case`.
    pub kind: String,
    /// The inputs' name.
    pub name: String,
    lines: Vec<(String, String)>,
}

impl Block {
    /// The keys and values after the first line.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines
            .iter()
            .map(|(key, values)| (&key[..], &values[..]))
    }
}

/// The blocks of a file, from EVENKEEL_GOLDEN_DIR or the repository.
pub fn blocks(file: &str) -> Vec<Block> {
    let folder = std::env::var_os("EVENKEEL_GOLDEN_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
        PathBuf::from,
    );
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; set EVENKEEL_GOLDEN_DIR", path.display()));
    text.split("\n\n").filter_map(parse).collect()
}

/// A block; none where there are only comments.
fn parse(text: &str) -> Option<Block> {
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(key, values)| (key.to_owned(), values.to_owned()));
    let (kind, name) = lines.next()?;
    assert!(
        kind == "inputs" || kind == "case",
        "a block begins with {kind:?}"
    );
    Some(Block {
        kind,
        name,
        lines: lines.collect(),
    })
}

/// Numbers divided by spaces.
pub fn numbers<T: FromStr<Err: Debug>>(values: &str) -> Vec<T> {
    values
        .split(' ')
        .map(|value| value.parse().unwrap())
        .collect()
}

/// How far a result may be from the expected one: `relative` of a size, which for an element of a
/// row is the largest of it, and `absolute` beside.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub relative: f64,
    pub absolute: f64,
}

impl Tolerance {
    /// What is wrong with `got`, if it is not as expected.
    pub fn mismatch(&self, got: f64, want: f64, size: f64) -> Option<String> {
        let allowed = self.relative * size + self.absolute;
        // Two infinities are equal; a NaN is a mismatch.
        let close = got == want || (got - want).abs() <= allowed;
        (!close).then(|| format!("is {got:e}, expected {want:e} within {allowed:e}"))
    }
}

/// JAX rounds each of its steps; sums of a thousand terms stay well below this.
pub const DOUBLE: Tolerance = Tolerance {
    relative: 1e-12,
    absolute: 1e-15,
};
