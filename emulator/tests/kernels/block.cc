// Barriers of a block, and races on its shared memory.
#include "test_kernel.h"

namespace {

__forceinline__ float* shared_floats() {
  return reinterpret_cast<float*>(cuda_emulator::dynamic_shared());
}

// Each thread publishes a value and reads its neighbour's.
template <bool kRight>
void neighbour(const Args& p) {
  float* values = shared_floats();
  const unsigned t = threadIdx.x;
  values[t] = p.in[blockIdx.x * blockDim.x + t];
  if (kRight) __syncthreads();
  p.out[blockIdx.x * blockDim.x + t] = values[(t + 1) % blockDim.x];  // neighbour-race
}

// Two rounds through the same array: the second write must wait for the first reads.
template <bool kRight>
void reuse(const Args& p) {
  float* values = shared_floats();
  const unsigned t = threadIdx.x;
  values[t] = p.in[t];
  __syncthreads();
  float sum = values[(t + 1) % blockDim.x];
  if (kRight) __syncthreads();
  values[t] = sum;  // reuse-race
  __syncthreads();
  p.out[t] = values[(t + 1) % blockDim.x];
}

// Lanes exchange through memory: a shuffle between write and read orders nothing.
template <bool kRight>
void lanes(const Args& p) {
  float* values = shared_floats();
  const unsigned t = threadIdx.x;
  values[t] = p.in[t];
  const unsigned lane = __shfl_sync(0xffffffffu, t, (t + 1) % 32);
  if (kRight) __syncwarp();
  p.out[t] = values[lane];  // lanes-race
}

// Half of a block skips a barrier by leaving.
template <bool kRight>
void leaves(const Args& p) {
  const unsigned t = threadIdx.x;
  const bool idle = t >= 32;
  if (!kRight && idle) return;
  __syncthreads();  // leaves-divergence
  if (!idle) p.out[t] = p.in[t];
}

// Two branches, a barrier in each.
template <bool kRight>
void branches(const Args& p) {
  const unsigned t = threadIdx.x;
  if (kRight || t < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  p.out[t] = p.in[t];
}

// A warp waits at a named barrier for threads that never come.
template <bool kRight>
void named_deadlock(const Args& p) {
  const unsigned t = threadIdx.x;
  if (t < 32 || kRight) cuda_emulator::bar_sync(3, 64);  // named-deadlock
  p.out[t] = p.in[t];
}

// A producer warp fills, a consumer warp reads; the named barriers hand over.
template <bool kRight>
void hand_over(const Args& p) {
  float* values = shared_floats();
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int round = 0; round < (kRight ? 4 : 1); ++round) {
    if (warp == 0) {
      cuda_emulator::bar_sync(2, 64);  // empty
      values[lane] = p.in[round * 32 + lane];
      if (kRight) cuda_emulator::bar_arrive(1, 64);  // full
    } else {
      cuda_emulator::bar_arrive(2, 64);
      if (kRight) cuda_emulator::bar_sync(1, 64);
      p.out[round * 32 + lane] = values[31 - lane];
    }
  }
}

template <bool kRight>
void odd_count(const Args& p) {
  cuda_emulator::bar_sync(1, kRight ? 64 : 40);  // odd-count
  p.out[threadIdx.x] = 1;
}

template <bool kRight>
void counts_differ(const Args& p) {
  cuda_emulator::bar_sync(1, kRight || threadIdx.x < 32 ? 96 : 64);
  p.out[threadIdx.x] = 1;
}

// Shared memory nobody wrote.
template <bool kRight>
void unwritten(const Args& p) {
  float* values = shared_floats();
  const unsigned t = threadIdx.x;
  if (kRight || t != 7) values[t] = p.in[t];
  __syncthreads();
  p.out[t] = values[t];  // unwritten-read
}

void reducing(const Args& p) {
  const int t = static_cast<int>(threadIdx.x);
  p.words[t] = static_cast<unsigned>(
      __syncthreads_count(t % 3 == 0) * 10000 + __syncthreads_and(t >= 0) * 1000 +
      __syncthreads_or(t < 0) * 100 + __syncthreads_and(t > 0) * 10 + __syncthreads_or(t == 5));
}

// Endless, and waiting for nobody.
template <bool kRight>
void endless(const Args& p) {
  unsigned x = threadIdx.x;
  while (kRight ? x < 100 : x != 0xffffffffu - 1) x = x * 2 + 1 + (x == 0xffffffffu);  // endless
  p.out[threadIdx.x] = static_cast<float>(x);
}

template <bool kRight>
void traps(const Args& p) {
  assert(kRight || p.n == 12345);  // traps
  p.out[threadIdx.x] = 1;
}

__noinline__ float deep(volatile float* x, int n) {  // recursion
  volatile float frame[64];
  frame[n % 64] = *x;
  return n == 0 ? frame[0] : deep(x, n - 1) + frame[n % 64];
}
template <bool kRight>
void recursion(const Args& p) {
  volatile float x = 1;
  p.out[threadIdx.x] = deep(&x, kRight ? 3 : 1000000);
}

}  // namespace

WRONG_AND_RIGHT(neighbour)
WRONG_AND_RIGHT(reuse)
WRONG_AND_RIGHT(lanes)
WRONG_AND_RIGHT(leaves)
WRONG_AND_RIGHT(branches)
WRONG_AND_RIGHT(named_deadlock)
WRONG_AND_RIGHT(hand_over)
WRONG_AND_RIGHT(odd_count)
WRONG_AND_RIGHT(counts_differ)
WRONG_AND_RIGHT(unwritten)
CUDA_EMULATOR_ENTRY(reducing, Args, reducing)
WRONG_AND_RIGHT(endless)
WRONG_AND_RIGHT(traps)
WRONG_AND_RIGHT(recursion)

CUDA_EMULATOR_TABLE(test_block, ROWS(neighbour), ROWS(reuse), ROWS(lanes), ROWS(leaves),
                    ROWS(branches), ROWS(named_deadlock), ROWS(hand_over), ROWS(odd_count),
                    ROWS(counts_differ), ROWS(unwritten), ROW(reducing), ROWS(endless), ROWS(traps),
                    ROWS(recursion))
