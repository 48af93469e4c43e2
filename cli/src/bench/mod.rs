//! `evenkeel bench`: the operations' times beside the device's ceilings and other software.

mod conditions;
mod cpu;
mod cuda;
mod emulated;
mod peers;
mod plot;
pub mod record;
mod table;
mod work;

use std::path::{Path, PathBuf};

use evenkeel::device::Build;
use evenkeel::{DType, Device, DeviceKind, Error};

use self::record::{Ceilings, DeviceInfo, Row, Run, SCHEMA, ShapeOf, now};
use crate::loss::cases::{TOKENS, VOCABULARIES};
use crate::verify::progress;

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kind of device; the best there is without one.
    pub device: Option<DeviceKind>,
    /// Tokens and vocabularies; the real ones without any.
    pub shapes: Vec<(usize, usize)>,
    /// Types of logits; bf16 (and f32 where there is time) without any.
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

/// Shapes with so many tokens, or those given.
fn shapes(
    options: &Options,
    vocabularies: &[usize],
    tokens: impl Fn(usize) -> usize,
) -> Vec<ShapeOf> {
    if options.shapes.is_empty() {
        return vocabularies
            .iter()
            .map(|&vocab| ShapeOf {
                tokens: tokens(vocab),
                vocab,
            })
            .collect();
    }
    options
        .shapes
        .iter()
        .map(|&(tokens, vocab)| ShapeOf { tokens, vocab })
        .collect()
}

/// About two million logits a shape: a minute in all on two cores.
fn on_cpu(options: &Options, run: &mut Run) -> evenkeel::Result<()> {
    const LOGITS: usize = 1 << 21;
    let vocabularies = if options.quick {
        &VOCABULARIES[..2]
    } else {
        &VOCABULARIES[..]
    };
    let shapes = shapes(options, vocabularies, |vocab| (LOGITS / vocab).max(1));
    run.device.name = format!(
        "{}, {} threads",
        run.device.name,
        rayon::current_num_threads()
    );
    run.notes.push(
        "the CPU device computes the formulas in f64: it is the oracle, and no measure of the kernels".into(),
    );
    if options.shapes.is_empty() {
        run.notes.push(format!(
            "tokens reduced to about {LOGITS} logits a shape (training has {} to {}); --shape takes others",
            TOKENS[0], TOKENS[2]
        ));
    }
    let dtypes = pick(&options.dtypes, &[DType::Bf16]);
    let bar = progress((shapes.len() * dtypes.len()) as u64);
    for &dtype in &dtypes {
        for (index, &shape) in shapes.iter().enumerate() {
            // The family's members once: they differ by a few operations a row.
            let works = work::apart(&work::works(index == 0 && !options.quick));
            bar.set_message(format!("{}x{} {dtype}", shape.tokens, shape.vocab));
            let (rows, ceilings) = cpu::measure(&works, shape, dtype)?;
            run.ceilings = ceilings;
            run.rows.extend(rows);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn on_emulator(device: &Device, options: &Options, run: &mut Run) -> evenkeel::Result<()> {
    let vocabularies = if options.quick {
        &VOCABULARIES[..2]
    } else {
        &VOCABULARIES[..]
    };
    let shapes = shapes(options, vocabularies, |_| TOKENS[1]);
    run.notes.push(format!(
        "nothing is timed on the emulator: bytes of {} rows, scaled to the batch; the microseconds are PREDICTIONS \
         of a device that moves {} GB/s",
        emulated::TOKENS,
        emulated::ASSUMED_GBS
    ));
    let works = work::works(false);
    let dtypes = pick(&options.dtypes, &[DType::Bf16]);
    let bar = progress((shapes.len() * dtypes.len()) as u64);
    for &dtype in &dtypes {
        for &shape in &shapes {
            bar.set_message(format!("{} {dtype}", shape.vocab));
            run.rows
                .extend(emulated::measure(device, &works, shape, dtype)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
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
    let bar = progress(0);
    for (shape, dtype, family) in cuda_grid(options) {
        bar.inc_length(1);
        bar.set_message(format!("{}x{} {dtype}", shape.tokens, shape.vocab));
        let bytes = shape.tokens * shape.vocab * dtype.size();
        let measured = gpu.ceilings(bytes).and_then(|ceilings| {
            Ok((
                gpu.measure(&work::works(family), shape, dtype, &ceilings)?,
                ceilings,
            ))
        });
        match measured {
            Ok((rows, ceilings)) => {
                largest(run, &rows, bytes, ceilings);
                run.rows.extend(rows);
            }
            Err(Error::OutOfMemory { bytes }) => run.notes.push(format!(
                "{}x{} {dtype} skipped: {bytes} bytes do not fit",
                shape.tokens, shape.vocab
            )),
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    note_conditions(run);
    drop(gpu);
    if options.peers {
        bar.set_message("PyTorch, Liger");
        run.notes.extend(peers::measure(&mut run.rows, repetitions));
    } else {
        run.notes.push("peers left out".into());
    }
    bar.finish_and_clear();
    Ok(())
}

/// Keeps the ceilings of the largest shape so far.
fn largest(run: &mut Run, rows: &[Row], bytes: usize, ceilings: Ceilings) {
    let before = run.rows.iter().map(|row| row.bytes).max().unwrap_or(0);
    if !rows.is_empty() && bytes as u64 * 2 >= before {
        run.ceilings = ceilings;
    }
}

/// Every real shape in bf16; in f32 and for the whole family, the shape of the goals.
fn cuda_grid(options: &Options) -> Vec<(ShapeOf, DType, bool)> {
    let goal = ShapeOf {
        tokens: 8192,
        vocab: 128_256,
    };
    if !options.shapes.is_empty() || !options.dtypes.is_empty() {
        let shapes = shapes(options, &VOCABULARIES, |_| goal.tokens);
        let dtypes = pick(&options.dtypes, &[DType::Bf16]);
        return shapes
            .iter()
            .flat_map(|&shape| dtypes.iter().map(move |&dtype| (shape, dtype, true)))
            .collect();
    }
    if options.quick {
        let quick = [(2048, 32_000), (2048, 50_257), (8192, 128_256)];
        return quick
            .map(|(tokens, vocab)| (ShapeOf { tokens, vocab }, DType::Bf16, false))
            .to_vec();
    }
    let mut grid = Vec::new();
    for tokens in TOKENS {
        for vocab in VOCABULARIES {
            let shape = ShapeOf { tokens, vocab };
            grid.push((shape, DType::Bf16, shape == goal));
            if tokens == goal.tokens {
                grid.push((shape, DType::F32, false));
            }
        }
    }
    // Few columns and many rows.
    grid.push((
        ShapeOf {
            tokens: 32_000,
            vocab: 1024,
        },
        DType::Bf16,
        false,
    ));
    grid
}
