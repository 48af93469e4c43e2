// Clusters of blocks and their distributed shared memory (sm_90 on).
#pragma once

#include "platform/platform.h"
#include "ptx/shared_address.cuh"

namespace evenkeel::ptx {

// This block's rank in its cluster: %cluster_ctarank.
EVENKEEL_DEVICE uint32_t cluster_ctarank() {
#if defined(__CUDACC__)
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return cuda_emulator::cluster_ctarank();
#endif
}

// Blocks in a cluster: %cluster_nctarank.
EVENKEEL_DEVICE uint32_t cluster_nctarank() {
#if defined(__CUDACC__)
  uint32_t count;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(count));
  return count;
#else
  return cuda_emulator::cluster_nctarank();
#endif
}

// All threads of all blocks of the cluster: barrier.cluster, arrive (release) and wait (acquire).
EVENKEEL_DEVICE void cluster_sync() {
#if defined(__CUDACC__)
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
#else
  cuda_emulator::cluster_arrive(true);
  cuda_emulator::cluster_wait(true);
#endif
}

// The two halves of cluster_sync: work between them overlaps the wait. Every thread of every block
// calls each.
EVENKEEL_DEVICE void cluster_arrive() {
#if defined(__CUDACC__)
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#else
  cuda_emulator::cluster_arrive(true);
#endif
}
EVENKEEL_DEVICE void cluster_wait() {
#if defined(__CUDACC__)
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  cuda_emulator::cluster_wait(true);
#endif
}

// Stores 16 bytes into block `rank`'s shared memory, at the place where `own_destination` lies in
// this block's; the bytes complete on that block's barrier at the place of `own_barrier`:
// st.async.
EVENKEEL_DEVICE void store_async_16(uint4* own_destination, uint4 value, uint64_t* own_barrier,
                                    uint32_t rank) {
#if defined(__CUDACC__)
  asm volatile(
      "{\n"
      ".reg .b32 remote_destination, remote_barrier;\n"
      "mapa.shared::cluster.u32 remote_destination, %0, %6;\n"
      "mapa.shared::cluster.u32 remote_barrier, %5, %6;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [remote_destination], "
      "{%1, %2, %3, %4}, [remote_barrier];\n"
      "}\n" ::"r"(shared_address(own_destination)),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(shared_address(own_barrier)),
      "r"(rank)
      : "memory");
#else
  cuda_emulator::st_async(
      cuda_emulator::cluster_map_shared(own_destination, rank), &value, sizeof(value),
      static_cast<uint64_t*>(cuda_emulator::cluster_map_shared(own_barrier, rank)));
#endif
}

// Arrives on block `rank`'s barrier at the place of `own_barrier`. Says that values were read: the
// loads have returned when their values were used, so the wider release.cluster form, which waits
// for every store of the warp to be performed, would only cost time.
EVENKEEL_DEVICE void mbarrier_arrive_remote(uint64_t* own_barrier, uint32_t rank) {
#if defined(__CUDACC__)
  asm volatile(
      "{\n"
      ".reg .b32 remote_barrier;\n"
      "mapa.shared::cluster.u32 remote_barrier, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote_barrier];\n"
      "}\n" ::"r"(shared_address(own_barrier)),
      "r"(rank)
      : "memory");
#else
  cuda_emulator::mbarrier_arrive_remote(
      static_cast<uint64_t*>(cuda_emulator::cluster_map_shared(own_barrier, rank)));
#endif
}

}  // namespace evenkeel::ptx
