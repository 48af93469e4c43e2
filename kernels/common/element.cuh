// The element types of tensors, and 16 bytes of them as fp32 registers.
#pragma once

#include "ptx/convert.cuh"
#include "ptx/math.cuh"

namespace evenkeel {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

EVENKEEL_DEVICE float to_float(float x) { return x; }
EVENKEEL_DEVICE float to_float(bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
EVENKEEL_DEVICE float to_float(f16 x) { return ptx::cvt_f32_f16(x.bits); }

// One rounding, to nearest even.
template <typename T>
EVENKEEL_DEVICE T from_float(float x);
template <>
EVENKEEL_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
EVENKEEL_DEVICE bf16 from_float<bf16>(float x) {
  return {static_cast<uint16_t>(ptx::cvt_rn_bf16x2(x, 0.0f))};
}
template <>
EVENKEEL_DEVICE f16 from_float<f16>(float x) {
  return {static_cast<uint16_t>(ptx::cvt_rn_f16x2(x, 0.0f))};
}

// Elements in a 16-byte vector.
template <typename T>
inline constexpr int kVectorElements = 16 / static_cast<int>(sizeof(T));

EVENKEEL_DEVICE void unpack(uint4 v, float (&x)[4], float) {
  x[0] = __uint_as_float(v.x);
  x[1] = __uint_as_float(v.y);
  x[2] = __uint_as_float(v.z);
  x[3] = __uint_as_float(v.w);
}
EVENKEEL_DEVICE void unpack(uint4 v, float (&x)[8], bf16) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
EVENKEEL_DEVICE void unpack(uint4 v, float (&x)[8], f16) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = ptx::cvt_f32_f16(static_cast<uint16_t>(words[i]));
    x[2 * i + 1] = ptx::cvt_f32_f16(static_cast<uint16_t>(words[i] >> 16));
  }
}

// Half a vector of 16-bit elements.
EVENKEEL_DEVICE void unpack(uint2 v, float (&x)[4], bf16) {
  x[0] = __uint_as_float(v.x << 16);
  x[1] = __uint_as_float(v.x & 0xffff0000u);
  x[2] = __uint_as_float(v.y << 16);
  x[3] = __uint_as_float(v.y & 0xffff0000u);
}
EVENKEEL_DEVICE void unpack(uint2 v, float (&x)[4], f16) {
  x[0] = ptx::cvt_f32_f16(static_cast<uint16_t>(v.x));
  x[1] = ptx::cvt_f32_f16(static_cast<uint16_t>(v.x >> 16));
  x[2] = ptx::cvt_f32_f16(static_cast<uint16_t>(v.y));
  x[3] = ptx::cvt_f32_f16(static_cast<uint16_t>(v.y >> 16));
}

EVENKEEL_DEVICE uint4 pack(const float* x, float) {
  return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                    __float_as_uint(x[3]));
}
EVENKEEL_DEVICE uint4 pack(const float* x, bf16) {
  return make_uint4(ptx::cvt_rn_bf16x2(x[0], x[1]), ptx::cvt_rn_bf16x2(x[2], x[3]),
                    ptx::cvt_rn_bf16x2(x[4], x[5]), ptx::cvt_rn_bf16x2(x[6], x[7]));
}
EVENKEEL_DEVICE uint4 pack(const float* x, f16) {
  return make_uint4(ptx::cvt_rn_f16x2(x[0], x[1]), ptx::cvt_rn_f16x2(x[2], x[3]),
                    ptx::cvt_rn_f16x2(x[4], x[5]), ptx::cvt_rn_f16x2(x[6], x[7]));
}

inline constexpr float kFloatMax = 3.40282347e38f;
EVENKEEL_DEVICE float negative_infinity() { return __uint_as_float(0xff800000u); }
EVENKEEL_DEVICE float quiet_nan() { return __uint_as_float(0x7fc00000u); }
EVENKEEL_DEVICE bool is_finite(float x) { return fabsf(x) <= kFloatMax; }

// e^x for x <= 0 and a little above, by ex2: relative error at most (2 + |x| log2(e)) 2^-23.
inline constexpr float kLog2E = 1.44269504088896341f;
EVENKEEL_DEVICE float exp_fast(float x) { return ptx::ex2_approx_ftz(x * kLog2E); }

}  // namespace evenkeel
