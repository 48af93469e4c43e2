//! What the kernels are given: kernels/loss/params.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::{Criterion, Denominator, Objective, Reduction, Threshold};
use crate::DType;

/// A pointer for all tokens (stride 0) or with one value a token (stride 1); 0 when absent.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PerToken {
    pub(super) values: u64,
    pub(super) stride: i64,
}

/// `SoftmaxLossParams`. Pointers of absent tensors are 0.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SoftmaxLossParams {
    pub(super) logits: u64,
    pub(super) gradient: u64,
    pub(super) targets: u64,
    pub(super) class_mask: u64,
    pub(super) token_weight: PerToken,
    pub(super) scale: PerToken,
    pub(super) upstream_loss: PerToken,
    pub(super) upstream_lp: PerToken,
    pub(super) upstream_entropy: PerToken,
    pub(super) upstream_lse: PerToken,
    pub(super) loss: u64,
    pub(super) lse: u64,
    pub(super) lp: u64,
    pub(super) p: u64,
    pub(super) entropy: u64,
    pub(super) sum_p2: u64,
    pub(super) el2n: u64,
    pub(super) argmax: u64,
    pub(super) correct: u64,
    pub(super) kept: u64,
    pub(super) flags: u64,
    pub(super) state: u64,
    pub(super) status: u64,
    pub(super) tokens: i64,
    pub(super) vocab: i64,
    pub(super) vocab_padded: i64,
    pub(super) logits_stride: i64,
    pub(super) gradient_stride: i64,
    pub(super) ignore_index: i64,
    pub(super) objective: u32,
    pub(super) threshold_side: u32,
    pub(super) target_type: u32,
    pub(super) moments: u32,
    pub(super) objective_parameter: f32,
    pub(super) tau: f32,
    pub(super) softcap: f32,
    pub(super) inverse_temperature: f32,
    pub(super) z_loss: f32,
    pub(super) label_smoothing: f32,
    pub(super) entropy_weight: f32,
    pub(super) spectral_decoupling: f32,
    pub(super) find_argmax: u32,
    pub(super) from_state: u32,
    pub(super) stages: u32,
    pub(super) stage_bytes: u32,
    pub(super) absent_upstream: f32,
    pub(super) unused: u32,
}

/// `SoftmaxReduceParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SoftmaxReduceParams {
    pub(super) targets: u64,
    pub(super) offsets: u64,
    pub(super) tokens_divisor: u64,
    pub(super) loss: u64,
    pub(super) flags: u64,
    pub(super) state: u64,
    pub(super) upstream: u64,
    pub(super) scale: u64,
    pub(super) reduced_loss: u64,
    pub(super) counts: u64,
    pub(super) gradient_scale: u64,
    pub(super) status: u64,
    pub(super) tokens: i64,
    pub(super) sequences: i64,
    pub(super) ignore_index: i64,
    pub(super) target_type: u32,
    pub(super) offset_type: u32,
    pub(super) denominator: u32,
    pub(super) host_divisor: f32,
}

/// `ScaleGradientParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ScaleGradientParams {
    pub(super) gradient: u64,
    pub(super) factor: u64,
    pub(super) kept: u64,
    pub(super) tokens: i64,
    pub(super) vocab: i64,
    pub(super) stride: i64,
}

const _: () = assert!(size_of::<SoftmaxLossParams>() == 352);
const _: () = assert!(size_of::<SoftmaxReduceParams>() == 136);
const _: () = assert!(size_of::<ScaleGradientParams>() == 48);

/// How much of a row the first pass gathers: `Moments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(super) enum Moments {
    /// Maximum and sum of exponentials.
    None,
    /// And what entropy and sum of p^2 need.
    Some,
    /// And transforms, class mask, smoothing, spectral decoupling.
    All,
}

/// `Objective` and its parameter.
pub(super) fn objective(objective: Objective) -> (u32, f32) {
    match objective {
        Objective::Nll => (0, 0.0),
        Objective::Linear => (1, 0.0),
        Objective::Power(a) => (2, a),
        Objective::Dft => (3, 0.0),
        Objective::Focal(gamma) => (4, gamma),
        Objective::Poly1(epsilon) => (5, epsilon),
        Objective::Gce(q) => (6, q),
        Objective::Deft => (7, 0.0),
    }
}

/// `ThresholdSide` and tau.
pub(super) fn threshold(criterion: Criterion) -> (u32, f32) {
    match criterion.threshold {
        None => (0, 0.0),
        Some(Threshold::Above(tau)) => (1, tau),
        Some(Threshold::Below(tau)) => (2, tau),
    }
}

/// `Denominator`.
pub(super) fn denominator(reduction: Reduction) -> u32 {
    match reduction {
        Reduction::None | Reduction::Sum => 0,
        Reduction::Mean(Denominator::Valid) => 1,
        Reduction::Mean(Denominator::Kept) => 2,
        Reduction::Mean(Denominator::Tokens) => 3,
        Reduction::Mean(Denominator::Sequence) => 4,
    }
}

/// `IntegerType` of a type that arguments.rs let through.
pub(super) fn integer_type(dtype: DType) -> u32 {
    match dtype {
        DType::I32 => 1,
        DType::U32 => 2,
        _ => 0,
    }
}
