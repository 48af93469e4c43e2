//! The loss on the CPU: the reference over host slices, each result rounded once.

use half::{bf16, f16};

use super::arguments::{LossInputs, LossOutputs, Statistic, TokenCount};
use super::check::Checked;
use super::kernels::{Call, Pass, Rows};
use super::{LossOptions, Reduction};
use crate::reference::loss::batch::{self, Batch, Forward};
use crate::reference::loss::{RowResult, RowState};
use crate::reference::{self, Indices};
use crate::{DType, Number, Result, Status, TensorMut, TensorRef};

/// Calls a generic function with the element type of `dtype`.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $call:expr) => {
        match $dtype {
            DType::Bf16 => {
                type $T = bf16;
                $call
            }
            DType::F16 => {
                type $T = f16;
                $call
            }
            _ => {
                type $T = f32;
                $call
            }
        }
    };
}

/// Runs one call; the arguments are checked. Gives what was found wrong with the data.
pub(super) fn run(
    call: &Call<'_>,
    rows: Rows<'_, '_>,
    outputs: &mut LossOutputs<'_>,
) -> Result<Status> {
    let Call {
        options, inputs, ..
    } = *call;
    let batch = batch_of(call.checked, inputs)?;
    let logits = rows.logits().dtype();
    match call.pass {
        Pass::Backward(state, upstream) => {
            let states = saved_states(state)?;
            let upstream = host_upstream(upstream)?;
            with_float!(logits, T => backward::<T>(&batch, options, rows, &states, &upstream))
        }
        Pass::Forward | Pass::ForwardBackward => {
            let upstream = per_token(inputs.upstream.as_ref(), 1.0)?;
            let forward = with_float!(logits, T => forward::<T>(&batch, options, rows, upstream))?;
            store(options, &forward, outputs)?;
            Ok(forward.status)
        }
    }
}

/// Multiplies the kept rows by the scale.
pub(super) fn scale_gradient(
    mut gradient: TensorMut<'_>,
    kept: TensorRef<'_>,
    scale: TensorRef<'_>,
) -> Result<()> {
    if gradient.elements() == 0 {
        return Ok(());
    }
    let kept: Vec<bool> = kept.host_slice::<u8>()?.iter().map(|&k| k != 0).collect();
    let scale = first(scale.host_slice::<f32>()?);
    let dtype = gradient.dtype();
    with_float!(dtype, T => {
        batch::scale_gradient(rows_mut::<T>(&mut gradient)?, &kept, scale)
    })
}

fn first(values: &[f32]) -> f64 {
    values.first().copied().unwrap_or(0.0).into()
}

/// The reference's form of the inputs.
fn batch_of<'a>(checked: Checked, inputs: &LossInputs<'a>) -> Result<Batch<'a>> {
    let mut batch = Batch::new(checked.vocab, indices(&inputs.targets)?);
    batch.token_weights = optional(inputs.token_weights.as_ref())?;
    batch.class_mask = optional(inputs.class_mask.as_ref())?;
    batch.tokens = match &inputs.tokens {
        Some(TokenCount::Host(count)) => Some((*count).into()),
        Some(TokenCount::Device(count)) => Some(first(count.host_slice::<f32>()?)),
        None => None,
    };
    batch.offsets = inputs.sequences.as_ref().map(indices).transpose()?;
    Ok(batch)
}

fn indices<'a>(view: &TensorRef<'a>) -> Result<Indices<'a>> {
    Ok(match view.dtype() {
        DType::I32 => Indices::I32(view.host_slice()?),
        DType::U32 => Indices::U32(view.host_slice()?),
        _ => Indices::I64(view.host_slice()?),
    })
}

fn optional<'a, T: Number>(view: Option<&TensorRef<'a>>) -> Result<Option<&'a [T]>> {
    view.map(TensorRef::host_slice).transpose()
}

fn per_token<'a>(view: Option<&TensorRef<'a>>, absent: f64) -> Result<reference::PerToken<'a>> {
    let Some(view) = view else {
        return Ok(reference::PerToken::Scalar(absent));
    };
    let values = view.host_slice::<f32>()?;
    Ok(match values {
        [scalar] => reference::PerToken::Scalar((*scalar).into()),
        values => reference::PerToken::Tokens(values),
    })
}

fn host_upstream<'a>(upstream: &super::Upstream<'a>) -> Result<batch::Upstream<'a>> {
    Ok(batch::Upstream {
        loss: per_token(upstream.loss.as_ref(), 0.0)?,
        lp: per_token(upstream.lp.as_ref(), 0.0)?,
        entropy: per_token(upstream.entropy.as_ref(), 0.0)?,
        lse: per_token(upstream.lse.as_ref(), 0.0)?,
    })
}

fn saved_states(state: &TensorRef<'_>) -> Result<Vec<RowState>> {
    let (rows, _) = state.host_slice::<f32>()?.as_chunks::<8>();
    Ok(rows.iter().map(RowState::from_saved).collect())
}

fn rows_of<'a, T: Number>(view: &TensorRef<'a>) -> Result<reference::Rows<'a, T>> {
    reference::Rows::new(
        view.host_slice()?,
        view.rows(),
        view.columns(),
        view.row_stride(),
    )
}

fn rows_mut<'v, T: Number>(view: &'v mut TensorMut<'_>) -> Result<reference::RowsMut<'v, T>> {
    let (rows, columns, stride) = (view.rows(), view.columns(), view.row_stride());
    reference::RowsMut::new(view.host_slice_mut()?, rows, columns, stride)
}

fn forward<T: Number>(
    batch: &Batch<'_>,
    options: &LossOptions,
    rows: Rows<'_, '_>,
    upstream: reference::PerToken<'_>,
) -> Result<Forward> {
    match rows {
        Rows::Read(logits) => batch::forward::<T>(batch, options, rows_of(&logits)?),
        Rows::Apart(logits, mut gradient) => {
            let logits = rows_of::<T>(&logits)?;
            let dtype = gradient.dtype();
            with_float!(dtype, G => {
                let gradient = rows_mut::<G>(&mut gradient)?;
                batch::forward_backward(batch, options, logits, upstream, gradient)
            })
        }
        Rows::InPlace(mut logits) => {
            let logits = rows_mut::<T>(&mut logits)?;
            batch::forward_backward_in_place(batch, options, logits, upstream)
        }
    }
}

fn backward<T: Number>(
    batch: &Batch<'_>,
    options: &LossOptions,
    rows: Rows<'_, '_>,
    states: &[RowState],
    upstream: &batch::Upstream<'_>,
) -> Result<Status> {
    match rows {
        Rows::Read(_) => Ok(Status::empty()), // backward always has a gradient to write
        Rows::Apart(logits, mut gradient) => {
            let logits = rows_of::<T>(&logits)?;
            let dtype = gradient.dtype();
            with_float!(dtype, G => {
                let gradient = rows_mut::<G>(&mut gradient)?;
                batch::backward(batch, options, logits, states, upstream, gradient)
            })
        }
        Rows::InPlace(mut logits) => {
            let logits = rows_mut::<T>(&mut logits)?;
            batch::backward_in_place(batch, options, logits, states, upstream)
        }
    }
}

/// Rounds what was asked for into the outputs.
fn store(options: &LossOptions, forward: &Forward, outputs: &mut LossOutputs<'_>) -> Result<()> {
    if options.reduction != Reduction::None
        && let Some(loss) = &mut outputs.loss
    {
        fill(loss, [forward.loss as f32])?;
    }
    if let Some(counts) = &mut outputs.counts {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let all = [forward.valid, forward.kept, forward.correct];
        fill(counts, all.map(narrow))?;
    }
    if let Some(scale) = &mut outputs.gradient_scale {
        fill(scale, [forward.gradient_scale as f32])?;
    }
    if let Some(state) = &mut outputs.state {
        let saved = forward.rows.iter().flat_map(|row| row.state.to_saved());
        fill(state, saved)?;
    }
    for statistic in Statistic::ALL {
        let Some(values) = &mut outputs.statistics[statistic as usize] else {
            continue;
        };
        let rows = &forward.rows;
        let of = |value: fn(&RowResult) -> f64| rows.iter().map(move |row| value(row) as f32);
        match statistic {
            Statistic::Loss => fill(values, of(|row| row.loss))?,
            Statistic::Lse => fill(values, of(|row| row.lse))?,
            Statistic::Lp => fill(values, of(|row| row.state.lp))?,
            Statistic::P => fill(values, of(|row| row.p))?,
            Statistic::Entropy => fill(values, of(|row| row.state.entropy))?,
            Statistic::SumP2 => fill(values, of(|row| row.state.sum_p2))?,
            Statistic::El2n => fill(values, of(|row| row.el2n))?,
            Statistic::Argmax => fill(values, rows.iter().map(|row| row.argmax as i32))?,
            Statistic::Correct => fill(values, rows.iter().map(|row| u8::from(row.correct)))?,
            Statistic::Kept => fill(values, rows.iter().map(|row| u8::from(row.kept())))?,
        }
    }
    Ok(())
}

fn fill<T: Number>(view: &mut TensorMut<'_>, values: impl IntoIterator<Item = T>) -> Result<()> {
    for (slot, value) in view.host_slice_mut::<T>()?.iter_mut().zip(values) {
        *slot = value;
    }
    Ok(())
}
