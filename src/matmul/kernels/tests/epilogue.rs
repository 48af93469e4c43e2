//! What becomes of the sums.

use super::*;
use crate::matmul::{Activation, Addend, MatmulArguments, MatmulOutputs};
use crate::quant::GeluKind;

/// What an epilogue is given.
#[derive(Clone, Copy, Debug)]
struct Given {
    alpha: bool,
    bias: Option<DType>,
    c: Option<DType>,
    in_place: bool,
    pre: Option<DType>,
    amax: bool,
    activation: Activation,
    dtype: DType,
}

const NOTHING: Given = Given {
    alpha: false,
    bias: None,
    c: None,
    in_place: false,
    pre: None,
    amax: true,
    activation: Activation::None,
    dtype: DType::F32,
};

const ALPHA: f32 = 0.25;
const BETA: f32 = -1.5;
const SCALE: f32 = 0.37;

fn erf_gelu(x: f64) -> f64 {
    // The integral of the density by Simpson's rule.
    let steps = 2000;
    let h = x.abs().min(12.0) / f64::from(steps);
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let weights = (0..=steps).map(|i| match i {
        0 => 1.0,
        i if i == steps => 1.0,
        i => 2.0 + 2.0 * f64::from(i % 2),
    });
    let sum: f64 = weights
        .zip(0..=steps)
        .map(|(w, i)| w * density(h * f64::from(i)))
        .sum();
    let half = sum * h / 3.0;
    x * (0.5 + half.copysign(x))
}

fn activate(activation: Activation, v: &[f64]) -> Vec<f64> {
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let tanh = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        0.5 * x * (1.0 + inner.tanh())
    };
    match activation {
        Activation::None => v.to_vec(),
        Activation::Gelu(GeluKind::Exact) => v.iter().map(|x| erf_gelu(*x)).collect(),
        Activation::Gelu(_) => v.iter().map(|x| tanh(*x)).collect(),
        Activation::SwiGlu => v.chunks(2).map(|pair| silu(pair[0]) * pair[1]).collect(),
    }
}

/// Half a unit of the last place of `dtype` at `x`, relative, and what f32 and its exponentials add.
fn tolerance(dtype: DType, x: f64) -> f64 {
    let half_unit = match dtype {
        DType::Bf16 => 2.0_f64.powi(-8),
        DType::F16 => 2.0_f64.powi(-11),
        DType::E4m3 => 2.0_f64.powi(-4),
        DType::E5m2 => 2.0_f64.powi(-3),
        _ => 0.0,
    };
    let smallest = match dtype {
        DType::E4m3 => 2.0_f64.powi(-10) * f64::from(SCALE),
        DType::E5m2 => 2.0_f64.powi(-17) * f64::from(SCALE),
        DType::F16 => 2.0_f64.powi(-25),
        _ => 0.0,
    };
    // The last term is the integral's above. x sigma(x): (5 + |x| log2 e) 2^-23 for |x| up to 90, where anything is left of it.
    x.abs() * (half_unit + 140.0 * 2.0_f64.powi(-23)) + smallest + 1e-12
}

#[track_caller]
fn check(stream: &Stream, case: &Case, given: Given) {
    let [_, n, _] = case.shape;
    let rows = case.output_rows();
    let mut random = Random(case.random + 77);
    let [a, b] = [0, 1].map(|index| case.operand(stream, index));
    let case = &Case {
        activation: given.activation,
        ..case.clone()
    };
    let columns = given.activation.output_columns(n);
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.integer(6)).collect() };
    let bias_rows = match case.grouped {
        Grouped::Rows(_) => case.groups(),
        _ => 1,
    };
    let bias_values = values(bias_rows * n);
    let c_values = values(rows * n);
    let upload = |dtype: DType, values: &[f32], columns| {
        Matrix::upload(stream, dtype, values, columns, case.places[0])
    };
    let bias = given.bias.map(|dtype| {
        let bias = Matrix::upload(stream, dtype, &bias_values, bias_rows * n, [0, 0]);
        bias.buffer
    });
    let c = given.c.map(|dtype| upload(dtype, &c_values, n));
    let mut pre = given
        .pre
        .map(|dtype| upload(dtype, &vec![9.0; rows * n], n));
    let before = match given.in_place {
        true => c_values.clone(),
        false => vec![9.0; rows * columns],
    };
    let mut out = Matrix::upload(stream, given.dtype, &before, columns, case.places[2]);
    let alpha = stream.upload(&[1], &[ALPHA]).unwrap();
    let scale = stream.upload(&[1], &[SCALE]).unwrap();
    let mut amax = stream.upload(&[1], &[0.125_f32]).unwrap();
    let fp8 = matches!(given.dtype, DType::E4m3 | DType::E5m2);
    {
        let arguments = MatmulArguments {
            alpha: given.alpha.then(|| alpha.view()),
            bias: bias.as_ref().map(Buffer::view),
            c: match (&c, given.in_place) {
                (_, true) => Some(Addend::Output),
                (Some(c), _) => Some(Addend::View(c.view())),
                _ => None,
            },
            beta: BETA,
            output_scale: fp8.then(|| scale.view()),
            ..MatmulArguments::default()
        };
        let mut outputs = MatmulOutputs::new(out.view_mut());
        outputs.pre_activation = pre.as_mut().map(Matrix::view_mut);
        if given.amax {
            outputs.amax = Some(amax.view_mut());
        }
        if let Err(error) = case.run(stream, [&a, &b], arguments, outputs) {
            panic!("{case:?} {given:?}: {error}");
        }
    }
    stream.check().unwrap();
    let got = out.read();
    let got_pre = pre.map(|pre| pre.read());
    let sums = case.sums(&a, &b);
    let mut most = 0.125_f64;
    for row in 0..rows {
        let sums = &sums[row * n..][..n];
        let group = case
            .grouped
            .offsets()
            .windows(2)
            .position(|pair| (pair[0]..pair[1]).contains(&(row as i64)))
            .unwrap_or(0);
        let mut v = Vec::new();
        for (column, sum) in sums.iter().enumerate() {
            let Some(sum) = sum else { continue };
            let mut value = sum * f64::from(if given.alpha { ALPHA } else { 1.0 });
            if given.bias.is_some() {
                let group = if bias_rows > 1 { group } else { 0 };
                value += f64::from(bias_values[group * n + column]);
            }
            if given.c.is_some() || given.in_place {
                value += f64::from(BETA) * f64::from(c_values[row * n + column]);
            }
            v.push(value);
        }
        if v.is_empty() {
            continue;
        }
        if let (Some(got), Some(dtype)) = (&got_pre, given.pre) {
            for (column, value) in v.iter().enumerate() {
                let got = f64::from(got[row * n + column]);
                let bound = tolerance(dtype, *value);
                assert!(
                    (got - value).abs() <= bound,
                    "{case:?} {given:?}: pre [{row}, {column}] is {got}, not {value}"
                );
            }
        }
        let largest = match given.dtype {
            DType::E4m3 => 448.0,
            DType::E5m2 => 57344.0,
            _ => f64::INFINITY,
        };
        for (column, y) in activate(given.activation, &v).into_iter().enumerate() {
            most = most.max(y.abs());
            let mut stored = f64::from(got[row * columns + column]);
            let mut expected = y;
            if fp8 {
                stored *= f64::from(SCALE);
                expected = y.clamp(-largest * f64::from(SCALE), largest * f64::from(SCALE));
            }
            let bound = tolerance(given.dtype, y);
            let infinite = given.dtype == DType::F16 && y.abs() > 65_000.0 && stored.is_infinite();
            assert!(
                infinite || (stored - expected).abs() <= bound,
                "{case:?} {given:?}: [{row}, {column}] is {stored}, not {expected}"
            );
        }
    }
    let amax = f64::from(amax.read::<f32>().unwrap()[0]);
    let most = if given.amax { most } else { 0.125 };
    assert!(
        (amax - most).abs() <= tolerance(DType::F32, most),
        "{case:?} {given:?}: amax {amax}, not {most}"
    );
}

/// Every part of an epilogue alone, and all together.
fn all() -> Vec<Given> {
    use DType::{Bf16, E4m3, E5m2, F16, F32};
    let mut all = vec![
        NOTHING,
        Given {
            amax: false,
            ..NOTHING
        },
        Given {
            alpha: true,
            ..NOTHING
        },
    ];
    for dtype in [Bf16, F16, F32] {
        all.push(Given {
            bias: Some(dtype),
            dtype: F32,
            ..NOTHING
        });
        all.push(Given {
            c: Some(dtype),
            dtype,
            ..NOTHING
        });
        all.push(Given {
            in_place: true,
            dtype,
            ..NOTHING
        });
        all.push(Given {
            pre: Some(dtype),
            dtype: Bf16,
            ..NOTHING
        });
    }
    let activations = [
        Activation::None,
        Activation::Gelu(GeluKind::Exact),
        Activation::Gelu(GeluKind::Tanh),
        Activation::SwiGlu,
    ];
    for activation in activations {
        for dtype in [Bf16, F16, F32, E4m3, E5m2] {
            all.push(Given {
                alpha: true,
                bias: Some(Bf16),
                c: Some(F32),
                pre: Some(F16),
                activation,
                dtype,
                ..NOTHING
            });
        }
    }
    all
}

#[test]
fn every_part_of_an_epilogue() {
    let stream = emulated(Architecture::sm_100(), 21);
    for (index, given) in all().into_iter().enumerate() {
        for n in [128, 18, 30] {
            let mut case = Case::new([BF16; 2], [20, n, 33]);
            case.random = index as u64;
            check(&stream, &case, given);
            // Rows on no boundary.
            case.places = [[3, 5], [0, 0], [1, 3]];
            check(&stream, &case, given);
        }
    }
}

#[test]
fn after_a_split_contraction() {
    let stream = emulated(Architecture::sm_100(), 22);
    for (index, given) in all().into_iter().enumerate() {
        let mut case = Case::new([Format::Fp8Row(E4); 2].map(quantized), [7, 22, 2600]);
        case.random = index as u64;
        check(&stream, &case, given);
    }
}

#[test]
fn of_groups() {
    let stream = emulated(Architecture::sm_100(), 23);
    for (index, given) in all().into_iter().enumerate() {
        let mut case = Case::new([BF16; 2], [40, 18, 33]);
        case.random = index as u64;
        case.grouped = Grouped::Rows(vec![2, 9, 9, 30, 37]);
        // Of rows of no group only that they stay is known.
        if !given.in_place {
            check(&stream, &case, given);
        }
        if given.bias.is_none() {
            case.grouped = Grouped::Contraction(vec![0, 9, 9, 30, 33]);
            check(&stream, &case, given);
        }
    }
}
