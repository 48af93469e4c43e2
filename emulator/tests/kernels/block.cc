// Barriers of a block, races on shared memory, and what threads must not do to memory.
#include "test_kernel.h"

// Each thread publishes a value and reads its neighbour's.
template <bool kRight>
void neighbour(const Args& p) {
  float* values = reinterpret_cast<float*>(cuda_emulator::dynamic_shared());
  const unsigned t = threadIdx.x;
  values[t] = p.in[blockIdx.x * blockDim.x + t];
  if (kRight) __syncthreads();
  p.out[blockIdx.x * blockDim.x + t] = values[(t + 1) % blockDim.x];  // neighbour-race
}
WRONG_AND_RIGHT(neighbour)

CUDA_EMULATOR_TABLE(test_block, ROWS(neighbour))
