// Named barriers: sixteen a block, each joined by a whole number of warps.
#pragma once

#include "platform/platform.h"

namespace evenkeel::ptx {

// bar.sync id, threads: waits until `threads` threads (a multiple of 32) have come to barrier `id`;
// orders their accesses to shared and global memory within the block.
EVENKEEL_DEVICE void bar_sync(int id, int threads) {
#if defined(__CUDACC__)
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  cuda_emulator::bar_sync(id, threads);
#endif
}

// bar.arrive id, threads: as bar.sync, without waiting: what this thread wrote is ordered before
// what those who wait do next.
EVENKEEL_DEVICE void bar_arrive(int id, int threads) {
#if defined(__CUDACC__)
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  cuda_emulator::bar_arrive(id, threads);
#endif
}

}  // namespace evenkeel::ptx
