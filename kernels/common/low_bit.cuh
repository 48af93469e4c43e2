// From fp32 to 8- and 4-bit elements and their scales: scales of an amax, the quotient, the
// rounding. The mathematics is src/reference/quant/{scale,element}.rs, bit for bit; compiled
// without contraction, which would change bits.
#pragma once

#include "common/element.cuh"
#include "common/philox.cuh"
#include "ptx/low_bit.cuh"

namespace evenkeel {

enum class ElementType : uint32_t { kE4m3, kE5m2, kE2m1 };
// How a scale follows from an amax: the quotient; the power of two that nothing saturates at; MX's
// power of two, which may saturate.
enum class ScaleRule : uint32_t { kExact, kCeil, kFloor };

// The largest element, and its exponent.
EVENKEEL_DEVICE float largest_element(ElementType type) {
  return type == ElementType::kE4m3 ? 448.0f : type == ElementType::kE5m2 ? 57344.0f : 6.0f;
}
EVENKEEL_DEVICE int largest_exponent(ElementType type) {
  return type == ElementType::kE4m3 ? 8 : type == ElementType::kE5m2 ? 15 : 2;
}

// The larger magnitude, NaN where one of them is: a maximum that is no finite number tells of an
// element that is none.
EVENKEEL_DEVICE float larger(float a, float b) { return ptx::max_nan(fabsf(a), fabsf(b)); }
// The same of finite elements only.
EVENKEEL_DEVICE float larger_finite(float a, float b) {
  return is_finite(b) ? fmaxf(a, fabsf(b)) : a;
}

// ---- Scales. All are what an element is multiplied by.

// amax / largest, the smallest positive number where that is 0, and 1 for an amax of 0.
EVENKEEL_DEVICE float exact_scale(float amax, float largest) {
  const float quotient = amax / largest;
  if (quotient > 0.0f) return quotient;
  return amax > 0.0f ? __uint_as_float(1) : 1.0f;
}

// 2^(byte - 127): an E8M0. Byte 0 is a subnormal fp32.
EVENKEEL_DEVICE float e8m0_value(uint32_t byte) {
  return __uint_as_float(byte == 0 ? 0x00400000u : byte << 23);
}

// The power of two of an amax, as an E8M0: kCeil: the smallest that no element saturates at, by
// comparing amax's mantissa with that of the largest element (a float logarithm may be off by one
// at the powers themselves); kFloor: 2^(floor(log2(amax)) - exponent of the largest element). A
// subnormal amax ends at 2^-127 either way. 1 for an amax of 0.
EVENKEEL_DEVICE uint32_t power_scale(float amax, ElementType type, ScaleRule rule) {
  const uint32_t bits = __float_as_uint(amax);
  if (bits == 0) return 127;
  const uint32_t largest = type == ElementType::kE2m1 ? 0x400000u : 0x600000u;
  const int up = rule == ScaleRule::kCeil && (bits & 0x7fffffu) > largest ? 1 : 0;
  const int exponent = static_cast<int>(bits >> 23) - largest_exponent(type) + up;
  return static_cast<uint32_t>(max(exponent, 0));
}

// ---- The quotient x / scale, correctly rounded wherever an element depends on it.
//
// With r = RN(1 / s): q = RN(x r), e = RN(q s - x), RN(q - e r) is RN(x / s) (Brisebarre, Muller
// and Raina, "Accelerating correctly rounded floating-point division when the divisor is known in
// advance", IEEE Trans. Computers 53(8), 2004: one multiplication and two fused ones). It needs
// that nothing overflows and that no bit of e falls below the smallest subnormal number:
// - s lies in [2^-50, 2^126], so that r is normal. Other scales are multiplied by a power of two
//   first, and x with them. That is exact where it matters: what overflows saturates, and what
//   becomes subnormal is far below the smallest element.
// - The last bit of q s is that of q times that of s, at least 2^-149 for |x| >= 2^-102. Below, the
//   quotient is less than 2^-52 and off by less than 2^-99; elements depend on no bit of it, as the
//   smallest step there is, 2^-16, is rounded at random by 32 bits further down, 2^-48.
// - Where |q| exceeds 2^20, or is NaN, the element is the largest or NaN whatever the correction,
//   which would be inf - inf: it is left out.
struct ScaleDivisor {
  float scale;
  float reciprocal;  // of prescaled(scale)

  // What a scale is multiplied by before it divides.
  EVENKEEL_DEVICE static float prescale(float scale) {
    const float magnitude = fabsf(scale);
    // Nothing is left of x / inf but 0 and NaN.
    if (magnitude > kFloatMax) return 0.0f;
    return magnitude < 0x1p-50f ? 0x1p100f : magnitude > 0x1p126f ? 0x1p-4f : 1.0f;
  }
  EVENKEEL_DEVICE static bool is_plain(float scale) {
    const float magnitude = fabsf(scale);
    return magnitude >= 0x1p-50f && magnitude <= 0x1p126f;
  }
  EVENKEEL_DEVICE static ScaleDivisor of(float scale) {
    if (is_plain(scale)) return {scale, 1.0f / scale};
    const float by = prescale(scale);
    return {scale, by == 0.0f ? 1.0f : 1.0f / (scale * by)};
  }
  // By a power of two, of which the product is exact.
  EVENKEEL_DEVICE static ScaleDivisor of_power(uint32_t e8m0) {
    return {e8m0_value(e8m0), e8m0_value(254 - e8m0)};
  }
};

EVENKEEL_DEVICE float corrected_quotient(float x, float scale, float reciprocal) {
  float quotient = x * reciprocal;
  if (fabsf(quotient) <= 0x1p20f) {
    // Of the signs that keep a quotient of -0.
    const float rest = __fmaf_rn(quotient, scale, -x);
    quotient = __fmaf_rn(-rest, reciprocal, quotient);
  }
  return quotient;
}

// kCount quotients by one divisor. `power`: the divisor is a power of two.
template <int kCount>
EVENKEEL_DEVICE void divide_by(const float (&x)[kCount], const ScaleDivisor& by, bool power,
                               float (&quotient)[kCount]) {
  if (power) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) quotient[i] = x[i] * by.reciprocal;
    return;
  }
  float scale = by.scale;
#pragma unroll
  for (int i = 0; i < kCount; ++i) quotient[i] = x[i];
  if (!ScaleDivisor::is_plain(scale)) {
    const float before = ScaleDivisor::prescale(scale);
    scale = before == 0.0f ? 1.0f : scale * before;
#pragma unroll
    for (int i = 0; i < kCount; ++i) quotient[i] *= before;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    quotient[i] = corrected_quotient(quotient[i], scale, by.reciprocal);
  }
}

// Each by a divisor of its own.
template <int kCount>
EVENKEEL_DEVICE void divide_each(const float (&x)[kCount], const ScaleDivisor (&by)[kCount],
                                 bool power, float (&quotient)[kCount]) {
  if (power) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) quotient[i] = x[i] * by[i].reciprocal;
    return;
  }
  bool plain = true;
#pragma unroll
  for (int i = 0; i < kCount; ++i) plain = plain && ScaleDivisor::is_plain(by[i].scale);
  if (plain) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      quotient[i] = corrected_quotient(x[i], by[i].scale, by[i].reciprocal);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float before = ScaleDivisor::prescale(by[i].scale);
    const float scale = before == 0.0f ? 1.0f : by[i].scale * before;
    quotient[i] = corrected_quotient(x[i] * before, scale, by[i].reciprocal);
  }
}

// ---- NvFp4: a scale of the tensor, and E4M3 scales of blocks in its unit.

// Of an amax of the tensor: the largest block scale, 448, times the largest element, 6.
EVENKEEL_DEVICE float nvfp4_tensor_scale(float amax) { return exact_scale(amax, 2688.0f); }

// RN(RN(amax / 6) / tensor scale) as E4M3, saturating.
EVENKEEL_DEVICE uint32_t nvfp4_block_scale(float amax, const ScaleDivisor& tensor) {
  float ratio[1] = {amax / 6.0f};
  float quotient[1];
  divide_by(ratio, tensor, false, quotient);
  return ptx::cvt_rn_satfinite_e4m3x2(quotient[0], 0.0f) & 0xffu;
}

EVENKEEL_DEVICE float e4m3_value(uint32_t code) {
  return ptx::cvt_f32_f16(
      static_cast<uint16_t>(ptx::cvt_f16x2_e4m3x2(static_cast<uint16_t>(code))));
}
EVENKEEL_DEVICE float e5m2_value(uint32_t code) {
  return ptx::cvt_f32_f16(
      static_cast<uint16_t>(ptx::cvt_f16x2_e5m2x2(static_cast<uint16_t>(code))));
}
// The bits below the sign, read as those of an f32, subnormal or not, are 2^-126 times too small.
EVENKEEL_DEVICE float e2m1_value(uint32_t code) {
  const float magnitude = __uint_as_float((code & 7u) << 22) * 0x1p126f;
  return __uint_as_float(__float_as_uint(magnitude) | ((code & 8u) << 28));
}

// ---- Elements, eight at a time: two words of bytes, or one of nibbles (the second is 0).

template <int kBits>
EVENKEEL_DEVICE uint2 encode_nearest(const float (&u)[8], ElementType type) {
  if constexpr (kBits == 4) {
    return make_uint2(ptx::cvt_rn_satfinite_e2m1x8(u), 0);
  } else if (type == ElementType::kE4m3) {
    return make_uint2(
        ptx::cvt_rn_satfinite_e4m3x2(u[0], u[1]) | ptx::cvt_rn_satfinite_e4m3x2(u[2], u[3]) << 16,
        ptx::cvt_rn_satfinite_e4m3x2(u[4], u[5]) | ptx::cvt_rn_satfinite_e4m3x2(u[6], u[7]) << 16);
  } else {
    return make_uint2(
        ptx::cvt_rn_satfinite_e5m2x2(u[0], u[1]) | ptx::cvt_rn_satfinite_e5m2x2(u[2], u[3]) << 16,
        ptx::cvt_rn_satfinite_e5m2x2(u[4], u[5]) | ptx::cvt_rn_satfinite_e5m2x2(u[6], u[7]) << 16);
  }
}

// The grid of an element type as numbers.
struct GridNumbers {
  uint32_t mantissa;
  uint32_t least_exponent;  // biased: that of the smallest normal number
  uint32_t largest_bits;

  EVENKEEL_DEVICE static GridNumbers of(ElementType type) {
    return type == ElementType::kE4m3   ? of_grid<ptx::E4m3Grid>()
           : type == ElementType::kE5m2 ? of_grid<ptx::E5m2Grid>()
                                        : of_grid<ptx::E2m1Grid>();
  }
  template <typename Grid>
  EVENKEEL_DEVICE static GridNumbers of_grid() {
    return {static_cast<uint32_t>(Grid::kMantissa), Grid::kMinBits >> 23, Grid::kLargestBits};
  }
};

// The code of |u| rounded up where the part of a step above the code below, in 2^-32, and `random`
// make a whole step. In integers, as an addition of the random bits below the kept ones: exact on
// what is representable, which a float u / step + random is not. NaN counts as the largest.
EVENKEEL_DEVICE uint32_t stochastic_magnitude(float u, uint32_t random, const GridNumbers& grid) {
  const uint32_t magnitude = min(__float_as_uint(u) & 0x7fffffffu, grid.largest_bits);
  const uint32_t own = magnitude >> 23;
  const uint32_t exponent = max(own, grid.least_exponent);
  // A subnormal fp32 has no leading one, but is shifted out of sight either way.
  const uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t shift = min(exponent - own + (23 - grid.mantissa), 63u);
  const uint64_t fixed = (static_cast<uint64_t>(significand) << 32) >> shift;
  const uint32_t steps = static_cast<uint32_t>((fixed + random) >> 32);
  return steps + ((exponent - grid.least_exponent) << grid.mantissa);
}

// The codes of four quotients, with their signs, in a byte each.
template <int kBits>
EVENKEEL_DEVICE uint32_t encode4_stochastic(const float (&u)[4], const uint32_t (&random)[4],
                                            ElementType type) {
  const GridNumbers grid = kBits == 4 ? GridNumbers::of(ElementType::kE2m1) : GridNumbers::of(type);
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits = __float_as_uint(u[i]);
    uint32_t code = stochastic_magnitude(u[i], random[i], grid);
    code |= (bits >> (32 - kBits)) & (1u << (kBits - 1));
    if (kBits == 8 && (bits & 0x7fffffffu) > 0x7f800000u) code = 0x7f;
    codes |= code << (8 * i);
  }
  return codes;
}

// Eight nibbles in bytes as one word, the first lowest.
EVENKEEL_DEVICE uint32_t pack_nibbles(uint32_t low, uint32_t high) {
  return __byte_perm(low | low >> 4, high | high >> 4, 0x6420);
}

template <int kBits>
EVENKEEL_DEVICE uint2 encode_stochastic(const float (&u)[8], const uint32_t (&random)[8],
                                        ElementType type) {
  uint32_t codes[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float part[4] = {u[4 * half], u[4 * half + 1], u[4 * half + 2], u[4 * half + 3]};
    const uint32_t words[4] = {random[4 * half], random[4 * half + 1], random[4 * half + 2],
                               random[4 * half + 3]};
    codes[half] = encode4_stochastic<kBits>(part, words, type);
  }
  if constexpr (kBits == 4) return make_uint2(pack_nibbles(codes[0], codes[1]), 0);
  return make_uint2(codes[0], codes[1]);
}

// How many of the quotients lie beyond the largest element (inf does, NaN does not), and how many
// elements of numbers that are not 0 became 0.
struct QuantCounts {
  uint32_t saturated = 0;
  uint32_t underflowed = 0;

  EVENKEEL_DEVICE void add_one(float x, float u, uint32_t magnitude, float largest) {
    saturated += fabsf(u) > largest ? 1 : 0;
    underflowed += x != 0.0f && magnitude == 0 ? 1 : 0;
  }
  template <int kBits>
  EVENKEEL_DEVICE void add(const float (&x)[8], const float (&u)[8], uint2 codes, float largest) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t magnitude = kBits == 4
                                     ? (codes.x >> (4 * i)) & 7u
                                     : ((i < 4 ? codes.x : codes.y) >> (8 * (i % 4))) & 0x7fu;
      add_one(x[i], u[i], magnitude, largest);
    }
  }
};

}  // namespace evenkeel
