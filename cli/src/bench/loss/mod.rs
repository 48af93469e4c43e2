//! The losses' rows.

mod cpu;
mod cuda;
mod emulated;
mod work;

use evenkeel::{DType, Device, Result};
use serde_json::{Value, json};

use super::record::{Logits, Row, Run, ShapeOf};
use super::{Largest, Options, pick};
use crate::bench::cuda::Gpu;
use crate::choose::Shape;
use crate::loss::cases::{TOKENS, VOCABULARIES};
use crate::verify::progress;

/// Shapes with so many tokens, or those given.
fn shapes(
    options: &Options,
    vocabularies: &[usize],
    tokens: impl Fn(usize) -> usize,
) -> Vec<Logits> {
    if options.shapes.is_empty() {
        let real = |&vocab: &usize| Logits {
            tokens: tokens(vocab),
            vocab,
        };
        return vocabularies.iter().map(real).collect();
    }
    let given = |shape: &Shape| match *shape {
        Shape::Rows { tokens, width } => Some(Logits {
            tokens,
            vocab: width,
        }),
        Shape::Heads { .. } => None,
    };
    options.shapes.iter().filter_map(given).collect()
}

/// About two million logits a shape: a minute in all on two cores.
///
/// # Errors
/// The library's.
pub fn on_cpu(options: &Options, run: &mut Run, largest: &mut Largest) -> Result<()> {
    const LOGITS: usize = 1 << 21;
    let vocabularies = if options.quick {
        &VOCABULARIES[..2]
    } else {
        &VOCABULARIES[..]
    };
    let shapes = shapes(options, vocabularies, |vocab| (LOGITS / vocab).max(1));
    if options.shapes.is_empty() {
        run.notes.push(format!(
            "loss: tokens reduced to about {LOGITS} logits a shape (training has {} to {}); --shape takes others",
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
            largest.keep(run, shape.tokens * shape.vocab * dtype.size(), ceilings);
            run.rows.extend(rows);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Two rows of each vocabulary.
///
/// # Errors
/// The library's.
pub fn on_emulator(device: &Device, options: &Options, run: &mut Run) -> Result<()> {
    let vocabularies = if options.quick {
        &VOCABULARIES[..2]
    } else {
        &VOCABULARIES[..]
    };
    let shapes = shapes(options, vocabularies, |_| TOKENS[1]);
    run.notes.push(format!(
        "loss: the bytes are of {} rows, scaled to the batch",
        emulated::TOKENS
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

/// Each shape that fits.
///
/// # Errors
/// The library's and the driver's.
pub fn on_cuda(gpu: &Gpu, options: &Options, run: &mut Run, largest: &mut Largest) -> Result<()> {
    let grid = cuda_grid(options);
    let bar = progress(grid.len() as u64);
    for (shape, dtype, family) in grid {
        bar.set_message(format!("{}x{} {dtype}", shape.tokens, shape.vocab));
        let bytes = shape.tokens * shape.vocab * dtype.size();
        let measured = gpu.ceilings(bytes).and_then(|ceilings| {
            let works = work::works(family);
            let rows = cuda::measure(gpu, &works, shape, dtype, &ceilings)?;
            Ok((rows, ceilings))
        });
        let what = format!("loss {}x{} {dtype}", shape.tokens, shape.vocab);
        if let Some((rows, ceilings)) = run.unless_too_large(&what, measured)? {
            largest.keep(run, bytes, ceilings);
            run.rows.extend(rows);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// What the peers' script is asked about a row: cross entropy of its size, type and direction; every
/// mode of ours is compared with it.
pub fn question(row: &Row) -> Option<Value> {
    let ShapeOf::Logits(Logits { tokens, vocab }) = row.shape else {
        return None;
    };
    if row.op != "loss" || !row.variant.starts_with("nll ") {
        return None;
    }
    let backward = !row.variant.contains(" forward") || row.variant.contains("backward");
    Some(json!({"tokens": tokens, "vocab": vocab, "dtype": row.dtype, "backward": backward}))
}

/// Every real shape in bf16; in f32 and for the whole family, the shape of the goals.
fn cuda_grid(options: &Options) -> Vec<(Logits, DType, bool)> {
    let goal = Logits {
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
            .map(|(tokens, vocab)| (Logits { tokens, vocab }, DType::Bf16, false))
            .to_vec();
    }
    let mut grid = Vec::new();
    for tokens in TOKENS {
        for vocab in VOCABULARIES {
            let shape = Logits { tokens, vocab };
            grid.push((shape, DType::Bf16, shape == goal));
            if tokens == goal.tokens {
                grid.push((shape, DType::F32, false));
            }
        }
    }
    // Few columns and many rows.
    grid.push((
        Logits {
            tokens: 32_000,
            vocab: 1024,
        },
        DType::Bf16,
        false,
    ));
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_of_the_command_line_or_the_real_ones() {
        let mut options = Options::default();
        assert_eq!(shapes(&options, &VOCABULARIES, |_| 8).len(), 5);
        options.shapes = ["2x3", "2x3x4"].map(|text| text.parse().unwrap()).to_vec();
        let given = Logits {
            tokens: 2,
            vocab: 3,
        };
        assert_eq!(shapes(&options, &VOCABULARIES, |_| 8), [given]);
    }

    #[test]
    fn cross_entropy_has_peers() {
        let row = |variant: &str| Row {
            op: "loss".into(),
            variant: variant.into(),
            ..Row::default()
        };
        for (variant, backward) in [
            ("nll forward", Some(false)),
            ("nll forward_backward", Some(true)),
            ("nll in place", Some(true)),
            ("dft in place", None),
        ] {
            let asked = question(&row(variant));
            assert_eq!(
                asked.and_then(|asked| asked["backward"].as_bool()),
                backward,
                "{variant}"
            );
        }
    }
}
