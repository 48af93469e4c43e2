// Between shared memory and the registers of tensor-core operands: 8x8 matrices of 16-bit elements
// (or 8 rows of 16 bytes, whatever they hold). All 32 lanes take part.
//
// Lanes 8i to 8i + 7 give the addresses of the rows of matrix i, 16 bytes each and 16-byte aligned.
// Register i of lane l holds elements 2(l % 4) and 2(l % 4) + 1 of row l / 4 of matrix i; with
// kTranspose of column l / 4.
#pragma once

#include "platform/platform.h"
#include "ptx/shared_address.cuh"

namespace evenkeel::ptx {

// ldmatrix.m8n8.x{1,2,4}{.trans}.b16 (sm_75 on).
template <int kCount, bool kTranspose = false>
EVENKEEL_DEVICE void ldmatrix(uint32_t (&registers)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
#if defined(__CUDACC__)
  const uint32_t address = shared_address(row);
  if constexpr (kCount == 1 && !kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 2 && !kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (!kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  }
#else
  cuda_emulator::ldmatrix(registers, kCount, kTranspose, row);
#endif
}

// stmatrix.m8n8.x{1,2,4}{.trans}.b16 (sm_90 on).
template <int kCount, bool kTranspose = false>
EVENKEEL_DEVICE void stmatrix(void* row, const uint32_t (&registers)[kCount]) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
#if defined(__CUDACC__)
  const uint32_t address = shared_address(row);
  if constexpr (kCount == 1 && !kTranspose) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(address),
                 "r"(registers[0])
                 : "memory");
  } else if constexpr (kCount == 1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(address),
                 "r"(registers[0])
                 : "memory");
  } else if constexpr (kCount == 2 && !kTranspose) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(address),
                 "r"(registers[0]), "r"(registers[1])
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address),
                 "r"(registers[0]), "r"(registers[1])
                 : "memory");
  } else if constexpr (!kTranspose) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(registers[0]), "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
                 : "memory");
  } else {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(registers[0]), "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
        : "memory");
  }
#else
  cuda_emulator::stmatrix(row, kCount, kTranspose, registers);
#endif
}

}  // namespace evenkeel::ptx
