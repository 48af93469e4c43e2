//! The rows of quantisations, and of what stands beside them.

mod beside;
mod call;
mod cpu;
mod cuda;
mod emulated;
mod swiglu;
mod unfused;
mod work;

use evenkeel::{DType, Device, Result};
use serde_json::{Value, json};

use self::work::{Extra, TOKENS, WIDTHS, Work, rows};
use super::record::{Row, Run, ShapeOf};
use super::{Largest, Options, pick};
use crate::bench::cuda::Gpu;
use crate::choose::Shape;
use crate::verify::progress;

/// Elements of a tensor on the CPU.
const CPU_ELEMENTS: usize = 1 << 20;

/// The sizes and types to measure, with so many tokens each.
fn grid(options: &Options, tokens: &[usize]) -> Vec<(ShapeOf, DType)> {
    let given = options.shapes.iter().filter_map(|shape| match *shape {
        Shape::Rows { tokens, width } => Some(rows(tokens, width)),
        Shape::Heads { .. } => None,
    });
    let mut shapes: Vec<ShapeOf> = given.collect();
    if options.shapes.is_empty() {
        let real = tokens
            .iter()
            .flat_map(|&tokens| WIDTHS.map(|width| rows(tokens, width)));
        shapes.extend(real);
    }
    let dtypes = pick(&options.dtypes, &[DType::Bf16]);
    let all = shapes
        .into_iter()
        .flat_map(|shape| dtypes.iter().map(move |dtype| (shape, *dtype)));
    all.collect()
}

/// About a million elements a tensor.
///
/// # Errors
/// The library's.
pub fn on_cpu(options: &Options, run: &mut Run, largest: &mut Largest) -> Result<()> {
    let mut grid = grid(options, &TOKENS[..1]);
    if options.shapes.is_empty() {
        for (shape, _) in &mut grid {
            // Whole rotations, which are blocks of 128 at most.
            let tokens = (CPU_ELEMENTS / shape.columns()).next_multiple_of(128);
            *shape = shape.of_tokens(tokens);
        }
        run.notes.push(format!(
            "quant: tokens reduced to about {CPU_ELEMENTS} elements a tensor (training has {} to {}); --shape \
             takes others. The CPU device has f32 here, to the bit",
            TOKENS[0], TOKENS[1]
        ));
    }
    let bar = progress(grid.len() as u64);
    for (shape, dtype) in grid {
        bar.set_message(format!("{shape} {dtype}"));
        let (rows, ceilings) = cpu::measure(shape, dtype)?;
        largest.keep(run, shape.elements() * dtype.size(), ceilings);
        run.rows.extend(rows);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// A corner of each size.
///
/// # Errors
/// The library's.
pub fn on_emulator(device: &Device, options: &Options, run: &mut Run) -> Result<()> {
    run.notes.push(
        "quant: the bytes are of a few tiles, scaled to the matrix; a tensor that is read twice, for its \
         amax first, counts twice"
            .into(),
    );
    let grid = grid(options, &TOKENS[1..]);
    let bar = progress(grid.len() as u64);
    for (shape, dtype) in grid {
        bar.set_message(format!("{shape} {dtype}"));
        run.rows.extend(emulated::measure(device, shape, dtype)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Each matrix that fits.
///
/// # Errors
/// The library's and the driver's.
pub fn on_cuda(gpu: &Gpu, options: &Options, run: &mut Run, largest: &mut Largest) -> Result<()> {
    let tokens = if options.quick {
        &TOKENS[1..]
    } else {
        &TOKENS[..]
    };
    let grid = grid(options, tokens);
    let bar = progress(grid.len() as u64);
    for (shape, dtype) in grid {
        bar.set_message(format!("{shape} {dtype}"));
        bar.inc(1);
        let bytes = shape.elements() * dtype.size();
        let what = format!("quant {shape} {dtype}");
        let ceilings = gpu.ceilings(bytes);
        let Some(ceilings) = run.unless_too_large(&what, ceilings)? else {
            continue;
        };
        let pool = gpu.pool(dtype, shape.elements(), 1.0)?;
        for work in Work::of(shape) {
            let what = format!("quant {} {shape} {dtype}", work.name());
            let row = cuda::measure(gpu, work, shape, dtype, &ceilings, &pool);
            let row = run.unless_too_large(&what, row)?;
            run.rows.extend(row);
        }
        for work in beside::Work::all() {
            let what = format!("quant {} {shape} {dtype}", work.name());
            let row = cuda::beside(gpu, work, shape, dtype, &ceilings, &pool);
            let row = run.unless_too_large(&what, row)?;
            run.rows.extend(row);
        }
        largest.keep(run, bytes, ceilings);
    }
    bar.finish_and_clear();
    if options.peers && options.shapes.is_empty() {
        run.notes.push(format!(
            "quant: other software is measured at {} tokens (compiling takes it minutes)",
            TOKENS[1]
        ));
    }
    Ok(())
}

/// What the peers' script is asked about a row.
pub fn question(row: &Row, options: &Options) -> Option<Value> {
    if row.op != "quant" || (options.shapes.is_empty() && row.shape.tokens() != TOKENS[1]) {
        return None;
    }
    let mut beside = beside::Work::all().into_iter();
    if let Some(work) = beside.find(|work| work.name() == row.variant) {
        let (producer, format) = match work {
            beside::Work::SwiGlu(work) if work.backward => ("swiglu backward", work.format),
            beside::Work::SwiGlu(work) => ("swiglu forward", work.format),
            beside::Work::RmsNorm(format) => ("rms norm", Some(format)),
            beside::Work::Gelu(true, format) => ("gelu backward", format),
            beside::Work::Gelu(false, format) => ("gelu forward", format),
            beside::Work::Dequantize(format) => ("dequantize", Some(format)),
            // Nobody else's is of many tensors in one launch with a ring.
            beside::Work::Delayed => return None,
        };
        let row_wise = matches!(work, beside::Work::RmsNorm(_));
        let format = format.map(|format| format.to_string());
        return Some(json!({
            "producer": producer,
            "format": format.as_deref().and_then(|format| format.split(':').next()),
            "outputs": if row_wise { "row-wise" } else { "both" },
            "dtype": row.dtype,
            "tokens": row.shape.tokens(),
            "width": row.shape.columns(),
        }));
    }
    let mut works = Work::of(row.shape).into_iter();
    let work = works.find(|work| work.name() == row.variant)?;
    let format = work.format.to_string();
    let name = format.split(':').next()?;
    let mut asked = json!({
        "format": name,
        "outputs": work.outputs.to_string(),
        "dtype": row.dtype,
        "tokens": row.shape.tokens(),
        "width": row.shape.columns(),
    });
    match work.extra {
        Extra::None => {}
        Extra::Stochastic => asked["stochastic"] = json!(true),
        Extra::Rotated(n) => asked["rotated"] = json!(n),
    }
    Some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_that_of_the_goals() {
        let all = grid(&Options::default(), &TOKENS);
        let shapes: Vec<String> = all.iter().map(|(shape, _)| shape.to_string()).collect();
        let goals = ["4096x4096", "4096x14336", "16384x4096", "16384x14336"];
        assert_eq!(shapes, goals);
        assert!(all.iter().all(|(_, dtype)| *dtype == DType::Bf16));
        let given = Options {
            shapes: ["128x256", "2x3x64"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            dtypes: vec![DType::F32],
            ..Options::default()
        };
        assert_eq!(grid(&given, &TOKENS), [(rows(128, 256), DType::F32)]);
    }

    #[test]
    fn peers_are_asked_about_the_larger_batch() {
        let options = Options::default();
        let row = |shape: ShapeOf, variant: &str| Row {
            op: "quant".into(),
            variant: variant.into(),
            shape,
            dtype: "bf16".into(),
            ..Row::default()
        };
        let asked = question(
            &row(rows(16_384, 4096), "fp8-1x128:e4m3 both stochastic"),
            &options,
        );
        let expected = json!({
            "format": "fp8-1x128", "outputs": "both", "dtype": "bf16", "tokens": 16_384, "width": 4096,
            "stochastic": true
        });
        assert_eq!(asked, Some(expected));
        let rotated = question(&row(rows(16_384, 4096), "nvfp4 both rotated 16"), &options);
        assert_eq!(rotated.unwrap()["rotated"], json!(16));
        let variants = ["swiglu forward", "swiglu backward, mxfp8:e4m3 both"];
        let [plain, fused] = variants
            .map(|variant| question(&row(rows(16_384, 14_336), variant), &options).unwrap());
        assert_eq!(
            (&plain["producer"], &plain["format"]),
            (&json!(variants[0]), &Value::Null)
        );
        assert_eq!(fused["producer"], json!("swiglu backward"));
        assert_eq!(fused["format"], json!("mxfp8"));
        let norm = row(rows(16_384, 4096), "rms norm, fp8-row:e4m3 row-wise");
        let asked = question(&norm, &options).unwrap();
        assert_eq!(
            (&asked["producer"], &asked["outputs"]),
            (&json!("rms norm"), &json!("row-wise"))
        );
        let delayed = row(rows(16_384, 4096), "delayed scaling of rows as histories");
        assert_eq!(question(&delayed, &options), None);
        let few = row(rows(4096, 4096), "mxfp4 row-wise");
        assert_eq!(question(&few, &options), None);
        let chosen = Options {
            shapes: vec!["4096x4096".parse().unwrap()],
            ..Options::default()
        };
        assert!(question(&few, &chosen).is_some());
        assert_eq!(
            question(&row(rows(16_384, 4096), "unknown"), &options),
            None
        );
        assert_eq!(question(&Row::default(), &options), None);
    }
}
