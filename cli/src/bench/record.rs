//! A run as it is kept: the rows, the device, the ceilings.

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use evenkeel::DType;
use serde::{Deserialize, Serialize};

/// The version of this form.
pub const SCHEMA: u32 = 1;

/// A run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: u32,
    /// UTC, as `2026-01-31T12:00:00Z`.
    pub date: String,
    /// Of the kernels and the code that launches them.
    pub source_hash: String,
    /// What it ran on.
    pub device: DeviceInfo,
    /// What the device can do at most, measured in the same run.
    pub ceilings: Ceilings,
    /// The measurements.
    pub rows: Vec<Row>,
    /// What a reader must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// `sm_90`, or the processor's architecture.
    pub arch: String,
    /// The driver's version; empty without one.
    pub driver: String,
    /// The CUDA compiler's version; empty without kernels.
    pub cuda: String,
    /// Power and clocks, as nvidia-smi said before and after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Conditions>,
}

/// A GPU's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// When.
    pub at: String,
    /// Watts drawn, and the limit.
    pub power_w: Option<f64>,
    /// Watts at most.
    pub power_limit_w: Option<f64>,
    /// Clock of the multiprocessors.
    pub sm_mhz: Option<f64>,
    /// Clock of the memory.
    pub memory_mhz: Option<f64>,
    /// Degrees Celsius.
    pub celsius: Option<f64>,
}

/// Bandwidths of the largest shape, and product rates where an operation needs them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes read and written by a copy, a nanosecond.
    pub copy_gbs: Option<f64>,
    /// Bytes read, a nanosecond.
    pub read_gbs: Option<f64>,
    /// A large bf16 product.
    pub bf16_tflops: Option<f64>,
    /// A large FP8 product.
    pub fp8_tflops: Option<f64>,
}

/// The size of a row's problem: of each family that has one, its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ShapeOf {
    /// Of a loss.
    Logits(Logits),
    /// Of an operation on rows.
    Rows(Rows),
    /// Of an operation on heads.
    Heads(Heads),
    /// Of a product.
    Product(Product),
}

/// Rows and classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logits {
    /// Rows.
    pub tokens: usize,
    /// Classes.
    pub vocab: usize,
}

/// Rows and columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Rows.
    pub tokens: usize,
    /// Columns.
    pub width: usize,
}

/// Rows of heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Tokens.
    pub tokens: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// A product of `[m, k]` and `[n, k]` transposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Rows: tokens.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
}

impl ShapeOf {
    /// Its dimensions, the outermost first.
    #[must_use]
    pub fn dimensions(&self) -> Vec<usize> {
        match *self {
            Self::Logits(Logits { tokens, vocab }) => vec![tokens, vocab],
            Self::Rows(Rows { tokens, width }) => vec![tokens, width],
            Self::Heads(Heads {
                tokens,
                heads,
                head_dim,
            }) => vec![tokens, heads, head_dim],
            Self::Product(Product { m, n, k }) => vec![m, n, k],
        }
    }

    /// Elements of a tensor of this size; of the result of a product.
    #[must_use]
    pub fn elements(&self) -> usize {
        match self {
            Self::Product(Product { m, n, .. }) => m * n,
            _ => self.dimensions().iter().product(),
        }
    }

    /// Elements that one normalization or softmax is over.
    #[must_use]
    pub fn columns(&self) -> usize {
        match *self {
            Self::Logits(logits) => logits.vocab,
            Self::Rows(rows) => rows.width,
            Self::Heads(heads) => heads.head_dim,
            Self::Product(product) => product.n,
        }
    }

    /// The same of so many tokens.
    #[must_use]
    pub fn of_tokens(mut self, count: usize) -> Self {
        match &mut self {
            Self::Logits(Logits { tokens, .. })
            | Self::Rows(Rows { tokens, .. })
            | Self::Heads(Heads { tokens, .. })
            | Self::Product(Product { m: tokens, .. }) => *tokens = count,
        }
        self
    }

    /// Tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        match self {
            Self::Logits(Logits { tokens, .. })
            | Self::Rows(Rows { tokens, .. })
            | Self::Heads(Heads { tokens, .. })
            | Self::Product(Product { m: tokens, .. }) => *tokens,
        }
    }
}

impl Default for ShapeOf {
    fn default() -> Self {
        Self::Logits(Logits::default())
    }
}

/// As `--shape` takes it.
impl fmt::Display for ShapeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.dimensions().iter().map(usize::to_string).collect();
        f.pad(&sizes.join("x"))
    }
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half of the repetitions took longer.
    pub median: f64,
    /// One in ten took less.
    pub p10: f64,
    /// One in ten took longer.
    pub p90: f64,
}

impl Times {
    /// Of repetitions; none of none.
    #[must_use]
    pub fn of(mut us: Vec<f64>) -> Option<Self> {
        us.sort_by(f64::total_cmp);
        let at = |share: f64| {
            us.get(((us.len().checked_sub(1)?) as f64 * share).round() as usize)
                .copied()
        };
        Some(Self {
            median: at(0.5)?,
            p10: at(0.1)?,
            p90: at(0.9)?,
        })
    }
}

/// The same work done by something else.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    /// What.
    pub name: String,
    /// Which.
    pub version: String,
    /// How long.
    pub us: Times,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// The operation family.
    pub op: String,
    /// What of the family: objective and mode, operation and pass.
    pub variant: String,
    /// The problem's size.
    pub shape: ShapeOf,
    /// Type of the logits, or of the rows.
    pub dtype: String,
    /// How long; absent where nothing was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub us: Option<Times>,
    /// The least bytes that must move (timed rows), or those that did (emulated rows).
    pub bytes: u64,
    /// Floating-point operations of products.
    pub flops: u64,
    /// `bytes` a nanosecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gbs: Option<f64>,
    /// `flops` a picosecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tflops: Option<f64>,
    /// Share of the ceiling for the same number of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_ceiling: Option<f64>,
    /// A prediction from bytes alone, where nothing was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_us: Option<f64>,
    /// Bytes moved over the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_of_least: Option<f64>,
    /// Others.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

impl Peer {
    /// The steps of an operation one after the other, in the same process; none of no repetitions.
    #[must_use]
    pub fn unfused(arithmetic: &str, us: Vec<f64>) -> Option<Self> {
        Times::of(us).map(|us| Self {
            name: "unfused".into(),
            version: arithmetic.into(),
            us,
        })
    }
}

impl Peer {
    /// What is fused, in one operation after another of this library; none of no repetitions.
    #[must_use]
    pub fn apart(us: Vec<f64>) -> Option<Self> {
        Times::of(us).map(|us| Self {
            name: "apart".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            us,
        })
    }
}

/// What a row measures.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The operation family.
    pub op: &'static str,
    /// [`Row::variant`].
    pub variant: String,
    /// The problem's size.
    pub shape: ShapeOf,
    /// Type of the tensors.
    pub dtype: DType,
    /// The least bytes.
    pub bytes: u64,
}

impl Measured {
    /// A row of what was timed: microseconds of each repetition, and the ceiling for as many bytes.
    #[must_use]
    pub fn timed(self, us: Vec<f64>, ceiling: Option<f64>) -> Row {
        let us = Times::of(us);
        let gbs = us.map(|us| self.bytes as f64 / us.median / 1e3);
        Row {
            us,
            gbs,
            of_ceiling: gbs.zip(ceiling).map(|(gbs, ceiling)| gbs / ceiling),
            ..self.row()
        }
    }

    /// A row of what was emulated: `bytes` moved, which a device of so many bytes a nanosecond is
    /// predicted to take its time for.
    #[must_use]
    pub fn emulated(self, bytes: f64, gbs: f64) -> Row {
        Row {
            bytes: bytes as u64,
            predicted_us: Some(bytes / gbs / 1e3),
            bytes_of_least: Some(bytes / self.bytes as f64),
            ..self.row()
        }
    }

    fn row(self) -> Row {
        Row {
            op: self.op.into(),
            variant: self.variant,
            shape: self.shape,
            dtype: self.dtype.to_string(),
            bytes: self.bytes,
            ..Row::default()
        }
    }
}

impl Row {
    /// What makes two rows of two runs the same measurement.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{} {} {} {}", self.op, self.variant, self.shape, self.dtype)
    }
}

impl Run {
    /// Reads a run.
    ///
    /// # Errors
    /// When the file is not there or is no run of this form.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let run: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{} is no recorded run: {error}", path.display()))?;
        if run.schema == SCHEMA {
            Ok(run)
        } else {
            Err(format!(
                "{} has schema {}, not {SCHEMA}",
                path.display(),
                run.schema
            ))
        }
    }

    /// Writes the run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// The rows that take longer than in `baseline` by more than `allowed`, in words.
    ///
    /// # Errors
    /// When the runs have no row in common, or are of different devices.
    pub fn slowdowns(&self, baseline: &Self, allowed: f64) -> Result<Vec<String>, String> {
        if self.device.name != baseline.device.name {
            return Err(format!(
                "the baseline is of {}, this run of {}",
                baseline.device.name, self.device.name
            ));
        }
        let mut common = 0;
        let mut slower = Vec::new();
        for row in &self.rows {
            let same = baseline.rows.iter().find(|old| old.key() == row.key());
            let (Some(now), Some(then)) = (row.us, same.and_then(|old| old.us)) else {
                continue;
            };
            common += 1;
            let ratio = now.median / then.median;
            if ratio > 1.0 + allowed {
                slower.push(format!(
                    "{}: {:.1} us, {:.1} in the baseline ({:+.1}%)",
                    row.key(),
                    now.median,
                    then.median,
                    (ratio - 1.0) * 100.0
                ));
            }
        }
        if common == 0 {
            return Err("the baseline has no timed row in common with this run".into());
        }
        Ok(slower)
    }
}

/// Now, in UTC.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    date(since.as_secs())
}

/// Seconds since 1970 as a date; years of 400-year cycles that begin in March.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * cycle + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    fn run(us: f64) -> Run {
        let row = Row {
            op: "loss".into(),
            us: Times::of(vec![us; 3]),
            ..Row::default()
        };
        Run {
            schema: SCHEMA,
            rows: vec![row],
            ..Run::default()
        }
    }

    #[test]
    fn a_slower_row_is_told() {
        assert_eq!(run(104.0).slowdowns(&run(100.0), 0.05), Ok(vec![]));
        assert_eq!(
            run(106.0)
                .slowdowns(&run(100.0), 0.05)
                .map(|slower| slower.len()),
            Ok(1)
        );
        assert!(run(1.0).slowdowns(&Run::default(), 0.05).is_err());
    }

    #[test]
    fn a_run_returns_as_it_went() {
        let text = serde_json::to_string(&run(5.0)).unwrap();
        let back: Run = serde_json::from_str(&text).unwrap();
        assert_eq!(back.rows[0].us, run(5.0).rows[0].us);
    }

    #[test]
    fn shapes_are_read_as_every_version_wrote_them() {
        let shapes = [
            (
                r#"{"tokens":8,"vocab":32000}"#,
                ShapeOf::Logits(Logits {
                    tokens: 8,
                    vocab: 32_000,
                }),
                "8x32000",
            ),
            (
                r#"{"tokens":8,"width":4096}"#,
                ShapeOf::Rows(Rows {
                    tokens: 8,
                    width: 4096,
                }),
                "8x4096",
            ),
            (
                r#"{"tokens":8,"heads":32,"head_dim":128}"#,
                ShapeOf::Heads(Heads {
                    tokens: 8,
                    heads: 32,
                    head_dim: 128,
                }),
                "8x32x128",
            ),
        ];
        for (text, shape, shown) in shapes {
            assert_eq!(serde_json::from_str::<ShapeOf>(text).unwrap(), shape);
            assert_eq!(serde_json::to_string(&shape).unwrap(), text);
            assert_eq!(shape.to_string(), shown);
        }
        assert!(serde_json::from_str::<ShapeOf>(r#"{"tokens":8}"#).is_err());
    }

    #[test]
    fn rates_are_of_the_least_bytes() {
        let measured = Measured {
            op: "norm",
            variant: "rms forward".into(),
            shape: ShapeOf::default(),
            dtype: DType::Bf16,
            bytes: 8_000_000,
        };
        let row = measured.clone().timed(vec![2.0; 3], Some(5000.0));
        assert_eq!((row.gbs, row.of_ceiling), (Some(4000.0), Some(0.8)));
        let row = measured.emulated(1e7, 5000.0);
        assert_eq!(
            (row.bytes, row.predicted_us, row.bytes_of_least),
            (10_000_000, Some(2.0), Some(1.25))
        );
    }

    #[test]
    fn quantiles() {
        let times = Times::of((1..=11).map(f64::from).collect()).unwrap();
        assert_eq!((times.p10, times.median, times.p90), (2.0, 6.0, 10.0));
        assert_eq!(Times::of(vec![]), None);
    }
}
