// The probability objectives fused with the softmax, portable path: one block a row.
//
// Computes, for each token, the loss, the statistics asked for and the gradient of the logits
// (params.h; the mathematics is src/reference/loss.rs). Never materialised: probabilities, log-
// probabilities, one-hot targets.
//
// Traffic: forward reads the logits once. Forward with gradient reads them twice, the second time
// from L2 where the rows in flight fit it, and writes the gradient once. Backward from a saved
// state reads once and writes once.
//
// Mapping: blocks walk the rows with the grid's stride; a row's 16-byte vectors are dealt to the
// threads in turn, so a warp's accesses are consecutive. Each thread keeps its own running maximum
// and sums; warps merge by shuffles, warp 0 merges the warps in order.

#include "loss/gather.cuh"
#include "loss/scatter.cuh"
#include "loss/summary.cuh"
#include "platform/platform.h"

namespace evenkeel {
namespace {

struct BlockShared {
  RowPartial warps[32];
  RowCoefficients row;
};

template <typename T>
EVENKEEL_DEVICE GlobalVectors vectors_of(const T* logits, const RowShape& shape) {
  return {reinterpret_cast<const unsigned char*>(logits + shape.head)};
}

template <typename T, Moments kMoments>
EVENKEEL_DEVICE RowPartial gather_row(const SoftmaxLossParams& params, const T* logits,
                                      const RowShape& shape, int64_t target) {
  const int rank = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  RowPartial part = gather<T, kMoments>(params, {shape.head, shape.vectors}, target, rank, threads,
                                        vectors_of(logits, shape));
  if (rank < shape.edges) {
    const int column = edge_column<T>(shape, rank);
    part = merge<kMoments>(part,
                           gather_edge<kMoments>(params, to_float(logits[column]), column, target));
  }
  return warp_merge<kMoments>(part, 32);
}

template <typename T, Moments kMoments>
EVENKEEL_DEVICE void reduce_row(const SoftmaxLossParams& params, const T* logits,
                                const RowShape& shape, int64_t target, BlockShared& shared,
                                RowPartial& out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const RowPartial part = gather_row<T, kMoments>(params, logits, shape, target);
  if (lane == 0) shared.warps[warp] = part;
  // Without this barrier warp 0 would merge partials of the row before.
  __syncthreads();
  if (warp == 0) {
    const bool present = lane < static_cast<int>(blockDim.x) / 32;
    out = warp_merge<kMoments>(present ? shared.warps[lane] : empty_partial(), 32);
  }
}

// kFull: with softcap, temperature, class mask, smoothing, entropy and spectral terms.
template <typename T, typename G, bool kFull>
EVENKEEL_DEVICE void block_body(const SoftmaxLossParams& params) {
  BlockShared& shared = *reinterpret_cast<BlockShared*>(platform::dynamic_shared());
  const int rank = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  uint32_t status = 0;

  for (int64_t token = blockIdx.x; token < params.tokens; token += gridDim.x) {
    const T* const logits = static_cast<const T*>(params.logits) + token * params.logits_stride;
    G* const gradient = params.gradient == nullptr
                            ? nullptr
                            : static_cast<G*>(params.gradient) + token * params.gradient_stride;
    uint32_t target_status = 0;
    // One load a warp; thread 0 is the one that reports the status.
    int64_t target = rank % 32 == 0 ? load_target(params, token, target_status) : kNoTarget;
    target = __shfl_sync(0xffffffffu, target, 0);
    status |= target_status;
    if (target == kNoTarget) {
      if (rank == 0 && params.from_state == 0) report_skipped(params, token, target_status);
      if (gradient != nullptr) fill_zero(gradient, 0, params.vocab_padded, rank, threads);
      continue;
    }

    const RowShape shape = row_shape(logits, params.vocab);
    RowPartial part;
    if (params.from_state == 0) {
      if constexpr (kFull) {
        reduce_row<T, Moments::kAll>(params, logits, shape, target, shared, part);
      } else if (params.moments == Moments::kSome) {
        reduce_row<T, Moments::kSome>(params, logits, shape, target, shared, part);
      } else {
        reduce_row<T, Moments::kNone>(params, logits, shape, target, shared, part);
      }
    }
    if (rank == 0) {
      const RowInputs inputs = load_inputs(params, token, target);
      RowSummary summary = {};
      if (params.from_state == 0) {
        summary = summarise(part, target, params.moments);
      } else {
        summary.state = params.state[token];
        summary.inverse_sum = expf(-summary.state.log_sum);
      }
      const RowObjective row = row_objective(params, summary.state, status);
      if (params.from_state == 0) report(params, token, summary, row, inputs);
      shared.row = coefficients(params, summary.state, summary.inverse_sum, row, inputs);
    }
    // Publishes shared.row; also keeps the next row's partials from overtaking warp 0.
    __syncthreads();
    if (gradient == nullptr) continue;

    const RowCoefficients row = shared.row;
    if (row.zero != 0) {
      fill_zero(gradient, 0, params.vocab_padded, rank, threads);
    } else {
      scatter<T, G, !kFull>(params, row, shape, {shape.head, shape.vectors}, gradient, rank,
                            threads, vectors_of(logits, shape));
      if (rank < shape.edges) {
        const int column = edge_column<T>(shape, rank);
        scatter_edge<G, !kFull>(params, row, to_float(logits[column]), column, gradient);
      }
      fill_zero(gradient, params.vocab, params.vocab_padded, rank, threads);
    }
    // The next row's coefficients must not replace these while a thread still reads them.
    __syncthreads();
  }
  if (status != 0 && rank == 0) atomicOr(params.status, status);
}

}  // namespace
}  // namespace evenkeel

// One block a multiprocessor for long rows: 132 rows of 128256 bf16 logits are 34 MB, which an L2
// of 50 MB still holds when the second pass comes; twice as many would not fit. 640 threads leave
// 96 registers each. No measurement chose these yet.
#define SOFTMAX_BLOCK_TYPES(K, T, G, suffix)                                 \
  K(softmax_loss_block_##suffix, evenkeel::SoftmaxLossParams, 640, 1,        \
    (evenkeel::block_body<T, G, false>))                                     \
  K(softmax_loss_block_##suffix##_full, evenkeel::SoftmaxLossParams, 640, 1, \
    (evenkeel::block_body<T, G, true>))
#define SOFTMAX_BLOCK_KERNELS(K)                                    \
  SOFTMAX_BLOCK_TYPES(K, evenkeel::bf16, evenkeel::bf16, bf16_bf16) \
  SOFTMAX_BLOCK_TYPES(K, evenkeel::bf16, float, bf16_f32)           \
  SOFTMAX_BLOCK_TYPES(K, evenkeel::f16, evenkeel::f16, f16_f16)     \
  SOFTMAX_BLOCK_TYPES(K, evenkeel::f16, float, f16_f32)             \
  SOFTMAX_BLOCK_TYPES(K, float, float, f32_f32)

EVENKEEL_EXPORT(loss_softmax_block, SOFTMAX_BLOCK_KERNELS)
