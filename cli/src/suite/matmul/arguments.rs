//! Wrong arguments of products.

use evenkeel::matmul::{Activation, Groups, Matmul, MatmulArguments, MatmulOutputs, OperandFormat};
use evenkeel::quant::Format;
use evenkeel::{DType, Error};

use super::super::proofs::device;
use super::super::{Effort, Held, names};
use crate::subject::Subject;

/// Each wrong argument and the name that the error has for it; pairs of formats that there are not.
pub(super) fn product_wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let told = |error: Error| error.to_string();
    let stream = device(subject, 0)?.stream().map_err(told)?;
    for (a, b) in [
        (Format::NvFp4.into(), Format::NvFp4.into()),
        (OperandFormat::Bf16, OperandFormat::F16),
        (OperandFormat::Bf16, Format::ALL[0].into()),
        (Format::ALL[1].into(), Format::ALL[1].into()),
        (Format::ALL[0].into(), Format::ALL[4].into()),
    ] {
        held.problems += 1;
        match Matmul::new(a, b).prepare(&stream) {
            Err(Error::Unsupported { what, .. }) if what == format!("{a} x {b}") => {}
            Err(error) => return Err(format!("{a} x {b}: {error}")),
            Ok(_) => return Err(format!("{a} x {b} was accepted")),
        }
    }
    let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let op = match op.activation(Activation::SwiGlu).prepare(&stream) {
        Ok(op) => op,
        // Without kernels there is nothing to call.
        Err(Error::Unsupported { .. }) => return Ok(held),
        Err(error) => return Err(told(error)),
    };
    let zeros = |dtype, shape: &[usize]| stream.zeros(dtype, shape).map_err(told);
    let (a, b) = (zeros(DType::Bf16, &[4, 8])?, zeros(DType::Bf16, &[6, 8])?);
    let (odd, short) = (zeros(DType::Bf16, &[5, 8])?, zeros(DType::Bf16, &[6, 7])?);
    let one = zeros(DType::F32, &[1])?;
    let new = MatmulArguments::default;
    let call = |a: &evenkeel::Buffer, b: &evenkeel::Buffer, arguments: MatmulArguments<'_>| {
        op.multiply(a.view(), b.view(), DType::F32, arguments)
    };
    names("an f32 operand", call(&one, &b, new()), "a")?;
    names("another K", call(&a, &short, new()), "b")?;
    names("half a pair", call(&a, &odd, new()), "b")?;
    names(
        "a bias of one",
        call(&a, &b, new().bias(one.view())),
        "bias",
    )?;
    names("C of one", call(&a, &b, new().c(one.view(), 1.0)), "c")?;
    let scaled = new().output_scale(one.view());
    names("a scale of f32", call(&a, &b, scaled), "output_scale")?;
    let grouped = new().groups(Groups::Rows(one.view()));
    names("offsets of f32", call(&a, &b, grouped), "groups")?;
    let mut out = zeros(DType::F32, &[4, 6])?;
    let mut outputs = MatmulOutputs::new(out.view_mut());
    let result = op.multiply_into(a.view(), b.view(), new(), &mut outputs);
    names("an output of all columns", result, "outputs.out")?;
    held.problems += 8;
    Ok(held)
}
