// Asynchronous copies: cp.async, bulk copies (TMA without a tensor map) and st.async. They are
// carried out at a random later point, up to the wait that orders them. Copies by a tensor map are
// in tensor.h.
#pragma once

#include "types.h"

namespace cuda_emulator {

// cp.async of 4, 8 or 16 bytes; bytes past `source_bytes` are filled with zeros.
__forceinline__ void cp_async(void* shared_destination, const void* global_source, int bytes,
                              int source_bytes) {
  cuda_emulator_copy(code::kCpAsync, shared_destination, global_source,
                     static_cast<uint32_t>(bytes), nullptr, static_cast<uint32_t>(source_bytes));
}
__forceinline__ void cp_async(void* shared_destination, const void* global_source, int bytes) {
  cp_async(shared_destination, global_source, bytes, bytes);
}
__forceinline__ void cp_async_commit_group() { cuda_emulator_group(code::kCpCommit, 0, nullptr); }
// Waits until at most `pending` of this thread's most recent groups are unfinished.
__forceinline__ void cp_async_wait_group(int pending) {
  cuda_emulator_group(code::kCpWait, pending, nullptr);
}
// cp.async.mbarrier.arrive: arrives once this thread's earlier cp.async are complete; the pending
// count is raised by one first, so the arrival is not one of those `mbarrier_init` counted.
__forceinline__ void cp_async_mbarrier_arrive(uint64_t* bar) {
  cuda_emulator_group(code::kCpMbarrierArrive, 0, bar);
}
// The .noinc form: the arrival is one of those `mbarrier_init` counted.
__forceinline__ void cp_async_mbarrier_arrive_noinc(uint64_t* bar) {
  cuda_emulator_group(code::kCpMbarrierArriveNoinc, 0, bar);
}

// cp.async.bulk: addresses and sizes are multiples of 16. `bar` receives `bytes` as complete_tx.
__forceinline__ void bulk_copy_global_to_shared(void* destination, const void* source,
                                                uint32_t bytes, uint64_t* bar) {
  cuda_emulator_copy(code::kBulkGlobalToShared, destination, source, bytes, bar, 0);
}
// The same offsets in every block of `cta_mask` receive the data and the complete_tx.
__forceinline__ void bulk_copy_global_to_shared_multicast(void* destination, const void* source,
                                                          uint32_t bytes, uint64_t* bar,
                                                          uint16_t cta_mask) {
  cuda_emulator_copy(code::kBulkMulticast, destination, source, bytes, bar, cta_mask);
}
__forceinline__ void bulk_copy_shared_to_global(void* destination, const void* source,
                                                uint32_t bytes) {
  cuda_emulator_copy(code::kBulkSharedToGlobal, destination, source, bytes, nullptr, 0);
}
__forceinline__ void bulk_commit_group() { cuda_emulator_group(code::kBulkCommit, 0, nullptr); }
__forceinline__ void bulk_wait_group(int pending) {
  cuda_emulator_group(code::kBulkWait, pending, nullptr);
}
// Waits only until the sources have been read.
__forceinline__ void bulk_wait_group_read(int pending) {
  cuda_emulator_group(code::kBulkWaitRead, pending, nullptr);
}
__forceinline__ void bulk_copy_shared_to_shared_cluster(void* remote_destination,
                                                        const void* source, uint32_t bytes,
                                                        uint64_t* remote_bar) {
  cuda_emulator_copy(code::kBulkSharedToShared, remote_destination, source, bytes, remote_bar, 0);
}
// st.async of 4, 8 or 16 bytes; they complete as transaction bytes on `remote_bar`, which lies in
// the same block as the destination.
__forceinline__ void st_async(void* remote_destination, const void* value, int bytes,
                              uint64_t* remote_bar) {
  cuda_emulator_copy(code::kStAsync, remote_destination, value, static_cast<uint32_t>(bytes),
                     remote_bar, 0);
}
}  // namespace cuda_emulator
