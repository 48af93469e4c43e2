// Shared-memory barriers that count arrivals and bytes (sm_90 on).
#pragma once

#include "platform/platform.h"
#include "ptx/shared_address.cuh"

namespace evenkeel::ptx {

// mbarrier.init: a phase completes after `count` arrivals and when no announced byte is missing.
EVENKEEL_DEVICE void mbarrier_init(uint64_t* barrier, uint32_t count) {
#if defined(__CUDACC__)
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
#else
  cuda_emulator::mbarrier_init(barrier, count);
#endif
}

// fence.mbarrier_init: makes initialised barriers visible to the cluster and the async proxy.
EVENKEEL_DEVICE void fence_mbarrier_init() {
#if defined(__CUDACC__)
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#else
  cuda_emulator::fence_mbarrier_init_cluster();
#endif
}

// mbarrier.arrive (release, block scope).
EVENKEEL_DEVICE void mbarrier_arrive(uint64_t* barrier) {
#if defined(__CUDACC__)
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
#else
  cuda_emulator::mbarrier_arrive(barrier);
#endif
}

// mbarrier.expect_tx: announces `bytes` to the current phase without arriving.
EVENKEEL_DEVICE void mbarrier_expect_tx(uint64_t* barrier, uint32_t bytes) {
#if defined(__CUDACC__)
  asm volatile(
      "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#else
  cuda_emulator::mbarrier_expect_tx(barrier, bytes);
#endif
}

// mbarrier.arrive.expect_tx: announces `bytes` and arrives.
EVENKEEL_DEVICE void mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes) {
#if defined(__CUDACC__)
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#else
  cuda_emulator::mbarrier_arrive_expect_tx(barrier, bytes);
#endif
}

// Waits for the phase of the given parity to complete (acquire, block scope).
EVENKEEL_DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
#if defined(__CUDACC__)
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#else
  while (!cuda_emulator::mbarrier_try_wait_parity(barrier, parity)) {
  }
#endif
}

// As mbarrier_wait, acquiring what other blocks of the cluster wrote.
EVENKEEL_DEVICE void mbarrier_wait_cluster(uint64_t* barrier, uint32_t parity) {
#if defined(__CUDACC__)
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#else
  while (!cuda_emulator::mbarrier_try_wait_parity_cluster(barrier, parity)) {
  }
#endif
}

}  // namespace evenkeel::ptx
