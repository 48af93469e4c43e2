// Sums over a block in a fixed order: lanes by shuffles, then the warps in order.
#pragma once

#include "platform/platform.h"

namespace evenkeel {

template <typename T>
EVENKEEL_DEVICE T warp_sum(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, offset);
  }
  return value;
}

// One number for all lanes of a warp, which reads it once.
template <typename T>
EVENKEEL_DEVICE T warp_load(const T* address) {
  const T value = threadIdx.x % 32 == 0 ? *address : T(0);
  return __shfl_sync(0xffffffffu, value, 0);
}

// The sum over the block, in every thread. `scratch` holds 32 values; blockDim.x is a multiple of
// 32. Two calls may use the same scratch.
template <typename T>
EVENKEEL_DEVICE T block_sum(T value, T* scratch) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned warp = threadIdx.x / 32;
  value = warp_sum(value);
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = T(0);
  for (unsigned w = 0; w < blockDim.x / 32; ++w) value += scratch[w];
  // The scratch may be reused at once.
  __syncthreads();
  return value;
}

}  // namespace evenkeel
