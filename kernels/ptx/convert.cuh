// Conversions between fp32 and the 16-bit formats, round to nearest even.
#pragma once

#include "platform/platform.h"

#if !defined(__CUDACC__)
#include <bit>
#endif

namespace evenkeel::ptx {

#if !defined(__CUDACC__)
namespace emulated {

inline uint16_t float_to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the instruction's canonical NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline uint16_t float_to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00;  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {
    // Subnormal results: adding 0.5 puts the unit of the last place at 2^-24, f16's smallest step.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  const uint32_t rebased = magnitude - 0x38000000u;
  return sign | static_cast<uint16_t>((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13);
}

inline float f16_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  if (magnitude < 0x0400u) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

}  // namespace emulated
#endif

// Two floats as bf16 in one register, `low` in the lower half: cvt.rn.bf16x2.f32.
EVENKEEL_DEVICE uint32_t cvt_rn_bf16x2(float low, float high) {
#if defined(__CUDACC__)
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return emulated::float_to_bf16(low) |
         (static_cast<uint32_t>(emulated::float_to_bf16(high)) << 16);
#endif
}

// Two floats as f16 in one register, `low` in the lower half: cvt.rn.f16x2.f32.
EVENKEEL_DEVICE uint32_t cvt_rn_f16x2(float low, float high) {
#if defined(__CUDACC__)
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return emulated::float_to_f16(low) | (static_cast<uint32_t>(emulated::float_to_f16(high)) << 16);
#endif
}

// An f16 (by its bits) as fp32, exactly: cvt.f32.f16.
EVENKEEL_DEVICE float cvt_f32_f16(uint16_t half) {
#if defined(__CUDACC__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  return emulated::f16_to_float(half);
#endif
}

}  // namespace evenkeel::ptx
