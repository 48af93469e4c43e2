// What activations are, element by element: silu and the two forms of GELU, their slopes, and
// SwiGLU with its smoothing. The mathematics is src/reference/quant/activation.rs, in f64; the
// error bounds below are those of cli/src/quant/activation/bounds.rs. Compiled without contraction,
// so that every kernel that computes one of these has the same bits.
//
// Sigmoids are formed from e^-|x|, never above 1: both tails keep their digits, and none overflows.
// Below |x| = 87 or so e^-|x| is flushed to zero, and x sigma(x) with it.
#pragma once

#include "common/element.cuh"

namespace evenkeel {

// sigma(x) and 1 - sigma(x) = sigma(-x): relative errors at most (5 + |x| log2(e)) 2^-23.
struct Sigmoid {
  float at;
  float rest;

  EVENKEEL_DEVICE static Sigmoid of(float x) {
    const float decay = exp_fast(-fabsf(x));
    const float large = ptx::rcp_approx_ftz(1.0f + decay);
    const float small = decay * large;
    // Both are NaN where x is.
    return x < 0.0f ? Sigmoid{small, large} : Sigmoid{large, small};
  }
};

// value(x) and slope(x), its derivative.
struct Curve {
  float value;
  float slope;
};

struct Silu {
  EVENKEEL_DEVICE static float value(float x) { return x * Sigmoid::of(x).at; }
  EVENKEEL_DEVICE static Curve curve(float x) {
    const Sigmoid s = Sigmoid::of(x);
    const float value = x * s.at;
    return {value, s.at + value * s.rest};
  }
};

// x Phi(x). erfcf, and not 1 + erff: the tail keeps its digits.
struct GeluExact {
  EVENKEEL_DEVICE static float normal(float x) {
    return 0.5f * erfcf(x * -0.70710678118654752440f);
  }
  EVENKEEL_DEVICE static float value(float x) { return x * normal(x); }
  EVENKEEL_DEVICE static Curve curve(float x) {
    const float at = normal(x);
    const float density = 0.39894228040143267794f * exp_fast(-0.5f * x * x);
    return {x * at, at + x * density};
  }
};

// x sigma(2 a), 2 a = x (p + q x^2): twice sqrt(2 / pi), and that times 0.044715.
struct GeluTanh {
  static constexpr float kLinear = 1.59576912160573071176f;
  static constexpr float kCubic = 0.07135481627159958f;
  // From here on the sigmoid is 0 or 1: e^-|2 a| is flushed to zero long before, and x^3 might
  // overflow.
  static constexpr float kFlat = 16.0f;

  EVENKEEL_DEVICE static float value(float x) {
    const float c = fminf(fmaxf(x, -kFlat), kFlat);
    return x * Sigmoid::of(c * (kLinear + kCubic * (c * c))).at;
  }
  EVENKEEL_DEVICE static Curve curve(float x) {
    const float c = fminf(fmaxf(x, -kFlat), kFlat);
    const float square = kCubic * (c * c);
    const Sigmoid s = Sigmoid::of(c * (kLinear + square));
    const float value = x * s.at;
    return {value, s.at + value * s.rest * (kLinear + 3.0f * square)};
  }
};

// y of gate and up, up divided by its smoothing scale where there is one.
EVENKEEL_DEVICE float swiglu(float gate, float up) { return Silu::value(gate) * up; }

// The gradients of gate and up; dy is divided by the smoothing scale.
struct SwiGluGradient {
  float gate;
  float up;

  EVENKEEL_DEVICE static SwiGluGradient of(float gate, float up, float dy) {
    const Curve silu = Silu::curve(gate);
    return {dy * up * silu.slope, dy * silu.value};
  }
};

}  // namespace evenkeel
