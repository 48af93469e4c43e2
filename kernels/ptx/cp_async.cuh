// Copies from global to shared memory by the thread that asks for them (sm_80 on): not ordered
// until their group is waited for, and then for that thread alone; a barrier hands them to others.
#pragma once

#include "platform/platform.h"
#include "ptx/shared_address.cuh"

namespace evenkeel::ptx {

// 16 bytes, both addresses multiples of 16, past L1. Bytes from `source_bytes` on are zeros in
// shared memory, and are not read: at 0 the source need not exist.
EVENKEEL_DEVICE void cp_async_16(void* destination, const void* source,
                                 uint32_t source_bytes = 16) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(destination)),
               "l"(source), "r"(source_bytes)
               : "memory");
#else
  cuda_emulator::cp_async(destination, source, 16, static_cast<int>(source_bytes));
#endif
}

// 4 bytes, both addresses multiples of 4, otherwise as above.
EVENKEEL_DEVICE void cp_async_4(void* destination, const void* source, uint32_t source_bytes = 4) {
#if defined(__CUDACC__)
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(destination)),
               "l"(source), "r"(source_bytes)
               : "memory");
#else
  cuda_emulator::cp_async(destination, source, 4, static_cast<int>(source_bytes));
#endif
}

// Closes the group of this thread's copies since the last one; it may be empty.
EVENKEEL_DEVICE void cp_async_commit_group() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  cuda_emulator::cp_async_commit_group();
#endif
}

// Waits until at most the `kPending` latest of this thread's groups are unfinished.
template <int kPending>
EVENKEEL_DEVICE void cp_async_wait_group() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#else
  cuda_emulator::cp_async_wait_group(kPending);
#endif
}

}  // namespace evenkeel::ptx
