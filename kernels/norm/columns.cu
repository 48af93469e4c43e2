// The second stage of the gradients of weights: sums of partial sums, in their order.
//
// Traffic: the partial sums once, a few megabytes that the first stage left in L2. A block has 32
// columns; its warps take the slices in turn, and their sums are added in the order of the warps.

#include "common/block_reduce.cuh"
#include "norm/params.h"
#include "platform/platform.h"

namespace evenkeel {
namespace {

inline constexpr uint32_t kMaxWarps = 16;

struct ColumnShared {
  float warps[kMaxWarps][32];
};

EVENKEEL_DEVICE void column_sum(const ColumnSumParams& params) {
  ColumnShared& shared = *reinterpret_cast<ColumnShared*>(platform::dynamic_shared());
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t warps = blockDim.x / 32;
  const uint32_t blocks_of_group = (params.columns + 31) / 32;
  const uint32_t group = blockIdx.x / blocks_of_group;
  const uint32_t column = blockIdx.x % blocks_of_group * 32 + lane;
  const float* const partial =
      params.partial + static_cast<uint64_t>(group) * params.slices * params.columns;
  float sum = 0.0f;
  if (column < params.columns) {
#pragma unroll 4
    for (uint32_t s = warp; s < params.slices; s += warps) {
      sum += partial[static_cast<uint64_t>(s) * params.columns + column];
    }
  }
  shared.warps[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= params.columns) return;
  for (uint32_t w = 1; w < warps; ++w) sum += shared.warps[w][lane];
  float* const out = params.out + static_cast<uint64_t>(group) * params.columns + column;
  *out = params.accumulate != 0 ? *out + sum : sum;
}

// One number: the sum over all columns of one group's only slice.
EVENKEEL_DEVICE void vector_sum(const ColumnSumParams& params) {
  float* const scratch = reinterpret_cast<float*>(platform::dynamic_shared());
  float sum = 0.0f;
  for (uint32_t i = threadIdx.x; i < params.columns; i += blockDim.x) sum += params.partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *params.out = params.accumulate != 0 ? *params.out + sum : sum;
}

}  // namespace
}  // namespace evenkeel

#define NORM_COLUMN_KERNELS(K)                                                  \
  K(norm_column_sum, evenkeel::ColumnSumParams, 512, 1, (evenkeel::column_sum)) \
  K(norm_vector_sum, evenkeel::ColumnSumParams, 512, 1, (evenkeel::vector_sum))

EVENKEEL_EXPORT(norm_columns, NORM_COLUMN_KERNELS)
