// The copy engine: cp.async.bulk (sm_90 on). Addresses and sizes are multiples of 16 bytes.
#pragma once

#include "platform/platform.h"
#include "ptx/shared_address.cuh"

namespace evenkeel::ptx {

// Global to this block's shared memory; `bytes` complete on `barrier`, which must expect them.
EVENKEEL_DEVICE void bulk_copy_global_to_shared(void* destination, const void* source,
                                                uint32_t bytes, uint64_t* barrier) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(destination)),
      "l"(source), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#else
  cuda_emulator::bulk_copy_global_to_shared(destination, source, bytes, barrier);
#endif
}

}  // namespace evenkeel::ptx
