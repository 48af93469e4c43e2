// What dynamic tanh computes of an element: one function, so that its plain and its quantised
// kernels have the same bits.
#pragma once

#include "platform/platform.h"

namespace evenkeel {

EVENKEEL_DEVICE float dynamic_tanh(float x, float alpha, float gamma, float beta) {
  return tanhf(alpha * x) * gamma + beta;
}

}  // namespace evenkeel
