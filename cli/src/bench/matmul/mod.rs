//! The rows of products and of whole layers.

mod work;

use std::time::Duration;

use evenkeel::{DType, Device, Result};
use serde_json::{Value, json};

use self::work::{Call, Kind, Work};
use super::cpu::repeat;
use super::record::{Product, Row, Run, ShapeOf};
use super::{Largest, Options};
use crate::bench::cuda::Gpu;
use crate::choose::Shape;
use crate::memory::upload;
use crate::random::Random;
use crate::verify::progress;

/// M, N and K of products: DeepSeek-V3's layers, linears of Llama 3 at 8192 tokens, few tokens.
const PRODUCTS: [[usize; 3]; 11] = [
    [4096, 2112, 7168],
    [4096, 4096, 7168],
    [4096, 7168, 2048],
    [4096, 7168, 16384],
    [4096, 24576, 1536],
    [4096, 32768, 512],
    [8192, 4096, 4096],
    [8192, 28672, 4096],
    [8192, 4096, 14336],
    [64, 7168, 4096],
    [1, 7168, 4096],
];

/// Tokens, outputs and inputs of layers.
const LAYERS: [[usize; 3]; 2] = [[8192, 4096, 4096], [16384, 14336, 4096]];

/// What the CPU multiplies.
const ON_CPU: [usize; 3] = [256, 256, 512];

/// Time for one measurement on the CPU.
const PATIENCE: Duration = Duration::from_millis(100);

/// Each work with its sizes; three numbers of `--shape` are M, N and K.
fn grid(options: &Options, products: &[[usize; 3]], layers: &[[usize; 3]]) -> Vec<(Work, Product)> {
    let given = options.shapes.iter().filter_map(|shape| match *shape {
        Shape::Heads {
            tokens,
            heads,
            head_dim,
        } => Some([tokens, heads, head_dim]),
        Shape::Rows { .. } => None,
    });
    let given: Vec<[usize; 3]> = given.collect();
    let sizes = |otherwise: &[[usize; 3]]| match options.shapes.is_empty() {
        true => otherwise.to_vec(),
        false => given.clone(),
    };
    let all = [
        (&Work::PRODUCTS[..], sizes(products)),
        (&Work::LAYERS[..], sizes(layers)),
    ];
    all.iter()
        .flat_map(|(works, sizes)| {
            works.iter().flat_map(move |work| {
                let of = |[m, n, k]: [usize; 3]| (*work, Product { m, n, k });
                sizes.iter().copied().map(of)
            })
        })
        .collect()
}

/// A small size: the CPU computes in f64.
///
/// # Errors
/// The library's.
pub fn on_cpu(options: &Options, run: &mut Run) -> Result<()> {
    if options.shapes.is_empty() {
        run.notes.push(format!(
            "matmul: products of {ON_CPU:?} alone; --shape takes others, as MxNxK"
        ));
    }
    let stream = Device::cpu().stream()?;
    let grid = grid(options, &[ON_CPU], &[ON_CPU]);
    let bar = progress(grid.len() as u64);
    for (work, shape) in grid {
        bar.set_message(work.name);
        let mut random = Random::new(5);
        let mut call = Call::new(&stream, work, shape, |size| {
            let count = size.iter().product();
            let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
            upload(&stream, DType::Bf16, size, &values)
        })?;
        let us = repeat(PATIENCE, || call.run())?;
        run.rows.push(work.row(shape, us));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Nothing: rates of tensor cores do not follow from bytes.
pub fn on_emulator(run: &mut Run) {
    run.notes.push(
        "matmul: nothing is predicted of products, whose time does not follow from bytes".into(),
    );
}

/// Each size that fits.
///
/// # Errors
/// The library's and the driver's.
pub fn on_cuda(gpu: &Gpu, options: &Options, run: &mut Run, largest: &mut Largest) -> Result<()> {
    let products = if options.quick {
        &PRODUCTS[..4]
    } else {
        &PRODUCTS[..]
    };
    let layers = if options.quick { &LAYERS[..1] } else { &LAYERS };
    let grid = grid(options, products, layers);
    let most = grid
        .iter()
        .map(|(_, shape)| shape.m.max(8 * shape.n) * shape.k);
    let pool = gpu.pool(DType::Bf16, most.max().unwrap_or(1), 1.0)?;
    let bar = progress(grid.len() as u64);
    for (work, shape) in grid {
        let what = format!("matmul {} {}", work.name, ShapeOf::Product(shape));
        bar.set_message(what.clone());
        bar.inc(1);
        let us = measure(gpu, work, shape, &pool);
        if let Some(us) = run.unless_too_large(&what, us)? {
            run.rows.push(work.row(shape, us));
        }
    }
    bar.finish_and_clear();
    let bytes = 1 << 28;
    if let Some(ceilings) = run.unless_too_large("matmul: a copy", gpu.ceilings(bytes))? {
        largest.keep(run, bytes, ceilings);
    }
    Ok(())
}

fn measure(gpu: &Gpu, work: Work, shape: Product, pool: &evenkeel::Buffer) -> Result<Vec<f64>> {
    // Tensors begin at different places of the pool, so that no two of a call are the same.
    let mut begin = 0;
    let mut call = Call::new(gpu.stream(), work, shape, |size| {
        begin += 1_000_003;
        gpu.fill(pool, size, begin)
    })?;
    let us = gpu.time(|| Ok(()), || call.run())?;
    gpu.stream().check()?;
    Ok(us)
}

/// What the peers' script is asked about a row.
pub fn question(row: &Row) -> Option<Value> {
    let ShapeOf::Product(Product { m, n, k }) = row.shape else {
        return None;
    };
    let work = Work::named(&row.variant)?;
    let asked = match work.kind {
        Kind::Layer(_) => json!({"layer": true, "m": m, "n": n, "k": k}),
        // Others group otherwise.
        Kind::Product { grouped: true, .. } => return None,
        Kind::Product { .. } => json!({"variant": work.name, "m": m, "n": n, "k": k}),
    };
    Some(asked)
}
