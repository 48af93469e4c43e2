//! Every argument that does not fit, and the name that the error has for it.

use super::*;
use crate::quant::{Hadamard, ScaleLayout};

fn dense() -> PreparedMatmul {
    let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    op.prepare(&cpu()).unwrap()
}

#[test]
fn pairs_that_there_are_not_name_a_remedy() {
    let formats = [OperandFormat::Bf16, OperandFormat::F16]
        .into_iter()
        .chain(Format::ALL.map(OperandFormat::Quantized));
    let formats: Vec<OperandFormat> = formats.collect();
    let mut legal = 0;
    for a in &formats {
        for b in &formats {
            match Matmul::new(*a, *b).validate() {
                Ok(()) => legal += 1,
                Err(Error::Unsupported { what, remedy, .. }) => {
                    assert_eq!(what, format!("{a} x {b}"));
                    assert!(!remedy.is_empty());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    // 2 dense; tensor and row 3 element pairs of 4 kind pairs; blocks 3 of 2, MX 3.
    assert_eq!(legal, 2 + 3 * 4 + 3 * 2 + 3);
}

#[test]
fn operands() {
    let op = dense();
    let a = zeros(DType::Bf16, &[4, 8]);
    let run = |a: crate::TensorRef<'_>, b: crate::TensorRef<'_>| {
        refused(op.multiply(a, b, DType::F32, MatmulArguments::default()))
    };
    assert_eq!(run(zeros(DType::F16, &[4, 8]).view(), a.view()), "a");
    assert_eq!(run(zeros(DType::F32, &[4, 8]).view(), a.view()), "a");
    assert_eq!(run(a.view(), zeros(DType::Bf16, &[4, 9]).view()), "b");
    assert_eq!(run(a.view(), zeros(DType::Bf16, &[0, 8]).view()), "b");
    assert_eq!(run(zeros(DType::Bf16, &[4, 0]).view(), a.view()), "a");
    assert_eq!(run(a.view(), elsewhere(DType::Bf16, &[4, 8])), "b");
    let of_f64 = op.multiply(a.view(), a.view(), DType::F64, MatmulArguments::default());
    assert_eq!(refused(of_f64), "dtype");
    let into_new = MatmulArguments::default().accumulate(1.0);
    let result = op.multiply(a.view(), a.view(), DType::F32, into_new);
    assert_eq!(refused(result), "c");
}

#[test]
fn quantised_operands() {
    let stream = cpu();
    let values = numbers(8 * 32, 1);
    let of = |options: OutputOptions, format: Format| {
        quantized(Quantize::new(format).rowwise(options), &values, 8, 32)
    };
    let mx = Format::MxFp8(FP8);
    let op = Matmul::new(mx, mx).prepare(&stream).unwrap();
    let run = |a: &Quantized, b: &Quantized| {
        let [a, b] = [a.rowwise().unwrap(), b.rowwise().unwrap()];
        op.multiply(a, b, DType::F32, MatmulArguments::default())
    };
    let plain = of(OutputOptions::new(), mx);
    assert!(run(&plain, &plain).is_ok());
    let tiled = of(OutputOptions::new().layout(ScaleLayout::Tiled128x4), mx);
    assert_eq!(refused(run(&tiled, &plain)), "a");
    let rotated = of(OutputOptions::new().rotation(Hadamard::new(32, 1)), mx);
    assert!(run(&rotated, &rotated).is_ok());
    assert_eq!(refused(run(&rotated, &plain)), "b");
    let other = of(OutputOptions::new(), Format::Fp8Row(FP8));
    assert_eq!(refused(run(&other, &plain)), "a");
    let mut bare = plain.rowwise().unwrap();
    bare.scales = None;
    let result = op.multiply(bare, bare, DType::F32, MatmulArguments::default());
    assert_eq!(refused(result), "scales");
    let offsets = stream.upload(&[2], &[0_i64, 8]).unwrap();
    let grouped = plain.rowwise().unwrap().groups(offsets.view());
    let result = op.multiply(grouped, grouped, DType::F32, MatmulArguments::default());
    assert_eq!(refused(result), "a");
    // Blocks along a grouped contraction have to begin with its groups.
    let ungrouped = plain.rowwise().unwrap();
    let arguments = MatmulArguments::default().groups(Groups::Contraction(offsets.view()));
    let result = op.multiply(ungrouped, ungrouped, DType::F32, arguments);
    assert_eq!(refused(result), "a");
}

#[test]
fn groups() {
    let op = dense();
    let (a, b) = (zeros(DType::Bf16, &[4, 8]), zeros(DType::Bf16, &[6, 8]));
    let run = |groups: Groups<'_>| {
        let arguments = MatmulArguments::default().groups(groups);
        op.multiply(a.view(), b.view(), DType::F32, arguments)
    };
    let three = zeros(DType::I64, &[4]);
    assert!(run(Groups::Rows(three.view())).is_ok());
    assert!(run(Groups::Contraction(three.view())).is_ok());
    let refused = |groups: Groups<'_>| super::refused(run(groups));
    assert_eq!(
        refused(Groups::Rows(zeros(DType::I64, &[1]).view())),
        "groups"
    );
    assert_eq!(
        refused(Groups::Rows(zeros(DType::U32, &[4]).view())),
        "groups"
    );
    assert_eq!(refused(Groups::Rows(elsewhere(DType::I64, &[4]))), "groups");
    assert_eq!(refused(Groups::Rows(zeros(DType::I64, &[5]).view())), "b");
    let bias = zeros(DType::F32, &[6]);
    let arguments = MatmulArguments::default().bias(bias.view());
    let arguments = arguments.groups(Groups::Contraction(three.view()));
    let result = op.multiply(a.view(), b.view(), DType::F32, arguments);
    assert_eq!(super::refused(result), "bias");
}

#[test]
fn epilogues() {
    let op = dense();
    let (a, b) = (zeros(DType::Bf16, &[4, 8]), zeros(DType::Bf16, &[6, 8]));
    let run = |dtype: DType, arguments: MatmulArguments<'_>| {
        refused(op.multiply(a.view(), b.view(), dtype, arguments))
    };
    let new = MatmulArguments::default;
    let two = zeros(DType::F32, &[2]);
    let one = zeros(DType::F32, &[1]);
    assert_eq!(run(DType::F32, new().alpha(two.view())), "alpha");
    assert_eq!(run(DType::F32, new().bias(two.view())), "bias");
    assert_eq!(run(DType::F32, new().c(two.view(), 1.0)), "c");
    assert_eq!(
        run(DType::F32, new().output_scale(one.view())),
        "output_scale"
    );
    assert_eq!(run(DType::E4m3, new()), "output_scale");
    let c = zeros(DType::F32, &[4, 6]);
    assert_eq!(run(DType::F32, new().c(c.view(), f32::NAN)), "beta");
    let swiglu = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let swiglu = swiglu
        .activation(Activation::SwiGlu)
        .prepare(&cpu())
        .unwrap();
    let odd = zeros(DType::Bf16, &[5, 8]);
    let result = swiglu.multiply(a.view(), odd.view(), DType::F32, new());
    assert_eq!(refused(result), "b");
    let mut half = zeros(DType::F32, &[4, 3]);
    let mut outputs = MatmulOutputs::new(half.view_mut());
    let in_place = new().accumulate(1.0);
    let result = swiglu.multiply_into(a.view(), b.view(), in_place, &mut outputs);
    assert_eq!(refused(result), "c");
}

#[test]
fn outputs() {
    let op = dense();
    let (a, b) = (zeros(DType::Bf16, &[4, 8]), zeros(DType::Bf16, &[6, 8]));
    let out = zeros(DType::F32, &[4, 6]);
    let run = |mut outputs: MatmulOutputs<'_>| {
        let arguments = MatmulArguments::default();
        refused(op.multiply_into(a.view(), b.view(), arguments, &mut outputs))
    };
    let new = || MatmulOutputs::new(again(&out));
    let wide = zeros(DType::F32, &[4, 7]);
    assert_eq!(run(MatmulOutputs::new(again(&wide))), "outputs.out");
    let integers = zeros(DType::I32, &[4, 6]);
    assert_eq!(run(MatmulOutputs::new(again(&integers))), "outputs.out");
    assert_eq!(run(MatmulOutputs::new(again(&a))), "outputs.out");
    assert_eq!(
        run(new().pre_activation(again(&wide))),
        "outputs.pre_activation"
    );
    assert_eq!(run(new().amax(again(&wide))), "outputs.amax");
    assert_eq!(run(new().workspace(again(&wide))), "workspace");
    // Two results in one place.
    let result = run(new().pre_activation(again(&out)));
    assert!(result.starts_with("outputs."), "{result}");
}
