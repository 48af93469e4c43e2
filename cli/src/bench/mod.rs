//! `evenkeel bench`: the operations' times beside the device's ceilings and other software.

mod conditions;
mod cpu;
mod cuda;
mod loss;
mod matmul;
mod norm;
mod peers;
mod plot;
mod quant;
pub mod record;
mod table;

use std::path::{Path, PathBuf};

use evenkeel::device::Build;
use evenkeel::{DType, Device, DeviceKind, Error};

use self::record::{Ceilings, DeviceInfo, Run, SCHEMA, now};
use crate::choose::{Op, Shape};

/// The copy rate that predictions assume, in bytes a nanosecond: nine tenths of the 4.8 TB/s that an
/// H200 nominally has. No run of this project has measured it.
const ASSUMED_GBS: f64 = 4300.0;

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kind of device; the best there is without one.
    pub device: Option<DeviceKind>,
    /// The operation family; all without one.
    pub op: Option<Op>,
    /// Sizes, each for the rows that have such a one; the real ones without any.
    pub shapes: Vec<Shape>,
    /// Types of logits and rows; bf16 (and f32 where there is time) without any.
    pub dtypes: Vec<DType>,
    /// Fewer shapes and repetitions.
    pub quick: bool,
    /// Whether other software is measured.
    pub peers: bool,
    /// Where to write the run.
    pub json: Option<PathBuf>,
    /// Where to draw it.
    pub plot: Option<PathBuf>,
    /// A run to compare with.
    pub baseline: Option<PathBuf>,
    /// How much slower than the baseline a row may be.
    pub max_slowdown: f64,
}

impl Options {
    fn families(&self) -> impl Iterator<Item = Op> {
        Op::ALL
            .into_iter()
            .filter(|op| self.op.is_none_or(|wanted| wanted == *op))
    }
}

/// Measures, prints, writes. False when something is slower than the baseline allows.
///
/// # Errors
/// When the device is not here, a file cannot be read or written, or the device fails.
pub fn run(options: &Options) -> Result<bool, String> {
    // Before the work, so that a wrong path does not cost it.
    let baseline = options.baseline.as_deref().map(Run::read).transpose()?;
    for path in [&options.json, &options.plot].into_iter().flatten() {
        has_folder(path)?;
    }
    let matrix = |shape: &Shape| matches!(shape, Shape::Rows { .. });
    let of_matrices = options.op.filter(|op| !matches!(op, Op::Norm | Op::Matmul));
    if let Some(op) = of_matrices
        && !options.shapes.is_empty()
        && !options.shapes.iter().any(matrix)
    {
        return Err(format!("{op} has shapes of two numbers, as 4096x14336"));
    }
    let device = open(options.device).map_err(|error| error.to_string())?;
    let run = measure(&device, options).map_err(|error| error.to_string())?;
    print!("{}", table::text(&run));
    if let Some(path) = &options.json {
        run.write(path)?;
    }
    if let Some(path) = &options.plot {
        plot::draw(&run, path)?;
    }
    let Some(baseline) = baseline else {
        return Ok(true);
    };
    let slower = run.slowdowns(&baseline, options.max_slowdown)?;
    for row in &slower {
        println!("SLOWER {row}");
    }
    if slower.is_empty() {
        println!(
            "no row is more than {:.1}% slower than the baseline",
            options.max_slowdown * 100.0
        );
    }
    Ok(slower.is_empty())
}

/// That a file can be made at this path, as far as its folder says.
fn has_folder(path: &Path) -> Result<(), String> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(format!(
            "cannot write {}: there is no folder {}",
            path.display(),
            folder.display()
        )),
        _ => Ok(()),
    }
}

fn open(kind: Option<DeviceKind>) -> evenkeel::Result<Device> {
    match kind {
        None => Device::best(),
        Some(DeviceKind::Cuda) => Device::cuda(0),
        Some(DeviceKind::Cpu) => Ok(Device::cpu()),
        Some(_) => crate::subject::Subject::emulated(1)?.device(0).cloned(),
    }
}

fn measure(device: &Device, options: &Options) -> evenkeel::Result<Run> {
    let build = Build::current();
    let mut run = Run {
        schema: SCHEMA,
        date: now(),
        source_hash: build.source_hash.into(),
        device: DeviceInfo {
            name: device.name(),
            arch: device
                .compute_capability()
                .map_or(std::env::consts::ARCH.into(), |(major, minor)| {
                    format!("sm_{major}{minor}")
                }),
            cuda: build.cuda_version.into(),
            ..DeviceInfo::default()
        },
        ..Run::default()
    };
    match device.kind() {
        DeviceKind::Cuda => on_cuda(device, options, &mut run)?,
        DeviceKind::Cpu => on_cpu(options, &mut run)?,
        _ => on_emulator(device, options, &mut run)?,
    }
    Ok(run)
}

fn pick<T: Clone>(given: &[T], otherwise: &[T]) -> Vec<T> {
    if given.is_empty() {
        otherwise.to_vec()
    } else {
        given.to_vec()
    }
}

/// The bytes of the largest tensor so far, whose ceilings the run shows.
#[derive(Debug, Default)]
struct Largest(usize);

impl Largest {
    fn keep(&mut self, run: &mut Run, bytes: usize, ceilings: Ceilings) {
        if bytes >= self.0 {
            (self.0, run.ceilings) = (bytes, ceilings);
        }
    }
}

impl Run {
    /// What was measured, or nothing and a note where the device's memory does not hold it.
    fn unless_too_large<T>(
        &mut self,
        what: &str,
        measured: evenkeel::Result<T>,
    ) -> evenkeel::Result<Option<T>> {
        match measured {
            Ok(measured) => Ok(Some(measured)),
            Err(Error::OutOfMemory { bytes }) => {
                let note = format!("{what} skipped: {bytes} bytes do not fit");
                self.notes.push(note);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Two minutes in all on two cores.
fn on_cpu(options: &Options, run: &mut Run) -> evenkeel::Result<()> {
    run.device.name = format!(
        "{}, {} threads",
        run.device.name,
        rayon::current_num_threads()
    );
    run.notes.push(
        "the CPU device computes the formulas in f64: it is the oracle, and no measure of the kernels".into(),
    );
    let mut largest = Largest::default();
    for family in options.families() {
        match family {
            Op::Loss => loss::on_cpu(options, run, &mut largest)?,
            Op::Norm => norm::on_cpu(options, run, &mut largest)?,
            Op::Quant => quant::on_cpu(options, run, &mut largest)?,
            Op::Matmul => matmul::on_cpu(options, run)?,
        }
    }
    Ok(())
}

fn on_emulator(device: &Device, options: &Options, run: &mut Run) -> evenkeel::Result<()> {
    run.notes.push(format!(
        "nothing is timed on the emulator: the microseconds are PREDICTIONS of a device that moves \
         {ASSUMED_GBS} GB/s"
    ));
    for family in options.families() {
        match family {
            Op::Loss => loss::on_emulator(device, options, run)?,
            Op::Norm => norm::on_emulator(device, options, run)?,
            Op::Quant => quant::on_emulator(device, options, run)?,
            Op::Matmul => matmul::on_emulator(run),
        }
    }
    Ok(())
}

fn on_cuda(device: &Device, options: &Options, run: &mut Run) -> evenkeel::Result<()> {
    let repetitions = if options.quick { 7 } else { 20 };
    let gpu = cuda::Gpu::new(device, repetitions)?;
    let note_conditions = |run: &mut Run| {
        if let Some((driver, conditions)) = conditions::ask(0) {
            run.device.driver = driver;
            run.device.conditions.push(conditions);
        }
    };
    note_conditions(run);
    let mut largest = Largest::default();
    for family in options.families() {
        match family {
            Op::Loss => loss::on_cuda(&gpu, options, run, &mut largest)?,
            Op::Norm => norm::on_cuda(&gpu, options, run, &mut largest)?,
            Op::Quant => quant::on_cuda(&gpu, options, run, &mut largest)?,
            Op::Matmul => matmul::on_cuda(&gpu, options, run, &mut largest)?,
        }
    }
    note_conditions(run);
    drop(gpu);
    if !options.peers {
        run.notes.push("peers left out".into());
        return Ok(());
    }
    for family in options.families() {
        let notes = match family {
            Op::Loss => peers::measure(
                "cross_entropy.py",
                &mut run.rows,
                repetitions,
                loss::question,
            ),
            Op::Norm => peers::measure("norm.py", &mut run.rows, repetitions, |row| {
                norm::question(row, options)
            }),
            Op::Quant => peers::measure("quant.py", &mut run.rows, repetitions, |row| {
                quant::question(row, options)
            }),
            Op::Matmul => peers::measure("matmul.py", &mut run.rows, repetitions, matmul::question),
        };
        run.notes.extend(notes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_a_note() {
        let mut run = Run::default();
        assert_eq!(run.unless_too_large("a", Ok(1)), Ok(Some(1)));
        let too_large = Err::<(), _>(Error::OutOfMemory { bytes: 9 });
        assert_eq!(run.unless_too_large("b", too_large), Ok(None));
        assert_eq!(run.notes, ["b skipped: 9 bytes do not fit"]);
        let other = Err::<(), _>(Error::Unsupported {
            op: "bench",
            what: "this".into(),
            remedy: "none".into(),
        });
        assert!(run.unless_too_large("c", other).is_err());
    }

    #[test]
    fn the_largest_tensors_ceilings_are_shown() {
        let mut run = Run::default();
        let mut largest = Largest::default();
        for (bytes, gbs) in [(10, 1.0), (30, 3.0), (20, 2.0)] {
            let ceilings = Ceilings {
                copy_gbs: Some(gbs),
                ..Ceilings::default()
            };
            largest.keep(&mut run, bytes, ceilings);
        }
        assert_eq!(run.ceilings.copy_gbs, Some(3.0));
    }

    #[test]
    fn a_loss_of_heads_is_refused() {
        let options = Options {
            op: Some(Op::Loss),
            shapes: vec!["2x3x4".parse().unwrap()],
            ..Options::default()
        };
        assert!(run(&options).is_err());
        assert_eq!(options.families().collect::<Vec<_>>(), [Op::Loss]);
        assert_eq!(Options::default().families().count(), Op::ALL.len());
    }
}
