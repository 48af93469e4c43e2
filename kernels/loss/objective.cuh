// The objective family: every member is a value f and a g = -p f'(p), functions of one token's
// log-probability. A new member is one case here and one in src/reference/loss.rs.
#pragma once

#include "common/element.cuh"
#include "loss/params.h"
#include "platform/platform.h"

namespace evenkeel {

struct TargetProbability {
  float lp;  // log p
  float p;
  float one_minus_p;  // S_o / S, exact to rounding where 1 - p would cancel
  float sum_p2;       // over all classes (Deft's exponent)
};

struct ObjectiveValue {
  float value;
  float g;
};

// (1 - p^a) / a and p^a; log p at the limit a = 0. Below 1e-30 the limit is exact in fp32, and
// a * lp would lose bits to subnormals.
EVENKEEL_DEVICE ObjectiveValue power_objective(float a, float lp) {
  if (fabsf(a) < 1e-30f) return {-lp, 1.0f};
  return {-expm1f(a * lp) / a, expf(a * lp)};
}

EVENKEEL_DEVICE ObjectiveValue evaluate(Objective objective, float parameter,
                                        const TargetProbability& t) {
  switch (objective) {
    case Objective::kLinear:
      return {t.one_minus_p, t.p};
    case Objective::kPower:
    case Objective::kGce:
      return power_objective(parameter, t.lp);
    case Objective::kDft:
      return {t.p > 0.0f ? -t.p * t.lp : 0.0f, t.p};
    case Objective::kFocal: {
      // g = (1-p)^gamma (1 - gamma p lp / (1-p)): lp / (1-p) -> -1 as p -> 1, where the textbook
      // form with (1-p)^(gamma-1) is infinite for gamma < 1; p lp -> 0 as p -> 0.
      const float factor = powf(t.one_minus_p, parameter);
      const float ratio = t.one_minus_p > 0.0f ? t.lp / t.one_minus_p : -1.0f;
      const float p_ratio = t.p > 0.0f ? t.p * ratio : 0.0f;
      const float value = factor > 0.0f ? -factor * t.lp : 0.0f;
      return {value, factor * (1.0f - parameter * p_ratio)};
    }
    case Objective::kPoly1:
      return {-t.lp + parameter * t.one_minus_p, 1.0f + parameter * t.p};
    case Objective::kDeft: {
      const float a = t.sum_p2;
      const float over = 1.0f / (a + 1e-6f);
      return {-expm1f(a * t.lp) * over, a * over * expf(a * t.lp)};
    }
    case Objective::kNll:
    default:
      return {-t.lp, 1.0f};
  }
}

EVENKEEL_DEVICE bool keeps(ThresholdSide side, float tau, float p) {
  if (side == ThresholdSide::kAbove) return p >= tau;
  if (side == ThresholdSide::kBelow) return p <= tau;
  return true;
}

}  // namespace evenkeel
