//! The program's command line, for the program and for `cargo bench`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{bench, choose, info, verify};

/// CUDA kernels that keep language-model training on an even keel.
#[derive(Parser)]
#[command(name = "evenkeel", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Devices, compiled kernels, what is missing and how to get it
    Info,
    /// Every operation against the reference, with errors in units of the last place
    Verify(Verify),
    /// How fast the operations are, beside the ceilings of the device and other software
    Bench(Bench),
}

#[derive(Args)]
struct Verify {
    /// cpu, emulated or cuda; all that are here without it
    #[arg(long)]
    device: Option<choose::Kind>,
    /// The operation family, loss, norm or quant; all without it
    #[arg(long)]
    op: Option<choose::Op>,
    /// Schedules of the emulator
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Switch each synchronisation of the kernels off in turn; each must be missed
    #[arg(long)]
    mutate: bool,
    /// A quarter of the random problems, and no sizes that take long
    #[arg(long)]
    quick: bool,
}

#[derive(Args)]
struct Bench {
    /// cpu, emulated or cuda; the best that is here without it
    #[arg(long)]
    device: Option<choose::Kind>,
    /// The operation family, loss, norm or quant; all without it
    #[arg(long)]
    op: Option<choose::Op>,
    /// TOKENSxVOCAB or TOKENSxWIDTH, as 8192x128256, or TOKENSxHEADSxHEAD_DIM; may be given again
    #[arg(long)]
    shape: Vec<choose::Shape>,
    /// bf16, f16 or f32; may be given again
    #[arg(long)]
    dtype: Vec<choose::Float>,
    /// Fewer shapes and repetitions
    #[arg(long)]
    quick: bool,
    /// Leave out PyTorch and other software
    #[arg(long)]
    no_peers: bool,
    /// Write the run here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the run here
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// A run to compare with
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much slower than the baseline a row may be, as 5%
    #[arg(long, default_value = "5%", requires = "baseline")]
    max_slowdown: choose::Percent,
}

/// Runs the program with these arguments, the first of which is its name. Wrong ones are told, with
/// the exit status that clap gives them.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come here too. Nothing is left to do where they cannot be written.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let result = match arguments.command {
        Command::Info => info::run(),
        Command::Verify(options) => verify::run(&verify::Options {
            device: options.device.map(|kind| kind.0),
            op: options.op,
            seeds: options.seeds,
            mutate: options.mutate,
            quick: options.quick,
        }),
        Command::Bench(options) => bench::run(&bench::Options {
            device: options.device.map(|kind| kind.0),
            op: options.op,
            shapes: options.shape,
            dtypes: options.dtype.into_iter().map(|float| float.0).collect(),
            quick: options.quick,
            peers: !options.no_peers,
            json: options.json,
            plot: options.plot,
            baseline: options.baseline,
            max_slowdown: options.max_slowdown.0,
        }),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("evenkeel: {message}");
            ExitCode::FAILURE
        }
    }
}
