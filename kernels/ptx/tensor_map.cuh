// Tiles of tensors in global memory, moved by the copy engine as a tensor map describes them (sm_90
// on). Coordinates count elements, the innermost dimension first; elements outside the tensor read
// as zeros and are not written. One thread asks for a copy.
#pragma once

#include "platform/platform.h"
#include "ptx/shared_address.cuh"

namespace evenkeel::ptx {

// A tensor, its box and its swizzle, encoded by the host. A member of the kernel's parameters,
// passed on by reference: the copy engine reads it there.
struct alignas(64) TensorMap {
  uint64_t words[16];
};

// Fetches the map ahead of its first use.
EVENKEEL_DEVICE void prefetch_tensor_map(const TensorMap& map) {
#if defined(__CUDACC__)
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#else
  cuda_emulator::prefetch_tensor_map(&map);
#endif
}

// How long L2 keeps what a copy touches; made once a thread.
EVENKEEL_DEVICE uint64_t l2_evict_first() {
#if defined(__CUDACC__)
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#else
  return 0;
#endif
}
EVENKEEL_DEVICE uint64_t l2_evict_last() {
#if defined(__CUDACC__)
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#else
  return 0;
#endif
}

// The box at (c0, c1) into this block's shared memory, 128-byte aligned (1024 with a 128-byte
// swizzle); all its bytes, those outside the tensor included, complete on `barrier`.
EVENKEEL_DEVICE void tensor_load_2d(void* destination, const TensorMap& map, uint64_t* barrier,
                                    int32_t c0, int32_t c1) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(destination)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1)
      : "memory");
#else
  const int32_t at[] = {c0, c1};
  cuda_emulator::tensor_load(destination, &map, barrier, at, 2);
#endif
}

// With a policy for L2.
EVENKEEL_DEVICE void tensor_load_2d(void* destination, const TensorMap& map, uint64_t* barrier,
                                    int32_t c0, int32_t c1, [[maybe_unused]] uint64_t l2_policy) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(destination)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "l"(l2_policy)
      : "memory");
#else
  tensor_load_2d(destination, map, barrier, c0, c1);
#endif
}

EVENKEEL_DEVICE void tensor_load_3d(void* destination, const TensorMap& map, uint64_t* barrier,
                                    int32_t c0, int32_t c1, int32_t c2) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(destination)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
#else
  const int32_t at[] = {c0, c1, c2};
  cuda_emulator::tensor_load(destination, &map, barrier, at, 3);
#endif
}

// The same box into every block of the cluster whose rank has its bit in `blocks`, at the place
// where `destination` lies in this one; the bytes complete on each one's barrier at the place of
// `barrier`.
EVENKEEL_DEVICE void tensor_load_2d_multicast(void* destination, const TensorMap& map,
                                              uint64_t* barrier, int32_t c0, int32_t c1,
                                              uint16_t blocks) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(destination)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "h"(blocks)
      : "memory");
#else
  const int32_t at[] = {c0, c1};
  cuda_emulator::tensor_load_multicast(destination, &map, barrier, at, 2, blocks);
#endif
}

EVENKEEL_DEVICE void tensor_load_3d_multicast(void* destination, const TensorMap& map,
                                              uint64_t* barrier, int32_t c0, int32_t c1, int32_t c2,
                                              uint16_t blocks) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(destination)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2), "h"(blocks)
      : "memory");
#else
  const int32_t at[] = {c0, c1, c2};
  cuda_emulator::tensor_load_multicast(destination, &map, barrier, at, 3, blocks);
#endif
}

// This block's shared memory to the box at (c0, c1). Writes made by st.shared come after
// fence_proxy_async and a barrier. Part of the thread's bulk group.
EVENKEEL_DEVICE void tensor_store_2d(const TensorMap& map, const void* source, int32_t c0,
                                     int32_t c1) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(
          &map),
      "r"(shared_address(source)), "r"(c0), "r"(c1)
      : "memory");
#else
  const int32_t at[] = {c0, c1};
  cuda_emulator::tensor_store(&map, source, at, 2);
#endif
}

EVENKEEL_DEVICE void tensor_store_3d(const TensorMap& map, const void* source, int32_t c0,
                                     int32_t c1, int32_t c2) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
          &map),
      "r"(shared_address(source)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
#else
  const int32_t at[] = {c0, c1, c2};
  cuda_emulator::tensor_store(&map, source, at, 3);
#endif
}

// Adds the tile to the box instead; each element's addition is atomic, in no fixed order among
// copies. The map's type is f32.
EVENKEEL_DEVICE void tensor_reduce_add_2d(const TensorMap& map, const void* source, int32_t c0,
                                          int32_t c1) {
#if defined(__CUDACC__)
  asm volatile(
      "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group "
      "[%0, {%2, %3}], [%1];" ::"l"(&map),
      "r"(shared_address(source)), "r"(c0), "r"(c1)
      : "memory");
#else
  const int32_t at[] = {c0, c1};
  cuda_emulator::tensor_reduce_add(&map, source, at, 2);
#endif
}

// Orders this thread's earlier accesses of shared memory, and what it has acquired of others',
// before later accesses of the copy engine and of wgmma: fence.proxy.async.
EVENKEEL_DEVICE void fence_proxy_async() {
#if defined(__CUDACC__)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  cuda_emulator::fence_proxy_async();
#endif
}

// Closes the group of this thread's stores since the last one.
EVENKEEL_DEVICE void bulk_commit_group() {
#if defined(__CUDACC__)
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
  cuda_emulator::bulk_commit_group();
#endif
}

// Waits until at most the `kPending` latest of this thread's groups are unfinished.
template <int kPending>
EVENKEEL_DEVICE void bulk_wait_group() {
#if defined(__CUDACC__)
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
#else
  cuda_emulator::bulk_wait_group(kPending);
#endif
}

// Waits only until their sources may be overwritten.
template <int kPending>
EVENKEEL_DEVICE void bulk_wait_group_read() {
#if defined(__CUDACC__)
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
#else
  cuda_emulator::bulk_wait_group_read(kPending);
#endif
}

}  // namespace evenkeel::ptx
