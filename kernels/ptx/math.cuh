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

}  // namespace evenkeel::ptx
