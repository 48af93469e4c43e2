// Waits between blocks, and order across them.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

// The last block to finish adds up what the others left.
template <bool kRight>
void last_block(const Args& p) {
  bool* last = reinterpret_cast<bool*>(dynamic_shared());
  const unsigned t = threadIdx.x;
  if (t == 0) {
    p.out[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
    if (kRight) __threadfence();
    *last = atomicAdd(p.words, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (*last && t == 0) {
    if (kRight) __threadfence();
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += p.out[b];  // last-block
    p.out[gridDim.x] = sum;
  }
}

// A chain: each block waits for its predecessor's flag. Blocks take their place by a ticket, so
// the chain never waits for a block that has not started.
template <bool kRight>
void chain(const Args& p) {
  unsigned* shared = reinterpret_cast<unsigned*>(dynamic_shared());
  if (threadIdx.x == 0) *shared = atomicAdd(p.words, 1u);
  __syncthreads();
  const unsigned place = *shared;
  if (threadIdx.x == 0) {
    float before = 0;
    if (place > 0) {
      while (true) {
        const unsigned flag = kRight ? ld_acquire(p.words + place, kScopeGpu)
                                     : ld_relaxed(p.words + place, kScopeGpu);
        if (flag != 0) break;
      }
      before = p.out[place - 1];  // chain
    }
    p.out[place] = before + 1;
    st_release(p.words + place + 1, 1u, kScopeGpu);
  }
}

// As above, by volatile accesses and fences, as older code does.
void volatile_chain(const Args& p) {
  const unsigned b = blockIdx.x;
  volatile unsigned* flags = p.words;
  if (threadIdx.x == 0) {
    if (b > 0) {
      while (flags[b] == 0) {
      }
      __threadfence();
    }
    p.out[b] = b == 0 ? 1 : p.out[b - 1] * 2;
    __threadfence();
    flags[b + 1] = 1;
  }
}

// A lock of atomics around plain accesses.
template <bool kRight>
void lock(const Args& p) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 3; ++i) {
    while (atomicCAS(p.words, 0u, 1u) != 0u) __nanosleep(20);
    if (kRight) __threadfence();
    p.words[1] += 1;  // lock
    if (kRight) __threadfence();
    atomicExch(p.words, 0u);
  }
}

// A grid-wide barrier: every block waits for all others.
void grid_barrier(const Args& p) {
  p.out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<float>(blockIdx.x);
  __syncthreads();
  if (threadIdx.x == 0) {
    atom_add(p.words, 1u, kAcqRel, kScopeGpu);
    while (ld_acquire(p.words, kScopeGpu) < gridDim.x) {
    }
  }
  __syncthreads();
  const unsigned other = (blockIdx.x + 1) % gridDim.x;
  p.out[(gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x] =
      p.out[other * blockDim.x + threadIdx.x];
}

// A fence of too small a scope.
template <bool kRight>
void scope(const Args& p) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    p.out[0] = 1;
    st_release(p.words, 1u, kRight ? kScopeGpu : kScopeCta);
  } else {
    while (ld_acquire(p.words, kScopeGpu) == 0) {
    }
    p.out[1] = p.out[0];  // scope
  }
}

// Results that depend on the order of blocks, deterministically: a float sum by tickets.
void order(const Args& p) {
  if (threadIdx.x == 0) {
    const unsigned ticket = atomicAdd(p.words, 1u);
    p.out[ticket] = static_cast<float>(blockIdx.x);
  }
}

// Several threads of each block draw tickets: their order within the block counts as well.
void tickets(const Args& p) {
  const unsigned t = threadIdx.x;
  float* values = reinterpret_cast<float*>(dynamic_shared());
  if (t < 16) values[t] = static_cast<float>(t);
  __syncthreads();
  for (int i = 0; i < 2; ++i) {
    const unsigned ticket = atomicAdd(p.words, 1u);
    p.out[ticket] = static_cast<float>(blockIdx.x * 1000 + t) + values[t % 16];
    __syncthreads();
  }
}

// Waits for a block that waits for it.
void embrace(const Args& p) {
  if (threadIdx.x == 0) {
    while (ld_acquire(p.words + (1 - blockIdx.x), kScopeGpu) == 0) {  // embrace
    }
    st_release(p.words + blockIdx.x, 1u, kScopeGpu);
  }
}

}  // namespace

WRONG_AND_RIGHT(last_block)
WRONG_AND_RIGHT(chain)
WRONG_AND_RIGHT(lock)
WRONG_AND_RIGHT(scope)
CUDA_EMULATOR_ENTRY(volatile_chain, Args, volatile_chain)
CUDA_EMULATOR_ENTRY(grid_barrier, Args, grid_barrier)
CUDA_EMULATOR_ENTRY(order, Args, order)
CUDA_EMULATOR_ENTRY(tickets, Args, tickets)
CUDA_EMULATOR_ENTRY(embrace, Args, embrace)

CUDA_EMULATOR_TABLE(test_grid, ROWS(last_block), ROWS(chain), ROWS(lock), ROWS(scope),
                    ROW(volatile_chain), ROW(grid_barrier), ROW(order), ROW(tickets), ROW(embrace))
