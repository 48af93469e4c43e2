//! A plain softmax in single precision, merged as kernels merge: what the bounds must hold, and not by
//! far.

use evenkeel::norm::SoftmaxKind;
use evenkeel::{DType, DeviceKind, Status};

use super::problem::Problem;
use super::run::Outcome;
use super::{Case, Values, compare};
use crate::norm::single::{Approximate, output, rounded, vector, worst_of};

/// Elements of a thread that are taken in at once.
const UNIT: usize = 4;

/// Of some scores.
#[derive(Clone, Copy)]
struct Partial {
    max: f32,
    /// Scores equal to the largest.
    count: f32,
    /// The sum of the other exponentials.
    others: f32,
    /// The sum of all exponentials times their distance.
    gap: f32,
}

impl Partial {
    const EMPTY: Self = Self {
        max: f32::NEG_INFINITY,
        count: 0.0,
        others: 0.0,
        gap: 0.0,
    };

    fn of(scores: &[f32], approximate: &mut Approximate) -> Self {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut part = Self { max, ..Self::EMPTY };
        for &z in scores.iter().filter(|z| **z > f32::NEG_INFINITY) {
            if z == max {
                part.count += 1.0;
            } else {
                let e = approximate.exponential(z - max);
                part.others += e;
                part.gap += e * (max - z);
            }
        }
        part
    }

    fn lowered(self, max: f32, approximate: &mut Approximate) -> Self {
        if self.max == max || self.max == f32::NEG_INFINITY {
            return self;
        }
        let factor = approximate.exponential(self.max - max);
        let sum = self.count + self.others;
        Self {
            max,
            count: 0.0,
            others: sum * factor,
            gap: (self.gap + sum * (max - self.max)) * factor,
        }
    }

    fn merged(self, other: Self, approximate: &mut Approximate) -> Self {
        let max = self.max.max(other.max);
        let a = self.lowered(max, approximate);
        let b = other.lowered(max, approximate);
        Self {
            max,
            count: a.count + b.count,
            others: a.others + b.others,
            gap: a.gap + b.gap,
        }
    }
}

/// The scores of each of so many threads.
fn dealt(scores: &[f32], threads: usize) -> Vec<Vec<f32>> {
    let mut of = vec![Vec::new(); threads];
    for (index, unit) in scores.chunks(UNIT).enumerate() {
        of[index % threads].extend_from_slice(unit);
    }
    of
}

/// Halves until one is left.
fn tree<T: Copy>(mut parts: Vec<T>, mut merge: impl FnMut(T, T) -> T) -> T {
    while parts.len() > 1 {
        parts = parts
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => merge(*a, *b),
                _ => pair[0],
            })
            .collect();
    }
    parts[0]
}

fn sum(terms: &[f32], threads: usize) -> f32 {
    let each = dealt(terms, threads);
    tree(
        each.iter().map(|part| part.iter().sum()).collect(),
        |a, b| a + b,
    )
}

struct Row {
    y: Vec<f32>,
    entropy: f32,
    normalizer: f32,
}

fn forward(problem: &Problem, x: &[f64], threads: usize, approximate: &mut Approximate) -> Row {
    let scale = problem.options.scale;
    let z: Vec<f32> = x.iter().map(|&x| x as f32 * scale).collect();
    if problem.options.kind == SoftmaxKind::StableMax {
        let s: Vec<f32> = z
            .iter()
            .map(|&z| match z {
                f32::NEG_INFINITY => 0.0,
                z if z >= 0.0 => z + 1.0,
                z => 1.0 / (1.0 - z),
            })
            .collect();
        let normalizer = sum(&s, threads);
        let y: Vec<f32> = s.iter().map(|s| s / normalizer).collect();
        let terms: Vec<f32> = y
            .iter()
            .map(|&p| if p == 0.0 { 0.0 } else { -p * p.ln() })
            .collect();
        return Row {
            y,
            entropy: sum(&terms, threads),
            normalizer,
        };
    }
    let parts = dealt(&z, threads)
        .iter()
        .map(|scores| {
            scores.chunks(UNIT).fold(Partial::EMPTY, |all, unit| {
                let part = Partial::of(unit, approximate);
                all.merged(part, approximate)
            })
        })
        .collect();
    let all = tree(parts, |a, b| a.merged(b, approximate));
    let total = all.count + all.others;
    let log_sum = ((all.count - 1.0) + all.others).ln_1p();
    let y = z
        .iter()
        .map(|&z| match problem.options.kind {
            SoftmaxKind::LogSoftmax => (z - all.max) - log_sum,
            _ => approximate.exponential(z - all.max) / total,
        })
        .collect();
    Row {
        y,
        entropy: log_sum + all.gap / total,
        normalizer: all.max + log_sum,
    }
}

fn backward(
    problem: &Problem,
    y: &[f64],
    row: usize,
    normalizer: f64,
    threads: usize,
    approximate: &mut Approximate,
) -> Vec<f32> {
    let log = problem.options.kind == SoftmaxKind::LogSoftmax;
    let weight = problem.dentropy.as_ref().map_or(0.0, |values| values[row]) as f32;
    let shares: Vec<(f32, f32)> = y
        .iter()
        .map(|&y| match (log, y as f32) {
            (true, f32::NEG_INFINITY) | (false, 0.0) => (0.0, 0.0),
            (true, y) => (approximate.exponential(y), y),
            (false, y) => (y, y.ln()),
        })
        .collect();
    let masked = |y: f64| y == if log { f64::NEG_INFINITY } else { 0.0 };
    let g = problem.dy.row(row).iter().zip(y);
    let g: Vec<f32> = g
        .map(|(&g, &y)| if masked(y) { 0.0 } else { g as f32 })
        .collect();
    let weighted: Vec<f32> = shares
        .iter()
        .zip(&g)
        .map(|((p, _), g)| if log { *g } else { p * g })
        .collect();
    let terms: Vec<f32> = shares.iter().map(|(p, log_p)| -p * log_p).collect();
    let (mean, entropy) = (sum(&weighted, threads), sum(&terms, threads));
    let sum = normalizer as f32;
    shares
        .iter()
        .zip(&g)
        .map(|(&(p, log_p), g)| {
            let of_entropy = weight * (log_p + entropy);
            let dz = match problem.options.kind {
                SoftmaxKind::LogSoftmax => g - p * mean - p * of_entropy,
                SoftmaxKind::StableMax => {
                    let slope = (p * sum).min(1.0);
                    slope * slope / sum * (g - mean - of_entropy)
                }
                _ => p * (g - mean - of_entropy),
            };
            problem.options.scale * dz
        })
        .collect()
}

fn outcome(problem: &Problem, threads: usize) -> Outcome {
    let mut approximate = Approximate::new(problem.rows() as u64);
    let (mut ys, mut entropies, mut normalizers) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..problem.rows() {
        let done = forward(problem, problem.x.row(row), threads, &mut approximate);
        ys.extend(rounded(problem.y.dtype, &done.y));
        entropies.push(done.entropy);
        normalizers.push(done.normalizer);
    }
    let keys = problem.keys();
    let mut dx = Vec::new();
    for row in 0..problem.rows() {
        let y = &ys[row * keys..(row + 1) * keys];
        let normalizer = normalizers[row].into();
        let done = backward(problem, y, row, normalizer, threads, &mut approximate);
        dx.extend(rounded(problem.dx.dtype, &done));
    }
    Outcome {
        y: output(&problem.y, &ys),
        entropy: vector(&entropies),
        normalizer: vector(&normalizers),
        dx: Some(output(&problem.dx, &dx)),
        status: Status::empty(),
    }
}

/// With the fewest threads and with many.
#[test]
fn plain_single_precision_is_within_the_bounds_and_not_by_far() {
    let mut verdicts = Vec::new();
    for kind in SoftmaxKind::ALL {
        for values in Values::ALL {
            for (keys, threads) in [(40, 1), (64, 1), (700, 16), (4096, 64)] {
                for scale in [1.0, 1.7] {
                    let mut case = Case::new(kind, 3, keys, DType::F32);
                    (case.values, case.options.scale) = (values, scale);
                    case.seed = keys as u64;
                    let problem = case.problem();
                    let outcome = outcome(&problem, threads);
                    verdicts.push(compare(&problem, &outcome, DeviceKind::Emulated));
                }
            }
        }
    }
    let least = [
        ("y", 0.1),
        ("entropy", 0.1),
        ("normalizer", 0.1),
        ("dx", 0.1),
    ];
    worst_of(verdicts.into_iter(), &least);
}
