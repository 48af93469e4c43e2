//! The properties of the row operations.

mod dyt;
mod proofs;
mod quantized;
mod rows;
mod softmax;
mod spectral;
mod tev;

use evenkeel::{Device, DeviceKind};

use super::{Effort, Family, Held, Refusals, Workload, emulated, expect, properties, told};
use crate::choose::Op;
use crate::norm::Operation;

pub(super) const FAMILY: Family = Family {
    op: Op::Norm,
    properties: PROPERTIES,
    refusals,
    workloads,
};

properties!(
    rows::every_norm_in_every_form: "each normalization, form, type and set of weights against the reference",
    rows::every_type: "the type of each tensor, independent of the others'",
    rows::every_alignment: "every tensor at every alignment, with gaps between rows",
    rows::widths: "rows from 1 to 262144 elements, and each length of heads",
    rows::extremes: "offsets, constant and zero rows, huge and tiny ones, spikes",
    rows::an_offset_costs_no_digits: "LayerNorm of bf16 rows with an offset of 1e4",
    rows::rotary_embeddings: "both pairings, each width, positions in and out of the tables",
    rows::rows_that_are_not_finite: "NaN and infinities: NaN for their rows, their neighbours untouched",
    rows::accumulating_adds: "gradients of weights added to what is there",
    rows::in_place_equals_apart: "the same bits in place, apart and allocated",
    rows::random_norms: "problems drawn at random, made small when they fail",
    rows::no_rows: "nothing is written but gradients of weights, which are 0 or stay",
    rows::wrong_arguments: "each wrong argument and its error",
    rows::the_same_bits_every_time: "runs, schedules and device sizes give the same bits",
    rows::bytes_of_norms: "bytes moved by a forward, against the least there is",
    rows::bytes_of_gradients: "bytes moved by a backward, against the least there is",
    rows::norms_on_other_architectures: "each architecture, with its limits",
    softmax::softmax_kinds_and_masks: "each softmax with each mask, type and pass against the reference",
    softmax::softmax_lengths_of_rows: "softmaxes of 1 to 262144 keys, one query and more",
    softmax::softmax_alignments: "softmaxes with each tensor at each alignment, of another type",
    softmax::softmax_extremes: "scores near and far, equal, ascending, masked by -inf, with an offset",
    softmax::softmax_rows_sum_to_one: "the shares of a row sum to 1",
    softmax::softmax_offsets_change_nothing: "an exact offset of the scores leaves every bit",
    softmax::softmax_peaks_keep_their_digits: "log p and entropy of p = 1 - 1e-9 keep their digits",
    softmax::softmax_ranks: "softmaxes of tensors of one to four dimensions",
    softmax::softmax_forms_agree: "softmaxes that allocate, and that ask for less, give the same bits",
    softmax::softmax_random_problems: "softmaxes drawn at random, made small when they fail",
    softmax::softmax_of_nothing: "softmaxes without rows",
    softmax::softmax_of_rows_that_see_nothing: "padded queries are 0 and disturb nobody",
    softmax::softmax_of_rows_that_are_not_finite: "NaN and +inf, and their neighbours untouched",
    softmax::softmax_wrong_arguments: "each wrong argument of a softmax and its error",
    softmax::softmax_same_bits: "softmaxes have the same bits on every schedule and device size",
    softmax::softmax_traffic: "bytes that softmaxes move, against the least there is",
    softmax::softmax_on_other_architectures: "softmaxes without large clusters",
    softmax::softmax_past_two_to_the_32: "softmaxes of rows 2^32 elements apart",
    dyt::dyt_weights_and_passes: "dynamic tanh with each weight, type and pass against the reference",
    dyt::dyt_lengths_of_rows: "dynamic tanh of 1 to 262144 columns",
    dyt::dyt_slopes_keep_their_digits: "the slope of a saturated tanh keeps its digits",
    dyt::dyt_forms_agree: "forms that allocate, and that ask for less, give the same bits",
    dyt::dyt_random_problems: "dynamic tanh drawn at random, made small when they fail",
    dyt::dyt_edges: "dynamic tanh of NaN, infinities and nothing",
    dyt::dyt_wrong_arguments: "each wrong argument of a dynamic tanh and its error",
    dyt::dyt_same_bits: "dynamic tanh has the same bits on every schedule and device size",
    dyt::dyt_traffic: "bytes that a dynamic tanh moves, against the least there is",
    dyt::dyt_on_other_architectures: "dynamic tanh without large clusters",
    spectral::spectral_norm_shapes_and_steps: "spectral norms of each shape, step and type against the reference",
    spectral::spectral_norm_extremes: "weights with a spike, large, small and of zeros",
    spectral::spectral_norm_long_rows: "spectral norms of rows beyond a block's registers",
    spectral::spectral_norm_converges: "sigma becomes the first singular value",
    spectral::spectral_norm_forms_agree: "forms that allocate, and that ask for less, give the same bits",
    spectral::spectral_norm_random_problems: "spectral norms drawn at random, made small when they fail",
    spectral::spectral_norm_edges: "weights of zeros and of NaN, and their neighbours untouched",
    spectral::spectral_norm_wrong_arguments: "each wrong argument of a spectral norm and its error",
    spectral::spectral_norm_same_bits: "spectral norms have the same bits on every schedule and device size",
    spectral::spectral_norm_traffic: "bytes that a spectral norm moves, against the least there is",
    spectral::spectral_norm_on_other_architectures: "spectral norms without large clusters",
    tev::tev_tables: "the variability of tables of 1 to 262144 features",
    tev::tev_offsets: "an offset of 1e4 costs the variability no more than its rounding",
    tev::tev_random_problems: "tables drawn at random, made small when they fail",
    tev::tev_edges: "tables with rows that are not finite, and without rows",
    tev::tev_wrong_arguments: "each wrong argument of the variability and its error",
    tev::tev_same_bits: "the variability has the same bits on every schedule and device size",
    tev::tev_traffic: "the table is read once",
    tev::tev_on_other_architectures: "the variability without large clusters",
    quantized::quantised_norms: "each normalization in each format, option and type: the bytes of its f32 results, quantised",
    quantized::quantised_widths: "quantised rows shorter than a block, and longer than registers",
    quantized::quantised_alignments: "quantised rows at each alignment, with what is asked for beside or not",
    quantized::quantised_extremes: "quantised rows that saturate, vanish, or are constant",
    quantized::quantised_same_bits: "quantised rows have the same bits on every schedule and device size",
    quantized::quantised_traffic: "rows are read once, their bytes and scales written once",
    quantized::quantised_on_other_architectures: "quantised rows without large clusters",
    quantized::quantised_dyts: "dynamic tanh in each format, option, type and length: the bytes of its f32 results, quantised",
    quantized::quantised_dyt_bits: "quantised dynamic tanh has the same bits on every schedule, device size and architecture",
    quantized::quantised_dyt_traffic: "dynamic tanh reads rows of every length once, for every format",
);

pub(super) use quantized::workloads as quantized_workloads;

fn refusals(device: &Device) -> Refusals {
    let mut refusals = rows::refusals(device);
    proofs::refuse(Operation::Softmax, device, softmax::REFUSED, &mut refusals);
    proofs::refuse(Operation::Dyt, device, dyt::REFUSED, &mut refusals);
    proofs::refuse(
        Operation::SpectralNorm,
        device,
        spectral::REFUSED,
        &mut refusals,
    );
    proofs::refuse(Operation::Tev, device, tev::REFUSED, &mut refusals);
    proofs::refuse(Operation::Norm, device, quantized::REFUSED, &mut refusals);
    proofs::refuse(
        Operation::Dyt,
        device,
        quantized::DYT_REFUSED,
        &mut refusals,
    );
    refusals
}

/// Those of the operations that have kernels.
fn workloads(quick: bool) -> Vec<Workload> {
    let mut all = rows::workloads(quick);
    let mut add = |operation: Operation, workloads: fn(bool) -> Vec<Workload>| {
        if operation.is_on(DeviceKind::Emulated) {
            all.extend(workloads(quick));
        }
    };
    add(Operation::Softmax, softmax::workloads);
    add(Operation::Dyt, dyt::workloads);
    add(Operation::SpectralNorm, spectral::workloads);
    add(Operation::Tev, tev::workloads);
    add(Operation::Norm, quantized::workloads);
    all
}
