// What a part of a row contributes to the softmax: sums relative to the part's own maximum, merged
// in a fixed order.
#pragma once

#include "common/element.cuh"
#include "loss/objective.cuh"
#include "platform/platform.h"

namespace evenkeel {

// The target is kept out of the sums: 1 - p = S_o / S would cancel otherwise.
struct RowPartial {
  float max;        // of the other classes; -FLT_MAX, not -inf, of none: no inf - inf
  float sum;        // sum e, e = exp(z - max)
  float target;     // z of the target; -inf when not in this part, or masked
  uint32_t argmax;  // lowest class among the maxima of the others
  float sum_e2;     // sum e^2
  float sum_ed;     // sum e d, d = z - max
  float sum_d;      // sum d
  float unmasked;   // other classes not masked
  float sum_z2;     // sum of squared raw logits, target included
  float unused[3];  // a partial travels as three 16-byte vectors
};
static_assert(sizeof(RowPartial) == 48);

EVENKEEL_DEVICE RowPartial empty_partial() {
  return {-kFloatMax, 0.0f, negative_infinity(), 0xffffffffu, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, {}};
}

// Expresses the sums relative to `max`, which is at least the part's own.
template <Moments kMoments>
EVENKEEL_DEVICE void rebase(RowPartial& part, float max) {
  const float delta = fmaxf(part.max - max, -kFloatMax);
  const float factor = exp_fast(delta);
  if constexpr (kMoments >= Moments::kSome) {
    part.sum_e2 *= factor * factor;
    // The factor is 0 below -104: the bound keeps 0 * inf out without changing any value.
    part.sum_ed = factor * (part.sum_ed + fmaxf(delta, -1e4f) * part.sum);
  }
  if constexpr (kMoments == Moments::kAll) {
    if (part.unmasked > 0.0f) part.sum_d += part.unmasked * delta;
  }
  part.sum *= factor;
  part.max = max;
}

template <Moments kMoments>
EVENKEEL_DEVICE RowPartial merge(RowPartial a, RowPartial b) {
  const bool b_leads = b.max > a.max || (b.max == a.max && b.argmax < a.argmax);
  const uint32_t argmax = b_leads ? b.argmax : a.argmax;
  const float max = fmaxf(a.max, b.max);
  rebase<kMoments>(a, max);
  rebase<kMoments>(b, max);
  a.sum += b.sum;
  a.target = fmaxf(a.target, b.target);
  a.argmax = argmax;
  if constexpr (kMoments >= Moments::kSome) {
    a.sum_e2 += b.sum_e2;
    a.sum_ed += b.sum_ed;
  }
  if constexpr (kMoments == Moments::kAll) {
    a.sum_d += b.sum_d;
    a.unmasked += b.unmasked;
    a.sum_z2 += b.sum_z2;
  }
  return a;
}

template <Moments kMoments>
EVENKEEL_DEVICE RowPartial shuffle_down(const RowPartial& part, int offset) {
  constexpr uint32_t kAllLanes = 0xffffffffu;
  RowPartial other = part;
  other.max = __shfl_down_sync(kAllLanes, part.max, offset);
  other.sum = __shfl_down_sync(kAllLanes, part.sum, offset);
  other.target = __shfl_down_sync(kAllLanes, part.target, offset);
  other.argmax = __shfl_down_sync(kAllLanes, part.argmax, offset);
  if constexpr (kMoments >= Moments::kSome) {
    other.sum_e2 = __shfl_down_sync(kAllLanes, part.sum_e2, offset);
    other.sum_ed = __shfl_down_sync(kAllLanes, part.sum_ed, offset);
  }
  if constexpr (kMoments == Moments::kAll) {
    other.sum_d = __shfl_down_sync(kAllLanes, part.sum_d, offset);
    other.unmasked = __shfl_down_sync(kAllLanes, part.unmasked, offset);
    other.sum_z2 = __shfl_down_sync(kAllLanes, part.sum_z2, offset);
  }
  return other;
}

// Merges the partials of the first `lanes` (a power of two) lanes into lane 0.
template <Moments kMoments>
EVENKEEL_DEVICE RowPartial warp_merge(RowPartial part, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    part = merge<kMoments>(part, shuffle_down<kMoments>(part, offset));
  }
  return part;
}

}  // namespace evenkeel
