// Barriers, fences and mbarriers.
#pragma once

#include "types.h"

__forceinline__ void __syncthreads() {
  cuda_emulator_barrier(cuda_emulator::code::kSyncthreads, 0, 0, 0);
}
__forceinline__ int __syncthreads_count(int predicate) {
  return static_cast<int>(
      cuda_emulator_barrier(cuda_emulator::code::kSyncthreadsCount, 0, 0, predicate != 0));
}
__forceinline__ int __syncthreads_and(int predicate) {
  return static_cast<int>(
      cuda_emulator_barrier(cuda_emulator::code::kSyncthreadsAnd, 0, 0, predicate != 0));
}
__forceinline__ int __syncthreads_or(int predicate) {
  return static_cast<int>(
      cuda_emulator_barrier(cuda_emulator::code::kSyncthreadsOr, 0, 0, predicate != 0));
}
__forceinline__ void __threadfence_block() { cuda_emulator_fence(cuda_emulator::code::kFenceCta); }
__forceinline__ void __threadfence() { cuda_emulator_fence(cuda_emulator::code::kFenceGpu); }
__forceinline__ void __threadfence_system() { cuda_emulator_fence(cuda_emulator::code::kFenceSys); }

namespace cuda_emulator {

// Named barriers 0..15; `threads` is a multiple of 32.
__forceinline__ void bar_sync(int id, int threads) {
  cuda_emulator_barrier(code::kBarSync, id, threads, 0);
}
__forceinline__ void bar_arrive(int id, int threads) {
  cuda_emulator_barrier(code::kBarArrive, id, threads, 0);
}

__forceinline__ void fence_cluster() { cuda_emulator_fence(code::kFenceCluster); }
// Orders this thread's generic accesses to shared memory before later accesses of the async proxy.
__forceinline__ void fence_proxy_async() { cuda_emulator_fence(code::kFenceProxyAsync); }
// Makes mbarrier_init of this thread visible to the cluster and to the async proxy.
__forceinline__ void fence_mbarrier_init_cluster() {
  cuda_emulator_fence(code::kFenceMbarrierInit);
}

__forceinline__ void mbarrier_init(uint64_t* bar, uint32_t count) {
  cuda_emulator_mbarrier(code::kInit, bar, count, code::kScopeCta);
}
__forceinline__ void mbarrier_inval(uint64_t* bar) {
  cuda_emulator_mbarrier(code::kInval, bar, 0, code::kScopeCta);
}
__forceinline__ uint64_t mbarrier_arrive(uint64_t* bar) {
  return cuda_emulator_mbarrier(code::kArrive, bar, 1, code::kScopeCta);
}
__forceinline__ uint64_t mbarrier_arrive_expect_tx(uint64_t* bar, uint32_t bytes) {
  return cuda_emulator_mbarrier(code::kArriveExpectTx, bar, bytes, code::kScopeCta);
}
__forceinline__ void mbarrier_expect_tx(uint64_t* bar, uint32_t bytes) {
  cuda_emulator_mbarrier(code::kExpectTx, bar, bytes, code::kScopeCta);
}
// `bar` may lie in any block of the cluster (see cluster_map_shared); release at cluster scope.
__forceinline__ void mbarrier_arrive_remote(uint64_t* bar) {
  cuda_emulator_mbarrier(code::kArriveRemote, bar, 1, code::kScopeCluster);
}
__forceinline__ void mbarrier_arrive_remote_expect_tx(uint64_t* bar, uint32_t bytes) {
  cuda_emulator_mbarrier(code::kArriveRemoteExpectTx, bar, bytes, code::kScopeCluster);
}
// True once the phase of this parity is complete; may return false early, so call it in a loop.
__forceinline__ bool mbarrier_try_wait_parity(uint64_t* bar, uint32_t parity) {
  return cuda_emulator_mbarrier(code::kTryWaitParity, bar, parity, code::kScopeCta) != 0;
}
__forceinline__ bool mbarrier_try_wait_parity_cluster(uint64_t* bar, uint32_t parity) {
  return cuda_emulator_mbarrier(code::kTryWaitParity, bar, parity, code::kScopeCluster) != 0;
}
__forceinline__ bool mbarrier_test_wait_parity(uint64_t* bar, uint32_t parity) {
  return cuda_emulator_mbarrier(code::kTestWaitParity, bar, parity, code::kScopeCta) != 0;
}
__forceinline__ bool mbarrier_test_wait_parity_cluster(uint64_t* bar, uint32_t parity) {
  return cuda_emulator_mbarrier(code::kTestWaitParity, bar, parity, code::kScopeCluster) != 0;
}
}  // namespace cuda_emulator
