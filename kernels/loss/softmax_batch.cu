// What a batch of token losses needs around the row kernels: the scale of each token's loss before
// them, the reduced loss and the counts after them, and the scaling of a gradient whose denominator
// was known only then.
//
// - softmax_loss_scale: scale = 1 / denominator, from the targets (Valid, Sequence), the count
//   given (Tokens) or the saved states (Kept, in backward); a denominator of 0 gives 0.
// - softmax_loss_reduce: loss = sum_t scale_t loss_t; counts of valid, kept and correct tokens; for
//   Kept, the scale of the gradient.
// - softmax_loss_rescale: gradient *= scale on the rows that were kept.
//
// Traffic: one read of targets (twice for Sequence), losses and flags: kilobytes.
// Mapping: one block for the first two, so that the order of the sums is fixed; blocks take the
// rows in turn for the third.

#include "common/block_reduce.cuh"
#include "loss/row.cuh"
#include "platform/platform.h"

namespace evenkeel {
namespace {

EVENKEEL_DEVICE float reciprocal_or_zero(float divisor) {
  return divisor != 0.0f ? 1.0f / divisor : 0.0f;
}

EVENKEEL_DEVICE uint32_t is_counted(const SoftmaxReduceParams& params, int64_t token) {
  return load_integer(params.targets, params.target_type, token) != params.ignore_index ? 1u : 0u;
}

// Targets that are not ignored in [begin, end), by one warp; the count in every lane.
EVENKEEL_DEVICE uint32_t warp_count(const SoftmaxReduceParams& params, int64_t begin, int64_t end) {
  uint32_t count = 0;
  for (int64_t token = begin + threadIdx.x % 32; token < end; token += 32) {
    count += is_counted(params, token);
  }
  return __shfl_sync(0xffffffffu, warp_sum(count), 0);
}

// loss = mean over the sequences with tokens of (mean over their tokens).
EVENKEEL_DEVICE void sequence_scale(const SoftmaxReduceParams& params, uint32_t* scratch) {
  const int64_t rank = threadIdx.x;
  const int64_t warp = rank / 32;
  const int64_t warps = blockDim.x / 32;
  const auto offset = [&](int64_t s) {
    return load_integer(params.offsets, params.offset_type, s);
  };
  bool bad = false;
  for (int64_t s = rank; s <= params.sequences; s += blockDim.x) {
    const int64_t at = offset(s);
    bad |= at < 0 || at > params.tokens || (s > 0 && offset(s - 1) > at);
  }
  // Sequences that overlap or leave the batch would be written twice or outside it.
  if (__syncthreads_or(bad)) {
    for (int64_t token = rank; token < params.tokens; token += blockDim.x) {
      params.scale[token] = 0.0f;
    }
    if (rank == 0) atomicOr(params.status, static_cast<uint32_t>(kBadSequenceOffsets));
    return;
  }
  uint32_t nonempty = 0;
  for (int64_t s = warp; s < params.sequences; s += warps) {
    nonempty += warp_count(params, offset(s), offset(s + 1)) > 0 ? 1u : 0u;
  }
  const uint32_t sequences = block_sum(rank % 32 == 0 ? nonempty : 0u, scratch);
  for (int64_t s = warp; s < params.sequences; s += warps) {
    const int64_t begin = offset(s);
    const int64_t end = offset(s + 1);
    const uint32_t count = warp_count(params, begin, end);
    const float scale =
        reciprocal_or_zero(static_cast<float>(count) * static_cast<float>(sequences));
    for (int64_t token = begin + rank % 32; token < end; token += 32) params.scale[token] = scale;
  }
  // Tokens of no sequence take no part.
  const int64_t first = params.sequences > 0 ? offset(0) : params.tokens;
  const int64_t last = params.sequences > 0 ? offset(params.sequences) : params.tokens;
  for (int64_t token = rank; token < first; token += blockDim.x) params.scale[token] = 0.0f;
  for (int64_t token = last + rank; token < params.tokens; token += blockDim.x) {
    params.scale[token] = 0.0f;
  }
}

EVENKEEL_DEVICE void scale_body(const SoftmaxReduceParams& params) {
  uint32_t* const scratch = reinterpret_cast<uint32_t*>(platform::dynamic_shared());
  if (params.denominator == kSequence) {
    sequence_scale(params, scratch);
    return;
  }
  float divisor = 1.0f;
  if (params.denominator == kValid) {
    uint32_t count = 0;
    for (int64_t token = threadIdx.x; token < params.tokens; token += blockDim.x) {
      count += is_counted(params, token);
    }
    divisor = static_cast<float>(block_sum(count, scratch));
  } else if (params.denominator == kKept) {
    // Only backward asks: in forward the count is known after the rows.
    uint32_t count = 0;
    for (int64_t token = threadIdx.x; token < params.tokens; token += blockDim.x) {
      count += params.state[token].kept != 0.0f ? 1u : 0u;
    }
    divisor = static_cast<float>(block_sum(count, scratch));
  } else if (params.denominator == kTokens) {
    divisor = params.tokens_divisor != nullptr ? *params.tokens_divisor : params.host_divisor;
  }
  if (threadIdx.x == 0) *params.scale = reciprocal_or_zero(divisor);
}

struct ReduceShared {
  float floats[32];
  uint32_t integers[32];
};

EVENKEEL_DEVICE void reduce_body(const SoftmaxReduceParams& params) {
  ReduceShared& shared = *reinterpret_cast<ReduceShared*>(platform::dynamic_shared());
  uint32_t valid = 0, kept = 0, correct = 0;
  for (int64_t token = threadIdx.x; token < params.tokens; token += blockDim.x) {
    const uint32_t flags = params.flags[token];
    valid += (flags & kRowValid) != 0 ? 1u : 0u;
    kept += (flags & kRowKept) != 0 ? 1u : 0u;
    correct += (flags & kRowCorrect) != 0 ? 1u : 0u;
  }
  valid = block_sum(valid, shared.integers);
  kept = block_sum(kept, shared.integers);
  correct = block_sum(correct, shared.integers);

  float batch_scale = 1.0f;
  const bool per_token = params.denominator == kSequence;
  if (params.denominator == kKept) {
    batch_scale = reciprocal_or_zero(static_cast<float>(kept));
  } else if (!per_token && params.scale != nullptr) {
    batch_scale = threadIdx.x % 32 == 0 ? *params.scale : 0.0f;
    batch_scale = __shfl_sync(0xffffffffu, batch_scale, 0);
  }
  // Each loss is scaled before it is added: a sum of losses may leave the range where their mean
  // does not.
  float sum = 0.0f;
  for (int64_t token = threadIdx.x; token < params.tokens; token += blockDim.x) {
    const float scale = per_token ? params.scale[token] : batch_scale;
    // A token of no sequence counts nothing, be its loss NaN.
    sum += scale == 0.0f ? 0.0f : params.loss[token] * scale;
  }
  sum = block_sum(sum, shared.floats);
  if (threadIdx.x != 0) return;
  *params.reduced_loss = sum;
  params.counts[0] = valid;
  params.counts[1] = kept;
  params.counts[2] = correct;
  if (params.denominator == kKept && params.gradient_scale != nullptr) {
    *params.gradient_scale = batch_scale * (params.upstream != nullptr ? *params.upstream : 1.0f);
  }
}

template <typename G>
EVENKEEL_DEVICE void rescale_body(const ScaleGradientParams& params) {
  const float factor = *params.factor;
  const int rank = static_cast<int>(threadIdx.x);
  for (int64_t token = blockIdx.x; token < params.tokens; token += gridDim.x) {
    // The other rows are zeros already.
    if (params.kept[token] == 0) continue;
    G* const row = static_cast<G*>(params.gradient) + token * params.stride;
    const RowShape shape = row_shape(row, params.vocab);
    G* const middle = row + shape.head;
    for (int v = rank; v < shape.vectors; v += static_cast<int>(blockDim.x)) {
      constexpr int kCount = kVectorElements<G>;
      G* const at = middle + static_cast<int64_t>(v) * kCount;
      float x[kCount];
      unpack(ptx::load_global<uint4>(at), x, G{});
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] *= factor;
      ptx::store_global(at, pack(x, G{}));
    }
    if (rank < shape.edges) {
      G* const at = row + edge_column<G>(shape, rank);
      *at = from_float<G>(to_float(*at) * factor);
    }
  }
}

}  // namespace
}  // namespace evenkeel

#define SOFTMAX_BATCH_KERNELS(K)                                                         \
  K(softmax_loss_scale, evenkeel::SoftmaxReduceParams, 512, 1, (evenkeel::scale_body))   \
  K(softmax_loss_reduce, evenkeel::SoftmaxReduceParams, 512, 1, (evenkeel::reduce_body)) \
  K(softmax_loss_rescale_bf16, evenkeel::ScaleGradientParams, 512, 2,                    \
    (evenkeel::rescale_body<evenkeel::bf16>))                                            \
  K(softmax_loss_rescale_f16, evenkeel::ScaleGradientParams, 512, 2,                     \
    (evenkeel::rescale_body<evenkeel::f16>))                                             \
  K(softmax_loss_rescale_f32, evenkeel::ScaleGradientParams, 512, 2,                     \
    (evenkeel::rescale_body<float>))

EVENKEEL_EXPORT(loss_softmax_batch, SOFTMAX_BATCH_KERNELS)
