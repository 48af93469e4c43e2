// Conversions between fp32 and the 8- and 4-bit elements, round to nearest even, saturating to the
// largest finite number; NaN becomes the canonical one (0x7f) in the 8-bit types, and has no
// counterpart in E2M1. By the instruction where the architecture has it, elsewhere by the same
// arithmetic on bits that the emulator runs: both give the same bits (OCP 8-bit floating point; MX
// v1.0 for E2M1).
//
// There is no cvt of E8M0 here: a scale is made once a block, by a comparison of mantissas
// (common/low_bit.cuh).
#pragma once

#include "ptx/convert.cuh"

// FP8 conversions exist from compute capability 8.9 on, those of E2M1 in the families 100 and 120.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define EVENKEEL_PTX_HAS_FP8 1
#else
#define EVENKEEL_PTX_HAS_FP8 0
#endif
#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__) && __CUDA_ARCH_FAMILY_SPECIFIC__ >= 1000
#define EVENKEEL_PTX_HAS_FP4 1
#else
#define EVENKEEL_PTX_HAS_FP4 0
#endif

namespace evenkeel::ptx {

// A small floating-point type by its grid: mantissa bits, the exponent of its smallest normal
// number, the bits of its largest number as fp32.
template <int kMantissa_, int kMinExponent_, uint32_t kLargestBits_>
struct SmallFloat {
  static constexpr int kMantissa = kMantissa_;
  static constexpr int kMinExponent = kMinExponent_;
  static constexpr uint32_t kLargestBits = kLargestBits_;
  // The biased exponent, in place, of the smallest normal number.
  static constexpr uint32_t kMinBits = static_cast<uint32_t>(kMinExponent + 127) << 23;
  // The code of a number whose exponent is e and whose size is q steps of 2^(e - kMantissa) is
  // q + (biased e << kMantissa) - kCodeBase, subnormal or not.
  static constexpr uint32_t kCodeBase = static_cast<uint32_t>(kMinExponent + 127) << kMantissa;
};
using E4m3Grid = SmallFloat<3, -6, 0x43e00000u>;   // 448
using E5m2Grid = SmallFloat<2, -14, 0x47600000u>;  // 57344
using E2m1Grid = SmallFloat<1, 0, 0x40c00000u>;    // 6

namespace arithmetic {

// The code of |x|, NaN as the largest number. The steps near |x| are 2^(e - m), e the exponent
// of |x| but no less than the smallest normal one: an addition of 2^(e - m + 23) rounds to them.
template <typename Grid>
EVENKEEL_DEVICE uint32_t nearest_magnitude(float x) {
  const uint32_t magnitude = min(__float_as_uint(x) & 0x7fffffffu, Grid::kLargestBits);
  const uint32_t exponent = max(magnitude & 0x7f800000u, Grid::kMinBits);
  constexpr float kShift = static_cast<float>(1 << (23 - Grid::kMantissa));
  // The product is a power of two: one rounding.
  const float sum = __fmaf_rn(__uint_as_float(exponent), kShift, __uint_as_float(magnitude));
  // The sum's bits are those of 2^(e - m + 23) and, below them, the number of steps.
  const uint32_t steps =
      __float_as_uint(sum) - exponent - (static_cast<uint32_t>(23 - Grid::kMantissa) << 23);
  return steps + (exponent >> (23 - Grid::kMantissa)) - Grid::kCodeBase;
}

template <typename Grid>
EVENKEEL_DEVICE uint32_t nearest_fp8(float x) {
  const uint32_t bits = __float_as_uint(x);
  const uint32_t code = nearest_magnitude<Grid>(x) | ((bits >> 24) & 0x80u);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fu : code;
}

// The code of |x| as E2M1 in the lowest byte, and what does not matter above it: as
// nearest_magnitude, but two steps more are added, so that the byte begins at 2, and twice the
// biased exponent, 254 for 1, takes them away again.
EVENKEEL_DEVICE uint32_t nearest_e2m1_byte(float x) {
  const uint32_t magnitude = min(__float_as_uint(x) & 0x7fffffffu, E2m1Grid::kLargestBits);
  const uint32_t exponent = max(magnitude & 0x7f800000u, E2m1Grid::kMinBits);
  const float sum =
      __fmaf_rn(__uint_as_float(exponent), 0x1p22f + 1.0f, __uint_as_float(magnitude));
  return __float_as_uint(sum) + (exponent >> 22);
}

// The bytes `at` of four words.
template <uint32_t kAt>
EVENKEEL_DEVICE uint32_t gather_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  constexpr uint32_t kPair = kAt | (kAt + 4) << 4;
  return __byte_perm(__byte_perm(a, b, kPair), __byte_perm(c, d, kPair), 0x5410);
}

// Eight floats as E2M1: bytes of the even and of the odd ones, codes and signs side by side.
EVENKEEL_DEVICE uint32_t nearest_e2m1x8(const float (&x)[8]) {
  uint32_t code[8];
  uint32_t bits[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    code[i] = nearest_e2m1_byte(x[i]);
    bits[i] = __float_as_uint(x[i]);
  }
  const uint32_t even = gather_bytes<0>(code[0], code[2], code[4], code[6]);
  const uint32_t odd = gather_bytes<0>(code[1], code[3], code[5], code[7]);
  const uint32_t even_signs = gather_bytes<3>(bits[0], bits[2], bits[4], bits[6]);
  const uint32_t odd_signs = gather_bytes<3>(bits[1], bits[3], bits[5], bits[7]);
  return even + (odd << 4) + ((even_signs >> 4) & 0x08080808u) + (odd_signs & 0x80808080u);
}

}  // namespace arithmetic

// Two floats as FP8, `low` in the lower byte: cvt.rn.satfinite.{e4m3x2,e5m2x2}.f32.
EVENKEEL_DEVICE uint32_t cvt_rn_satfinite_e4m3x2(float low, float high) {
#if EVENKEEL_PTX_HAS_FP8
  uint16_t packed;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return arithmetic::nearest_fp8<E4m3Grid>(low) | (arithmetic::nearest_fp8<E4m3Grid>(high) << 8);
#endif
}
EVENKEEL_DEVICE uint32_t cvt_rn_satfinite_e5m2x2(float low, float high) {
#if EVENKEEL_PTX_HAS_FP8
  uint16_t packed;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return arithmetic::nearest_fp8<E5m2Grid>(low) | (arithmetic::nearest_fp8<E5m2Grid>(high) << 8);
#endif
}

// Eight floats as E2M1, element i in bits 4i to 4i + 3: four times cvt.rn.satfinite.e2m1x2.f32. NaN
// becomes a largest number, of either sign.
EVENKEEL_DEVICE uint32_t cvt_rn_satfinite_e2m1x8(const float (&x)[8]) {
#if EVENKEEL_PTX_HAS_FP4
  uint32_t packed;
  asm("{\n\t"
      ".reg .b8 b0, b1, b2, b3;\n\t"
      "cvt.rn.satfinite.e2m1x2.f32 b0, %2, %1;\n\t"
      "cvt.rn.satfinite.e2m1x2.f32 b1, %4, %3;\n\t"
      "cvt.rn.satfinite.e2m1x2.f32 b2, %6, %5;\n\t"
      "cvt.rn.satfinite.e2m1x2.f32 b3, %8, %7;\n\t"
      "mov.b32 %0, {b0, b1, b2, b3};\n\t}"
      : "=r"(packed)
      : "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]), "f"(x[4]), "f"(x[5]), "f"(x[6]), "f"(x[7]));
  return packed;
#else
  return arithmetic::nearest_e2m1x8(x);
#endif
}

// Two FP8 as f16, exactly, the lower byte in the lower half: cvt.rn.f16x2.{e4m3x2,e5m2x2}.
EVENKEEL_DEVICE uint32_t cvt_f16x2_e4m3x2(uint16_t pair) {
#if EVENKEEL_PTX_HAS_FP8
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
  return halves;
#else
  uint32_t halves = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t code = (pair >> (8 * i)) & 0xffu;
    // E4M3's bits, read as those of an f32 subnormal or not, are 2^-120 times too small.
    const float magnitude = __uint_as_float((code & 0x7fu) << 20) * 0x1p120f;
    uint32_t half = (code & 0x7fu) == 0x7fu ? 0x7fffu : ptx::cvt_rn_f16x2(magnitude, 0.0f);
    if ((code & 0x7fu) != 0x7fu) half |= (code & 0x80u) << 8;
    halves |= half << (16 * i);
  }
  return halves;
#endif
}
// E5M2 is the upper half of an f16.
EVENKEEL_DEVICE uint32_t cvt_f16x2_e5m2x2(uint16_t pair) {
#if EVENKEEL_PTX_HAS_FP8
  uint32_t halves;
  asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(halves) : "h"(pair));
  return halves;
#else
  const uint32_t low = pair & 0xffu;
  const uint32_t high = pair >> 8;
  return ((low & 0x7fu) > 0x7cu ? 0x7fffu : low << 8) |
         (((high & 0x7fu) > 0x7cu ? 0x7fffu : high << 8) << 16);
#endif
}

}  // namespace evenkeel::ptx
