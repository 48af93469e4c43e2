//! The vectors of products.

use std::collections::HashMap;

use evenkeel::matmul::OperandFormat;
use evenkeel::quant::{Format, ScaleLayout};
use evenkeel::reference::matmul::{Epilogue, Groups, group_ranges, multiply};
use evenkeel::reference::{FloatRows, Floats, Indices};
use evenkeel::{DType, E4m3, E5m2, Number};
use evenkeel_cli::matmul::{Addend, Case, Grouping, OperandData, Problem};
use half::{bf16, f16};

use super::{DOUBLE, blocks, numbers};

/// A case as a problem, and what it gives.
pub struct Golden {
    pub problem: Problem,
    /// Values of the rows that have some, before the activation and after it.
    pre: Vec<f64>,
    out: Vec<f64>,
}

/// The cases of `matmul.txt`.
pub fn load() -> Vec<Golden> {
    blocks("matmul.txt")
        .iter()
        .map(|block| {
            let lines: HashMap<&str, &str> = block.lines().collect();
            let mut golden = golden(&lines);
            golden.problem.name = format!("golden product {}: {}", block.name, golden.problem.name);
            golden
        })
        .collect()
}

fn golden(lines: &HashMap<&str, &str>) -> Golden {
    let shape: [usize; 3] = numbers(lines["shape"]).try_into().unwrap();
    let formats: Vec<OperandFormat> = numbers(lines["formats"]);
    let mut case = Case::new(shape, formats[0], formats[1], DType::F32);
    case.scale_layout = match lines.get("layout") {
        Some(layout) => layout.parse().unwrap(),
        None => ScaleLayout::RowMajor,
    };
    case.scale_groups = lines.contains_key("own");
    if let Some((kind, offsets)) = lines
        .get("groups")
        .map(|groups| groups.split_once(' ').unwrap())
    {
        case.grouping = match kind {
            "rows" => Grouping::Rows(numbers(offsets)),
            _ => Grouping::Contraction(numbers(offsets)),
        };
    }
    if let Some(activation) = lines.get("activation") {
        case.activation = activation.parse().unwrap();
    }
    case.alpha = lines.get("alpha").map(|alpha| alpha.parse().unwrap());
    if let Some(beta) = lines.get("beta") {
        (case.beta, case.c) = (beta.parse().unwrap(), Addend::View(DType::F32));
    }
    case.bias = lines.contains_key("bias").then_some(DType::F32);
    case.pre = Some(DType::F32);
    // Drawn for its places, groups and grids; the data are the file's.
    let mut problem = case.problem();
    problem.bias = lines.get("bias").map(|bias| singles(bias));
    problem.c = lines.get("c").map(|c| singles(c));
    for (operand, elements, scales) in [
        (&mut problem.a, "a", "scales_a"),
        (&mut problem.b, "b", "scales_b"),
    ] {
        fill(operand, lines[elements], lines.get(scales).copied());
    }
    Golden {
        problem,
        pre: numbers(lines["pre"]),
        out: numbers(lines["out"]),
    }
}

/// Numbers that are f32.
fn singles(values: &str) -> Vec<f64> {
    numbers::<f32>(values).into_iter().map(f64::from).collect()
}

fn fill(operand: &mut OperandData, elements: &str, scales: Option<&str>) {
    let dtype = operand.format.data_dtype();
    let digits = 2 * dtype.size();
    let codes = elements.as_bytes().chunks(digits).map(|code| {
        let code = std::str::from_utf8(code).unwrap();
        u16::from_str_radix(code, 16).unwrap()
    });
    let value = |code: u16| match dtype {
        DType::Bf16 => Number::to_f64(bf16::from_bits(code)),
        DType::F16 => Number::to_f64(f16::from_bits(code)),
        DType::E4m3 => E4m3::from_bits(code as u8).to_f32().into(),
        _ => E5m2::from_bits(code as u8).to_f32().into(),
    };
    let values: Vec<f64> = codes.map(value).collect();
    assert_eq!(values.len(), operand.elements.len());
    operand.elements = values;
    if let Some(scales) = scales {
        let scales = singles(scales);
        assert_eq!(scales.len(), operand.scales.len());
        operand.scales = scales;
    }
}

/// The reference has the file's numbers: sums of hundreds of terms in f64 against exact ones.
#[test]
fn the_reference_agrees_with_exact_fractions() {
    let cases = load();
    assert_eq!(cases.len(), 13);
    let squares = |golden: &&Golden| {
        let of = golden.problem.b.format;
        matches!(of, OperandFormat::Quantized(Format::Fp8Block128x128(_)))
    };
    assert_eq!(cases.iter().filter(squares).count(), 1);
    for golden in &cases {
        let problem = &golden.problem;
        let case = &problem.case;
        let [m, n, k] = case.shape;
        let length = match case.grouping {
            Grouping::Contraction(_) => k,
            _ => m,
        };
        let offsets = case.grouping.offsets().unwrap_or(&[]);
        let ranges = group_ranges(&Indices::I64(offsets), length).unwrap();
        let groups = match case.grouping {
            Grouping::One => Groups::One,
            Grouping::Rows(_) => Groups::Rows(&ranges),
            Grouping::Contraction(_) => Groups::Contraction(&ranges),
        };
        let c = problem.c.as_ref().map(|c| {
            let rows = FloatRows::new(Floats::F64(c), c.len() / n, n, n).unwrap();
            (rows, case.beta.into())
        });
        let epilogue = Epilogue {
            alpha: case.alpha.unwrap_or(1.0).into(),
            bias: problem.bias.as_ref().map(|bias| Floats::F64(bias)),
            c,
            activation: case.activation,
        };
        let product = problem
            .a
            .exact(|a| problem.b.exact(|b| multiply(&a, &b, &groups, &epilogue)))
            .unwrap();
        for (what, got, want) in [
            ("pre", &product.pre, &golden.pre),
            ("out", &product.out, &golden.out),
        ] {
            assert_eq!(got.len(), want.len(), "{what} of {}", problem.name);
            let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
            for (index, (got, want)) in got.iter().zip(want).enumerate() {
                let wrong = DOUBLE.mismatch(*got, *want, size);
                assert_eq!(wrong, None, "{what} {index} of {}", problem.name);
            }
        }
    }
}
