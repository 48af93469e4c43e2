//! The table of errors of products: each pair of operands with each of what follows the sums.

use evenkeel::matmul::{Activation, Matmul, OperandFormat};
use evenkeel::quant::GeluKind;
use evenkeel::{DType, DeviceKind, Error};

use super::{progress, shown};
use crate::compare::{Checked, Verdict};
use crate::matmul::{Addend, Case, Grouping};
use crate::subject::Subject;
use crate::suite::matmul_pairs;

/// What a case has beside its operands, and what that is called.
type Variant = (&'static str, fn(&mut Case));

const VARIANTS: [Variant; 6] = [
    ("", |_| {}),
    (" + bias, beta C", |case| {
        case.bias = Some(DType::F32);
        (case.c, case.beta) = (Addend::Output, 1.0);
    }),
    (", gelu", |case| {
        case.activation = Activation::Gelu(GeluKind::Exact);
        (case.alpha, case.pre) = (Some(1e-3), Some(DType::Bf16));
    }),
    (", swiglu", |case| {
        case.activation = Activation::SwiGlu;
        (case.alpha, case.pre) = (Some(1e-3), Some(DType::Bf16));
    }),
    (", groups of rows", |case| {
        case.grouping = Grouping::Rows(vec![0, 7, 7, case.shape[0] as i64]);
    }),
    (", groups of K", |case| {
        case.grouping = Grouping::Contraction(vec![0, 100, 100, case.shape[2] as i64]);
    }),
];

/// Prints the table; true when every line is right.
pub(super) fn run(subject: &Subject) -> bool {
    println!(
        "\n  Errors in units of the last place of each result's type, where they come nearest to their bound.\n"
    );
    println!(
        "  {:<56} {:<5} {:>24} {:>20} {:>20}",
        "operation", "type", "out", "pre", "amax"
    );
    let pairs = matmul_pairs();
    let bar = progress(pairs.len() as u64);
    let mut right = true;
    for (index, pair) in pairs.into_iter().enumerate() {
        bar.set_message(format!("{} x {}", pair[0], pair[1]));
        if let Some(reason) = missing(subject, pair) {
            bar.suspend(|| println!("  {} x {}: {reason}", pair[0], pair[1]));
            bar.inc(1);
            continue;
        }
        for (at, (label, set)) in VARIANTS.into_iter().enumerate() {
            let dtype = [DType::F32, DType::Bf16, DType::F16][(index + at) % 3];
            let mut total = Verdict::default();
            let mut errors = Vec::new();
            for (number, shape) in [[64, 96, 512], [37, 70, 333]].into_iter().enumerate() {
                let mut case = Case::new(shape, pair[0], pair[1], dtype);
                case.seed = (30_000 + 100 * index + 10 * at + number) as u64;
                case.amax = true;
                case.layouts[0].gap = 3 * number;
                set(&mut case);
                let problem = case.problem();
                let device = subject.device(index + number);
                match device.and_then(|device| problem.check(device)) {
                    Ok(verdict) => total.merge(verdict),
                    Err(error) => errors.push(error.to_string()),
                }
            }
            let name = format!("{} x {}{label}", pair[0], pair[1]);
            let [out, pre, amax] = ["out", "pre", "amax"].map(|name| shown(total.worst.get(name)));
            bar.suspend(|| {
                println!(
                    "  {name:<56} {:<5} {out:>24} {pre:>20} {amax:>20}",
                    dtype.name()
                );
                for wrong in total.mismatches.iter().chain(&errors) {
                    println!("    WRONG: {wrong}");
                }
            });
            right &= total.is_right() && errors.is_empty();
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    right
}

/// Why the devices do not have a product, if they have not.
fn missing(subject: &Subject, [a, b]: [OperandFormat; 2]) -> Option<String> {
    if subject.kind() == DeviceKind::Cpu {
        return None;
    }
    let stream = subject.device(0).and_then(evenkeel::Device::stream);
    match stream.and_then(|stream| Matmul::new(a, b).prepare(&stream)) {
        Err(Error::Unsupported { remedy, .. }) => Some(remedy),
        _ => None,
    }
}
