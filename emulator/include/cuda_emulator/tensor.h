// Tensor cores and what feeds them: ldmatrix, mma.sync, copies by a tensor map, wgmma.
#pragma once

#include "types.h"

namespace cuda_emulator {

// 8x8 matrices of 16-bit elements between shared memory and registers; the addresses of matrix i's
// rows come from lanes 8i to 8i + 7.
__forceinline__ void ldmatrix(uint32_t* registers, int count, bool transpose, const void* row) {
  cuda_emulator_matrix(transpose ? code::kLoadMatrixTranspose : code::kLoadMatrix,
                       static_cast<uint32_t>(count), registers, const_cast<void*>(row));
}
__forceinline__ void stmatrix(void* row, int count, bool transpose, const uint32_t* registers) {
  cuda_emulator_matrix(transpose ? code::kStoreMatrixTranspose : code::kStoreMatrix,
                       static_cast<uint32_t>(count), const_cast<uint32_t*>(registers), row);
}

// mma.sync, m16n8 and 32 bytes of K: d += a b^T.
__forceinline__ void mma_m16n8(code::Element a_type, code::Element b_type, float (&d)[4],
                               const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  cuda_emulator_mma(a_type, b_type, d, a, b);
}

// A tensor map, which the host encodes (evenkeel_emulator::TensorMap) and hands over as a
// parameter.
__forceinline__ void prefetch_tensor_map(const void*) {}
__forceinline__ void tensor_load(void* destination, const void* map, uint64_t* bar,
                                 const int32_t* at, int dimensions) {
  cuda_emulator_tensor(code::kTensorLoad, destination, map, bar, at,
                       static_cast<uint32_t>(dimensions), 0);
}
__forceinline__ void tensor_load_multicast(void* destination, const void* map, uint64_t* bar,
                                           const int32_t* at, int dimensions, uint16_t cta_mask) {
  cuda_emulator_tensor(code::kTensorMulticast, destination, map, bar, at,
                       static_cast<uint32_t>(dimensions), cta_mask);
}
__forceinline__ void tensor_store(const void* map, const void* source, const int32_t* at,
                                  int dimensions) {
  cuda_emulator_tensor(code::kTensorStore, const_cast<void*>(source), map, nullptr, at,
                       static_cast<uint32_t>(dimensions), 0);
}
__forceinline__ void tensor_reduce_add(const void* map, const void* source, const int32_t* at,
                                       int dimensions) {
  cuda_emulator_tensor(code::kTensorReduceAdd, const_cast<void*>(source), map, nullptr, at,
                       static_cast<uint32_t>(dimensions), 0);
}

// The address of shared memory as descriptors hold it: counted from the start of the block's.
__forceinline__ uint32_t shared_offset(const void* shared) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(shared) - cuda_emulator_shared());
}
__forceinline__ void wgmma_fence() { cuda_emulator_wgmma_group(code::kWgmmaFence, 0); }
__forceinline__ void wgmma_commit_group() { cuda_emulator_wgmma_group(code::kWgmmaCommit, 0); }
__forceinline__ void wgmma_wait_group(int pending) {
  cuda_emulator_wgmma_group(code::kWgmmaWait, pending);
}
// `d` must stay where it is until the wait; until then it holds NaNs.
__forceinline__ void wgmma(code::Element a_type, code::Element b_type, int columns,
                           bool transpose_a, bool transpose_b, float* d,
                           const uint32_t* a_registers, uint64_t a, uint64_t b, bool accumulate) {
  cuda_emulator_wgmma(a_type, b_type, static_cast<uint32_t>(columns),
                      (transpose_a ? 1u : 0u) | (transpose_b ? 2u : 0u) | (accumulate ? 4u : 0u), d,
                      a_registers, a, b);
}
}  // namespace cuda_emulator
