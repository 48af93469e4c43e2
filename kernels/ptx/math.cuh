// Special-function instructions.
#pragma once

#include "platform/platform.h"

#if !defined(__CUDACC__)
#include <cmath>
#endif

namespace evenkeel::ptx {

// 2^x, ex2.approx.ftz.f32: at most 2 ulp from the true value over the full range (PTX ISA, ex2);
// subnormal results are flushed to zero; 2^-inf = 0, NaN stays NaN.
EVENKEEL_DEVICE float ex2_approx_ftz(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
#endif
}

// log2(x), lg2.approx.ftz.f32: at most 2^-22 from the true value where x is between 0.5 and 2, and
// at most 2^-22 of it elsewhere (PTX ISA, lg2); subnormal inputs count as 0, whose logarithm is
// -inf.
EVENKEEL_DEVICE float lg2_approx_ftz(float x) {
#if defined(__CUDACC__)
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::log2(std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x);
#endif
}

// 1 / x, rcp.approx.ftz.f32: at most 1 ulp from the true value (PTX ISA, rcp); subnormal inputs and
// results are flushed to zero.
EVENKEEL_DEVICE float rcp_approx_ftz(float x) {
#if defined(__CUDACC__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  if (std::fabs(x) < 1.17549435e-38f) return std::copysign(HUGE_VALF, x);
  const float y = 1.0f / x;
  return std::fabs(y) < 1.17549435e-38f ? std::copysign(0.0f, x) : y;
#endif
}

// The larger of two, NaN where one of them is: max.NaN.f32.
EVENKEEL_DEVICE float max_nan(float a, float b) {
#if defined(__CUDACC__)
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#else
  if (a != a || b != b) return __uint_as_float(0x7fffffffu);
  return a < b ? b : a;
#endif
}

}  // namespace evenkeel::ptx
