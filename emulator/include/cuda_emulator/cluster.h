// Dynamic shared memory, clusters and distributed shared memory.
#pragma once

#include "types.h"

namespace cuda_emulator {

// The block's shared memory, 1024-byte aligned.
__forceinline__ unsigned char* dynamic_shared() { return cuda_emulator_shared(); }
__forceinline__ uint32_t dynamic_shared_bytes() { return cuda_emulator_shared_bytes(); }

__forceinline__ uint32_t cluster_ctarank() { return cuda_emulator_cluster_rank(); }
__forceinline__ uint32_t cluster_nctarank() {
  const uint3 d = cuda_emulator_cluster_dim();
  return d.x * d.y * d.z;
}
__forceinline__ uint32_t cluster_id_x() { return cuda_emulator_cluster_index().x; }
__forceinline__ uint32_t ncluster_x() { return cuda_emulator_cluster_grid().x; }

// The address in the shared memory of block `rank` that corresponds to `own_shared` in this one.
__forceinline__ void* cluster_map_shared(void* own_shared, uint32_t rank) {
  return cuda_emulator_map_shared(own_shared, rank);
}
// barrier.cluster.arrive{.release,.relaxed} and .wait{.acquire,.relaxed}.
__forceinline__ void cluster_arrive(bool release = true) {
  cuda_emulator_cluster_barrier(code::kClusterArrive, release);
}
__forceinline__ void cluster_wait(bool acquire = true) {
  cuda_emulator_cluster_barrier(code::kClusterWait, acquire);
}

// By all warps of a warpgroup, a multiple of 8 from 24 to 256. An increase waits until other
// warpgroups of the block have given back enough of the multiprocessor's registers.
__forceinline__ void setmaxnreg(int count, bool increase) {
  cuda_emulator_setmaxnreg(count, increase);
}
__forceinline__ void nanosleep(unsigned nanoseconds) { cuda_emulator_pause(nanoseconds); }
}  // namespace cuda_emulator
