// The warp's tensor-core product, mma.sync: d[16, 8] += a[16, K] b[8, K]^T in fp32, K = 16 elements
// of 16 bits (sm_80 on) or 32 of 8 (sm_89 on). All 32 lanes take part.
//
// With g = lane / 4 and t = lane % 4, and 4 bytes of K in a register (2 or 4 elements):
//   a[0], a[1]: rows g and g + 8, bytes 4t to 4t + 3;  a[2], a[3]: the same rows, 16 bytes on
//   b[0], b[1]: row g of b (a column of the product), bytes 4t to 4t + 3 and 16 bytes on
//   d[0], d[1]: row g, columns 2t and 2t + 1;  d[2], d[3]: row g + 8
// which is what ldmatrix gives for rows of K.
#pragma once

#include "platform/platform.h"

namespace evenkeel::ptx {

// The element type of a tensor core's operand; the values are the emulator's.
enum class MmaType : uint32_t { kBf16, kF16, kE4m3, kE5m2 };

// Bytes of one element.
template <MmaType kType>
inline constexpr int kMmaElementBytes = kType == MmaType::kBf16 || kType == MmaType::kF16 ? 2 : 1;

// Operands that one instruction multiplies: the same 16-bit type, or any two of the 8-bit ones.
template <MmaType kA, MmaType kB>
inline constexpr bool kMmaTypesMatch = kA == kB || kMmaElementBytes<kA> + kMmaElementBytes<kB> == 2;

#if defined(__CUDACC__)
// The words of an instruction's name.
template <MmaType kType>
struct MmaWord;
template <>
struct MmaWord<MmaType::kBf16> {
  static constexpr char kName[] = "bf16";
  static constexpr char kK[] = "16";
};
template <>
struct MmaWord<MmaType::kF16> {
  static constexpr char kName[] = "f16";
  static constexpr char kK[] = "16";
};
template <>
struct MmaWord<MmaType::kE4m3> {
  static constexpr char kName[] = "e4m3";
  static constexpr char kK[] = "32";
};
template <>
struct MmaWord<MmaType::kE5m2> {
  static constexpr char kName[] = "e5m2";
  static constexpr char kK[] = "32";
};
#endif

// d += a b^T for 32 bytes of K.
template <MmaType kA, MmaType kB = kA>
EVENKEEL_DEVICE void mma_m16n8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(kMmaTypesMatch<kA, kB>);
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k%10.row.col.f32.%11.%12.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "C"(MmaWord<kA>::kK),
        "C"(MmaWord<kA>::kName), "C"(MmaWord<kB>::kName));
#else
  cuda_emulator::mma_m16n8(static_cast<cuda_emulator::code::Element>(kA),
                           static_cast<cuda_emulator::code::Element>(kB), d, a, b);
#endif
}

}  // namespace evenkeel::ptx
