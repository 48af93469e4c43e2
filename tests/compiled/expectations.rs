//! What each kernel was written to become. Every kernel needs a row; a kernel whose name fits
//! several rows must meet them all.

/// Instructions of some kernels on some targets.
pub struct Expectation {
    /// Exported names; `*` stands for any characters.
    pub kernels: &'static str,
    /// Targets it speaks of; all for an empty list.
    pub targets: &'static [&'static str],
    /// Each must occur. `LDG.128` is any load from global memory of 128 bits.
    pub present: &'static [&'static str],
    /// None may occur.
    pub absent: &'static [&'static str],
    /// Why, in the words that a failure shows.
    pub reason: &'static str,
}

/// Forbidden in every kernel on every target, and why.
///
/// Of the atomics only those on floats have a rounding: they alone make a sum depend on the order in
/// which threads come. `RED` is `REDG` from compute capability 9.0 on.
pub const FORBIDDEN: [(&str, &str); 6] = [
    ("LDL", "arrays or spilled registers in local memory"),
    ("STL", "arrays or spilled registers in local memory"),
    ("RED.RN", FLOAT_ATOMIC),
    ("REDG.RN", FLOAT_ATOMIC),
    ("ATOMG.RN", FLOAT_ATOMIC),
    ("ATOM.RN", FLOAT_ATOMIC),
];

const FLOAT_ATOMIC: &str = "sums have a fixed order: no atomics on floats";

pub const EXPECTATIONS: &[Expectation] = &[
    Expectation {
        kernels: "softmax_loss_cluster_*",
        targets: &[],
        present: &["UBLKCP.S.G", "SYNCS.PHASECHK", "LDS.128", "STG.128"],
        absent: &["LDG.128"],
        reason: "rows arrive by bulk copies that an mbarrier completes, are read from shared memory and written as \
                 gradients 16 bytes at a time; a wide load from global memory would be a second read of the row",
    },
    Expectation {
        kernels: "softmax_loss_block_*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "logits are read and gradients written 16 bytes at a time",
    },
    Expectation {
        kernels: "softmax_loss_rescale_*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "gradients are read and written 16 bytes at a time",
    },
    // One block over numbers of which there is one a token: width is not what its time goes into.
    Expectation {
        kernels: "softmax_loss_scale",
        targets: &[],
        present: &["LDG"],
        absent: &[],
        reason: "targets are read",
    },
    Expectation {
        kernels: "softmax_loss_reduce",
        targets: &[],
        present: &["LDG"],
        absent: &[],
        reason: "losses and flags are read",
    },
    Expectation {
        kernels: "norm_tev_c*",
        targets: &[],
        present: &["LDG.128"],
        absent: &[],
        reason: "tables are read 16 bytes at a time",
    },
    // Odd rows, and one number a token.
    Expectation {
        kernels: "norm_tev_s4u4",
        targets: &[],
        present: &["LDG"],
        absent: &["LDG.128"],
        reason: "rows at any alignment are read element by element",
    },
    Expectation {
        kernels: "norm_tev_mean",
        targets: &[],
        present: &["LDG", "DADD"],
        absent: &[],
        reason: "deviations are added in fp64, whose range no sum of them leaves",
    },
    Expectation {
        kernels: "norm_dyt_*_c*",
        targets: &[],
        present: &["LDG.128", "STG.128", "MUFU.EX2"],
        absent: &[],
        reason: "rows are read and written 16 bytes at a time, and tanh is computed where they are",
    },
    Expectation {
        kernels: "norm_dyt_*_s4u1",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &[],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "norm_dyt_sums",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &["MUFU"],
        reason: "partial sums are read and only added",
    },
    Expectation {
        kernels: "norm_forward_*_c*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "rows are read and written 16 bytes at a time",
    },
    Expectation {
        kernels: "norm_forward_*_s4u4",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &["LDG.128", "STG.128"],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "norm_quantized_*_c*",
        targets: &[],
        present: &["LDG.128", "SHFL", "ATOMS.MAX"],
        absent: &[],
        reason: "rows are read 16 bytes at a time; the largest of a block is found among lanes, or in shared memory where a \
                 team is too short for it",
    },
    Expectation {
        kernels: "norm_quantized_*_c8*",
        targets: &[],
        present: &["STG.64"],
        absent: &[],
        reason: "eight elements of a byte leave as one access",
    },
    Expectation {
        kernels: "norm_quantized_*_s4u4",
        targets: &[],
        present: &["LDG", "STG", "ATOMS.MAX"],
        absent: &["LDG.128", "STG.128"],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "norm_quantized_*",
        targets: &["89", "90a", "100f", "120f"],
        present: &["F2FP.SATFINITE.E4M3", "F2FP.SATFINITE.E5M2"],
        absent: &[],
        reason: "FP8 is converted by the instruction where there is one",
    },
    Expectation {
        kernels: "norm_quantized_cluster_*",
        targets: &[],
        present: &["SYNCS.PHASECHK"],
        absent: &[],
        reason: "the blocks' partial results arrive by messages that an mbarrier completes",
    },
    Expectation {
        kernels: "quant_rows_c*",
        targets: &[],
        present: &["LDG.128", "SHFL"],
        absent: &[],
        reason: "rows are read 16 bytes at a time, and their largest is found among lanes",
    },
    Expectation {
        kernels: "quant_rows_s4u4",
        targets: &[],
        present: &["LDG", "STG", "SHFL"],
        absent: &["LDG.128", "STG.128"],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "quant_rows_*",
        targets: &["89", "90a", "100f", "120f"],
        present: &["F2FP.SATFINITE.E4M3", "F2FP.SATFINITE.E5M2"],
        absent: &[],
        reason: "FP8 is converted by the instruction where there is one",
    },
    Expectation {
        kernels: "norm_backward_*_c*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "rows are read and written 16 bytes at a time",
    },
    Expectation {
        kernels: "norm_backward_*_s4u2",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &["LDG.128", "STG.128"],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "norm_*ward_cluster_*",
        targets: &[],
        present: &["SYNCS.PHASECHK"],
        absent: &[],
        reason: "the blocks' partial results arrive by messages that an mbarrier completes",
    },
    Expectation {
        kernels: "norm_column_sum",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &["MUFU.EX2"],
        reason: "partial sums are read and only added",
    },
    Expectation {
        kernels: "norm_vector_sum",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &["MUFU"],
        reason: "partial sums are read and only added",
    },
    Expectation {
        kernels: "norm_spectral_step_c*",
        targets: &[],
        present: &["LDG.128", "BAR"],
        absent: &[],
        reason: "weights are read 16 bytes at a time, and teams of several warps meet at barriers",
    },
    Expectation {
        kernels: "norm_spectral_step_s4u4",
        targets: &[],
        present: &["LDG", "BAR"],
        absent: &[],
        reason: "weights at any alignment are read element by element",
    },
    Expectation {
        kernels: "norm_spectral_columns",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &[],
        reason: "partial sums are read and their sum is written",
    },
    Expectation {
        kernels: "norm_spectral_finish",
        targets: &[],
        present: &["DFMA"],
        absent: &[],
        reason: "norms are formed in fp64, whose range no square of fp32 leaves",
    },
    Expectation {
        kernels: "norm_spectral_dot_c*",
        targets: &[],
        present: &["LDG.128"],
        absent: &["STG.128"],
        reason: "weights and gradients are read 16 bytes at a time, and only their product leaves",
    },
    Expectation {
        kernels: "norm_spectral_ratio",
        targets: &[],
        present: &["DADD"],
        absent: &[],
        reason: "partial sums are added in fp64",
    },
    Expectation {
        kernels: "norm_spectral_apply_c*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "weights and gradients are read and written 16 bytes at a time",
    },
    Expectation {
        kernels: "norm_spectral_*_s4u1",
        targets: &[],
        present: &["LDG"],
        absent: &[],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "norm_softmax_*_c8*",
        targets: &[],
        present: &["LDG.128", "STG.128", "MUFU.EX2"],
        absent: &[],
        reason: "rows are read and written 16 bytes at a time, and exponentials are computed where they are",
    },
    Expectation {
        kernels: "norm_softmax_*_c4*",
        targets: &[],
        present: &["LDG.128", "STG.128", "MUFU.EX2"],
        absent: &[],
        reason: "rows of f32 are read and written 16 bytes at a time",
    },
    Expectation {
        kernels: "norm_softmax_*_s4*",
        targets: &[],
        present: &["LDG", "STG", "MUFU.EX2"],
        absent: &["LDG.128", "STG.128"],
        reason: "rows at any alignment go element by element",
    },
    Expectation {
        kernels: "activation_*_scales",
        targets: &[],
        present: &["LDG.128"],
        absent: &["MUFU.EX2"],
        reason: "up is read 16 bytes at a time, and nothing is computed of it but its largest element",
    },
    Expectation {
        kernels: "activation_*ward",
        targets: &[],
        present: &["LDG.128", "STG.128", "MUFU.EX2"],
        absent: &["LDS", "STS"],
        reason: "inputs are read and results written 16 bytes at a time; threads have nothing to tell each other",
    },
    Expectation {
        kernels: "activation_quantize_*",
        targets: &[],
        present: &["LDG.128", "STG.128", "MUFU.EX2", "LDS.128", "STS.128"],
        absent: &[],
        reason: "inputs are read 16 bytes at a time, values wait in shared memory 16 bytes at a time, and transposed \
                 elements leave 16 bytes at a time",
    },
    Expectation {
        kernels: "activation_amax_*",
        targets: &[],
        present: &["LDG.128", "MUFU.EX2", "LDS.128", "STS.128"],
        absent: &["STG.128"],
        reason: "inputs are read 16 bytes at a time, and nothing is written but amaxes",
    },
    Expectation {
        kernels: "quant_quantize_b*",
        targets: &[],
        present: &["LDG.128", "STG.128", "LDS.128", "STS.128"],
        absent: &[],
        reason: "values are read and transposed elements written 16 bytes at a time, by way of shared memory 16 bytes \
                 at a time",
    },
    Expectation {
        kernels: "quant_quantize_b8_*",
        targets: &["89", "90a", "100f", "120f"],
        present: &["F2FP.SATFINITE.E4M3", "F2FP.SATFINITE.E5M2"],
        absent: &[],
        reason: "elements are converted by the instruction where there is one",
    },
    Expectation {
        kernels: "quant_stochastic_b*",
        targets: &[],
        present: &["LDG.128", "STG.128", "LDS.128"],
        absent: &[],
        reason: "values are read and transposed elements written 16 bytes at a time",
    },
    Expectation {
        kernels: "quant_amax_*",
        targets: &[],
        present: &["LDG.128", "LDS.128"],
        absent: &["STG"],
        reason: "values are read 16 bytes at a time, and amaxes meet in integer atomics",
    },
    Expectation {
        kernels: "quant_dequantize_b*",
        targets: &[],
        present: &["STG.128"],
        absent: &[],
        reason: "values are written 16 bytes at a time",
    },
    // Memory that is zeroed: a few words a launch.
    Expectation {
        kernels: "quant_gauss_*_c*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "weights and gradients are read and written 16 bytes at a time",
    },
    Expectation {
        kernels: "quant_gauss_*_s4",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &[],
        reason: "rows that no wide access fits are read element by element",
    },
    Expectation {
        kernels: "quant_straight_through_*_c*",
        targets: &[],
        present: &["LDG.128", "STG.128"],
        absent: &[],
        reason: "values and gradients are read and written 16 bytes at a time",
    },
    Expectation {
        kernels: "quant_straight_through_*_s4",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &[],
        reason: "rows that no wide access fits are read element by element",
    },
    Expectation {
        kernels: "quant_straight_through_reste_*",
        targets: &[],
        present: &["MUFU.EX2", "MUFU.LG2"],
        absent: &[],
        reason: "a power is the hardware's exponential of a logarithm",
    },
    Expectation {
        kernels: "quant_delayed_update",
        targets: &[],
        present: &["LDG", "STG"],
        absent: &[],
        reason: "one number of each slot of a history: width is not what its time goes into",
    },
    Expectation {
        kernels: "quant_clear",
        targets: &[],
        present: &["STG"],
        absent: &["LDG"],
        reason: "zeroes are written, and nothing is read",
    },
    Expectation {
        kernels: "quant_outside",
        targets: &[],
        present: &["STG"],
        absent: &[],
        reason: "the groups' offsets are read, and what lies outside is zeroed",
    },
];
