// The softmax of each row of [rows, columns], one block a row; an example of a kernel under test.
#include "cuda_emulator.h"

struct SoftmaxParams {
  const float* logits;   // [rows, columns]
  float* probabilities;  // [rows, columns]
  long long columns;
};

namespace {

// The sum over the block, in every thread. `parts` holds one float for each warp.
__forceinline__ float block_sum(float value, float* parts) {
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(0xffffffffu, value, d);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += parts[w];
  return sum;
}

__forceinline__ float block_max(float value, float* parts) {
  for (int d = 16; d > 0; d /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, d));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  float most = parts[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) most = fmaxf(most, parts[w]);
  // Without this barrier, block_sum would overwrite `parts` while others still read it.
  __syncthreads();
  return most;
}

void softmax(const SoftmaxParams& p) {
  float* parts = reinterpret_cast<float*>(cuda_emulator::dynamic_shared());
  const float* row = p.logits + blockIdx.x * p.columns;
  float* out = p.probabilities + blockIdx.x * p.columns;
  float most = -INFINITY;
  for (long long i = threadIdx.x; i < p.columns; i += blockDim.x) most = fmaxf(most, row[i]);
  most = block_max(most, parts);
  float sum = 0;
  for (long long i = threadIdx.x; i < p.columns; i += blockDim.x) sum += expf(row[i] - most);
  sum = block_sum(sum, parts);
  for (long long i = threadIdx.x; i < p.columns; i += blockDim.x) {
    out[i] = expf(row[i] - most) / sum;
  }
}

}  // namespace

CUDA_EMULATOR_ENTRY(softmax, SoftmaxParams, softmax)
CUDA_EMULATOR_TABLE(example_softmax, CUDA_EMULATOR_KERNEL(softmax, SoftmaxParams, 1024))
