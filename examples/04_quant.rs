//! What each low-bit format makes of a heavy-tailed matrix:
//!
//!     cargo run --release --example 04_quant -- [FORMAT ..] [OPTIONS]
//!
//! The numbers are Student's t with 3 degrees of freedom: most are small, a few are far out, as
//! activations and gradients are. Each format quantises the matrix on the best device there is, and
//! back. What to look for in the table:
//!
//! - error: finer blocks come closer. FP8 does well with one scale for the tensor, because its elements
//!   have exponents of their own; 4 bits need their small blocks;
//! - rotated: a Hadamard rotation spreads what is far out over its block. It helps where a block of 4
//!   bits is large (mxfp4, nvfp4-16x16), less or not at all elsewhere;
//! - bias: what rounding added to magnitudes, of all magnitudes. Below 0 numbers shrink on average:
//!   what is far out saturates, what is small becomes 0. With `--rounding stochastic:1` the error
//!   grows, and all of the bias goes but what saturation does: sums over many gradients need that.

use std::process::ExitCode;

use evenkeel::quant::{
    Dequantize, Format, Hadamard, OutputArguments, OutputOptions, Quantize, QuantizeArguments,
    QuantizeOptions, Rounding,
};
use evenkeel::{Buffer, DType, Device, Error, Result, Stream};

const USAGE: &str = "\
cargo run --release --example 04_quant -- [FORMAT ..] [OPTIONS]

  FORMAT                 such as fp8-1x128:e4m3, mxfp4 or nvfp4 (default: all)
  --rows N               of the matrix (default 512)
  --columns N            of the matrix (default 1024)
  --rounding R           nearest or stochastic:SEED (default nearest)
  --hadamard N           elements of a rotation's block: 16, 32 or 128 (default 16)
";

struct Arguments {
    formats: Vec<Format>,
    rows: usize,
    columns: usize,
    rounding: Rounding,
    rotation: Hadamard,
}

fn main() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when help was asked for.
fn parse(
    mut words: impl Iterator<Item = String>,
) -> std::result::Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        formats: Vec::new(),
        rows: 512,
        columns: 1024,
        rounding: Rounding::Nearest,
        rotation: Hadamard::new(16, 1),
    };
    let library = |error: Error| error.to_string();
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        if !word.starts_with('-') {
            arguments.formats.push(word.parse().map_err(library)?);
            continue;
        }
        if !["--rows", "--columns", "--rounding", "--hadamard"].contains(&word.as_str()) {
            return Err(format!("there is no option `{word}`"));
        }
        let value = words.next();
        let value = value.ok_or_else(|| format!("{word} needs a value"))?;
        let count = || {
            let count = value.parse().ok();
            let count = count.filter(|count| (1..=16384).contains(count));
            count.ok_or_else(|| format!("{word} should be from 1 to 16384, but is `{value}`"))
        };
        match word.as_str() {
            "--rows" => arguments.rows = count()?,
            "--columns" => arguments.columns = count()?,
            "--rounding" => arguments.rounding = value.parse().map_err(library)?,
            _ => {
                arguments.rotation.n = count()?;
                arguments.rotation.validate().map_err(library)?;
            }
        }
    }
    let (columns, n) = (arguments.columns, arguments.rotation.n);
    if !columns.is_multiple_of(n) {
        return Err(format!(
            "--columns should be a multiple of the rotation's {n}, but is {columns}"
        ));
    }
    if arguments.formats.is_empty() {
        arguments.formats = Format::ALL.to_vec();
    }
    Ok(Some(arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let device = Device::best()?; // a GPU where one answers, else the CPU
    let stream = device.stream()?;
    let (rows, columns) = (arguments.rows, arguments.columns);
    println!("{device}: {}", device.name());
    println!(
        "[{rows}, {columns}] of Student's t with 3 degrees of freedom, {}\n",
        arguments.rounding
    );
    println!("format            bits    error  rotated      bias  saturated  underflowed");

    let values = heavy_tailed(rows * columns);
    let x = stream.upload(&[rows, columns], &values)?;
    let plain = OutputOptions::new();
    let rotated = plain.rotation(arguments.rotation);
    for &format in &arguments.formats {
        let options = QuantizeOptions::new(format).rounding(arguments.rounding);
        let of_plain = measure(&stream, &x, &values, Quantize::new(options).rowwise(plain))?;
        let of_rotated = measure(
            &stream,
            &x,
            &values,
            Quantize::new(options).rowwise(rotated),
        )?;
        let share = |count: u32| 100.0 * f64::from(count) / values.len() as f64;
        println!(
            "{format:<16} {:5.2} {:7.3}% {:7.3}% {:+8.4}% {:9.4}% {:11.4}%",
            of_plain.bits,
            100.0 * of_plain.error,
            100.0 * of_rotated.error,
            100.0 * of_plain.bias,
            share(of_plain.saturated),
            share(of_plain.underflowed),
        );
    }
    println!("\nerror: the root of the mean squared error, to that of the matrix");
    stream.check() // the device found nothing wrong with the data
}

/// What a format did to the matrix.
struct Outcome {
    /// Of memory, for each element, scales included.
    bits: f64,
    error: f64,
    bias: f64,
    saturated: u32,
    underflowed: u32,
}

fn measure(stream: &Stream, x: &Buffer, values: &[f32], quantize: Quantize) -> Result<Outcome> {
    let op = quantize.prepare(stream)?;
    let mut counts = stream.zeros(DType::U32, &[2])?;
    let report = OutputArguments::default().counts(counts.view_mut());
    let q = op.quantize(x.view(), QuantizeArguments::default().rowwise(report))?;
    let back = Dequantize::new().prepare(stream)?;
    let back = back.dequantize(q.rowwise()?, DType::F32)?.read::<f32>()?;

    let (mut squares, mut errors, mut magnitudes, mut grown) = (0.0, 0.0, 0.0, 0.0);
    for (&value, &back) in values.iter().zip(&back) {
        let (value, back) = (f64::from(value), f64::from(back));
        squares += value * value;
        errors += (back - value) * (back - value);
        magnitudes += value.abs();
        grown += (back - value) * value.signum();
    }
    let counts = counts.read::<u32>()?;
    Ok(Outcome {
        bits: 8.0 * q.bytes() as f64 / values.len() as f64,
        error: (errors / squares).sqrt(),
        bias: grown / magnitudes,
        saturated: counts[0],
        underflowed: counts[1],
    })
}

/// A normal number over the length of three others.
fn heavy_tailed(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    // Box and Muller: one of the pair will do.
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let mut draw = || {
        let [of, a, b, c] = [normal(), normal(), normal(), normal()];
        of / ((a * a + b * b + c * c) / 3.0).sqrt()
    };
    (0..count).map(|_| draw() as f32).collect()
}
