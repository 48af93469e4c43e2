//! Each wrong argument of a softmax, and the error that names it.

use evenkeel::norm::{Softmax, SoftmaxIncoming, SoftmaxKind, SoftmaxStatistics};
use evenkeel::{DType, Stream, TensorRef};

use super::super::super::{Effort, Held};
use super::proofs::{device, names, there};
use crate::norm::Operation;
use crate::subject::Subject;

pub(in super::super) fn softmax_wrong_arguments(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let told = |error: evenkeel::Error| error.to_string();
    let stream = device(subject, 0)?.stream().map_err(told)?;
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let op = Softmax::new(SoftmaxKind::Softmax).scale(scale);
        names(&format!("the scale {scale}"), op.prepare(&stream), "scale")?;
    }
    forward(&stream).map_err(told)??;
    backward(&stream).map_err(told)??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

/// An error of the calls that are right, or what was accepted.
type Checked = evenkeel::Result<Result<(), String>>;

fn forward(stream: &Stream) -> Checked {
    let op = Softmax::new(SoftmaxKind::Softmax).prepare(stream)?;
    let x = stream.zeros(DType::F32, &[2, 3, 10])?;
    let integers = stream.zeros(DType::I64, &[6, 10])?;
    let lengths = stream.zeros(DType::I64, &[4])?;
    let floats = stream.zeros(DType::F32, &[2])?;
    let forward = |x: TensorRef<'_>, lengths: Option<TensorRef<'_>>| op.forward(x, lengths);
    let into = |shape: &[usize], dtype: DType, entropy: usize| -> evenkeel::Result<()> {
        let mut y = stream.zeros(dtype, shape)?;
        let mut entropy = stream.zeros(DType::F32, &[entropy])?;
        let mut statistics = SoftmaxStatistics::default().entropy(entropy.view_mut());
        op.forward_into(x.view(), None, y.view_mut(), &mut statistics)
    };
    let checks = [
        (
            "integer scores",
            forward(integers.view(), None).map(|_| ()),
            "x",
        ),
        (
            "no keys",
            forward(x.view().slice_columns(0..0)?, None).map(|_| ()),
            "x",
        ),
        (
            "four lengths of six rows",
            forward(x.view(), Some(lengths.view())).map(|_| ()),
            "lengths",
        ),
        (
            "float lengths",
            forward(x.view(), Some(floats.view())).map(|_| ()),
            "lengths",
        ),
        ("a narrow y", into(&[2, 3, 9], DType::F32, 6), "y"),
        ("a short y", into(&[5, 10], DType::F32, 6), "y"),
        ("an integer y", into(&[6, 10], DType::I32, 6), "y"),
        ("a short entropy", into(&[6, 10], DType::F32, 5), "entropy"),
    ];
    for (what, result, argument) in checks {
        if let Err(wrong) = names(what, result, argument) {
            return Ok(Err(wrong));
        }
    }
    // These are right, so that a check that refuses everything would show.
    op.forward(x.view(), Some(lengths.view().slice_rows(0..2)?))?;
    into(&[6, 10], DType::Bf16, 6)?;
    overlapping(stream, &op)
}

/// y a row further in x's own memory.
fn overlapping(stream: &Stream, op: &evenkeel::norm::PreparedSoftmax) -> Checked {
    let mut both = stream.zeros(DType::F32, &[5, 10])?;
    let address = both.view().address();
    let device = stream.device().id();
    // SAFETY: the memory is the buffer's, which lives to the end of this function; the call refuses
    // the views and does not use them.
    let x = unsafe { TensorRef::from_raw(device, DType::F32, address, &[4, 10], None)? };
    let y = both.view_mut().slice_rows(1..5)?;
    let result = op.forward_into(x, None, y, &mut SoftmaxStatistics::default());
    Ok(names("a y that overlaps x", result, "y"))
}

fn backward(stream: &Stream) -> Checked {
    let op = Softmax::new(SoftmaxKind::StableMax).prepare(stream)?;
    let y = stream.zeros(DType::F32, &[6, 10])?;
    let narrow = stream.zeros(DType::F32, &[6, 9])?;
    let six = stream.zeros(DType::F32, &[6])?;
    let five = stream.zeros(DType::F32, &[5])?;
    let halves = stream.zeros(DType::Bf16, &[6])?;
    let backward = |dy: TensorRef<'_>, incoming: SoftmaxIncoming<'_>| {
        op.backward(y.view(), None, dy, &incoming).map(|_| ())
    };
    let whole = SoftmaxIncoming::default().normalizer(six.view());
    let checks = [
        (
            "no normalizer",
            backward(y.view(), SoftmaxIncoming::default()),
            "normalizer",
        ),
        (
            "a short normalizer",
            backward(y.view(), SoftmaxIncoming::default().normalizer(five.view())),
            "normalizer",
        ),
        ("a narrow dy", backward(narrow.view(), whole), "dy"),
        (
            "a short dentropy",
            backward(y.view(), whole.dentropy(five.view())),
            "dentropy",
        ),
        (
            "a bf16 dentropy",
            backward(y.view(), whole.dentropy(halves.view())),
            "dentropy",
        ),
    ];
    for (what, result, argument) in checks {
        if let Err(wrong) = names(what, result, argument) {
            return Ok(Err(wrong));
        }
    }
    backward(y.view(), whole.dentropy(six.view()))?;
    Ok(Ok(()))
}
