//! The rows of normalizations and softmax.

mod call;
mod cpu;
mod cuda;
mod emulated;
mod unfused;
mod work;

use evenkeel::{DType, Device, Result};
use serde_json::{Value, json};

use self::work::{F32_WIDTH, HEADS, TOKENS, WIDTHS, Work, rows};
use super::record::{Heads, Row, Rows, Run, ShapeOf};
use super::{Largest, Options, pick};
use crate::bench::cuda::Gpu;
use crate::choose::Shape;
use crate::verify::progress;

/// Elements of a tensor on the CPU.
const CPU_ELEMENTS: usize = 1 << 20;

/// Those given, or none.
fn given(options: &Options) -> Vec<ShapeOf> {
    let shape = |shape: &Shape| match *shape {
        Shape::Rows { tokens, width } => rows(tokens, width),
        Shape::Heads {
            tokens,
            heads,
            head_dim,
        } => ShapeOf::Heads(Heads {
            tokens,
            heads,
            head_dim,
        }),
    };
    options.shapes.iter().map(shape).collect()
}

/// The sizes and types to measure, with so many tokens each.
fn grid(options: &Options, tokens: &[usize]) -> Vec<(ShapeOf, DType)> {
    let mut shapes = given(options);
    let real = shapes.is_empty();
    if real {
        let quick = [WIDTHS[0], F32_WIDTH, WIDTHS[5]];
        let widths = if options.quick {
            &quick[..]
        } else {
            &WIDTHS[..]
        };
        for &tokens in tokens {
            shapes.extend(widths.iter().map(|&width| rows(tokens, width)));
        }
        let skipped = usize::from(options.quick);
        shapes.extend(HEADS.into_iter().skip(skipped).map(ShapeOf::Heads));
    }
    let also_f32 = real && options.dtypes.is_empty() && !options.quick;
    let mut grid = Vec::new();
    for shape in shapes {
        for dtype in pick(&options.dtypes, &[DType::Bf16]) {
            grid.push((shape, dtype));
        }
        if also_f32 && matches!(shape, ShapeOf::Rows(Rows { width, .. }) if width == F32_WIDTH) {
            grid.push((shape, DType::F32));
        }
    }
    grid
}

/// About a million elements a tensor: half a minute in all on two cores.
///
/// # Errors
/// The library's.
pub fn on_cpu(options: &Options, run: &mut Run, largest: &mut Largest) -> Result<()> {
    let mut grid = grid(options, &TOKENS[..1]);
    if options.shapes.is_empty() {
        for (shape, _) in &mut grid {
            let a_token = shape.elements() / shape.tokens();
            *shape = shape.of_tokens((CPU_ELEMENTS / a_token).max(1));
        }
        run.notes.push(format!(
            "norm: tokens reduced to about {CPU_ELEMENTS} elements a tensor (training has {} to {}); --shape \
             takes others",
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

/// A few rows of each size.
///
/// # Errors
/// The library's.
pub fn on_emulator(device: &Device, options: &Options, run: &mut Run) -> Result<()> {
    run.notes.push(
        "norm: the bytes are of a few rows, scaled to the batch, with each weight and its gradient once: \
         weights read again and partial sums are not among them, the statistics of a row are once for each \
         thread that reads them, and heads with a rotary embedding are left out"
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

/// Each row that fits.
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
        let what = format!("norm {shape} {dtype}");
        let ceilings = gpu.ceilings(bytes);
        let Some(ceilings) = run.unless_too_large(&what, ceilings)? else {
            continue;
        };
        let pool = gpu.pool(dtype, shape.elements(), 1.0)?;
        for work in Work::of(shape) {
            let what = format!("norm {} {shape} {dtype}", work.name());
            let row = cuda::measure(gpu, *work, shape, dtype, &ceilings, &pool);
            let row = run.unless_too_large(&what, row)?;
            run.rows.extend(row);
        }
        largest.keep(run, bytes, ceilings);
    }
    bar.finish_and_clear();
    if options.peers && options.shapes.is_empty() {
        run.notes.push(format!(
            "norm: other software is measured at {} tokens and for heads (compiling takes it minutes)",
            TOKENS[1]
        ));
    }
    Ok(())
}

/// What the peers' script is asked about a row.
pub fn question(row: &Row, options: &Options) -> Option<Value> {
    if row.op != "norm" {
        return None;
    }
    let work = Work::of(row.shape)
        .iter()
        .find(|work| work.name() == row.variant)?;
    let mut asked = json!({
        "operation": work.operation.name(),
        "pass": work.pass.name(),
        "dtype": row.dtype,
        "tokens": row.shape.tokens(),
    });
    match row.shape {
        ShapeOf::Rows(Rows { tokens, .. }) if options.shapes.is_empty() && tokens != TOKENS[1] => {
            return None;
        }
        ShapeOf::Heads(Heads {
            heads, head_dim, ..
        }) => {
            asked["heads"] = json!(heads);
            asked["width"] = json!(head_dim);
        }
        _ => asked["width"] = json!(row.shape.columns()),
    }
    Some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_that_of_the_goals() {
        let options = Options::default();
        let all = grid(&options, &TOKENS);
        // Seven widths and one of them in f32, for two counts of tokens; two lengths of heads.
        assert_eq!(all.len(), 2 * 8 + 2);
        let count: usize = all.iter().map(|(shape, _)| Work::of(*shape).len()).sum();
        assert_eq!(count, 2 * 8 * 7 + 2 * 4);
        let given = Options {
            shapes: ["4096x8192", "2x3x64"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            dtypes: vec![DType::F16],
            ..Options::default()
        };
        let shapes: Vec<String> = grid(&given, &TOKENS)
            .iter()
            .map(|(shape, dtype)| format!("{shape} {dtype}"))
            .collect();
        assert_eq!(shapes, ["4096x8192 f16", "2x3x64 f16"]);
    }

    #[test]
    fn peers_are_asked_about_the_larger_batch() {
        let options = Options::default();
        let row = |shape: ShapeOf, variant: &str| Row {
            op: "norm".into(),
            variant: variant.into(),
            shape,
            dtype: "bf16".into(),
            ..Row::default()
        };
        let asked = question(&row(rows(16_384, 8192), "rms backward"), &options);
        assert_eq!(
            asked,
            Some(json!({
                "operation": "rms", "pass": "backward", "dtype": "bf16", "tokens": 16_384, "width": 8192
            }))
        );
        let heads = row(ShapeOf::Heads(HEADS[1]), "qk-norm rotary forward");
        let asked = question(&heads, &options);
        assert_eq!(
            asked,
            Some(json!({
                "operation": "qk-norm rotary", "pass": "forward", "dtype": "bf16", "tokens": 8192,
                "heads": 32, "width": 128
            }))
        );
        let few = row(rows(4096, 8192), "rms backward");
        assert_eq!(question(&few, &options), None);
        let chosen = Options {
            shapes: vec!["4096x8192".parse().unwrap()],
            ..Options::default()
        };
        assert!(question(&few, &chosen).is_some());
        assert_eq!(question(&Row::default(), &options), None);
    }
}
