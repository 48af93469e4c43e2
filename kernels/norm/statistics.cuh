// The statistics of a row: mean square, or mean and mean squared deviation.
#pragma once

#include "common/columns.cuh"
#include "norm/params.h"

namespace evenkeel {

// Of RmsNorm.
struct SquareSum {
  float sum;

  EVENKEEL_DEVICE static SquareSum empty() { return {0.0f}; }
  EVENKEEL_DEVICE static SquareSum merge(SquareSum a, SquareSum b) { return {a.sum + b.sum}; }
};

// Of LayerNorm: sums of deviations from one of the elements, which a common offset of the row does
// not touch. Merged as Chan, Golub and LeVeque do (Algorithms for computing the sample variance,
// 1983), the mean relative to the pivot.
struct Spread {
  float count;
  float pivot;
  float mean;     // less the pivot
  float squares;  // of the deviations from the mean

  EVENKEEL_DEVICE static Spread empty() { return {0.0f, 0.0f, 0.0f, 0.0f}; }
  EVENKEEL_DEVICE static Spread merge(Spread a, Spread b) {
    if (b.count == 0.0f) return a;
    if (a.count == 0.0f) return b;
    const float count = a.count + b.count;
    const float share = b.count / count;
    const float apart = (b.pivot - a.pivot) + (b.mean - a.mean);
    return {count, a.pivot, a.mean + apart * share,
            a.squares + b.squares + apart * apart * (a.count * share)};
  }
};

template <bool kLayer>
struct PartialOf {
  using Type = SquareSum;
};
template <>
struct PartialOf<true> {
  using Type = Spread;
};

// A thread's units of a row, each element times `scale`, a power of two.
template <typename Layout>
EVENKEEL_DEVICE void gather(const typename Layout::Units& units, FloatType type,
                            const Columns<Layout>& /*columns*/, float scale, SquareSum& part) {
  // What lies outside the row is 0.
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    typename Layout::Unit x;
    unpack_unit(units[u], type, x);
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      x[e] *= scale;
      x[e] *= x[e];
    }
    part.sum += pairwise<Layout::kChunk>(x, [](float a, float b) { return a + b; });
  }
}

template <typename Layout>
EVENKEEL_DEVICE void gather(const typename Layout::Units& units, FloatType type,
                            const Columns<Layout>& columns, float scale, Spread& part) {
  if (!columns.has(0)) return;
  int count = 0;
  float pivot = 0.0f;
  float sum = 0.0f;
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    const int here = columns.count(u);
    count += here;
    typename Layout::Unit x;
    unpack_unit(units[u], type, x);
    if (u == 0) pivot = x[0] * scale;
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) x[e] = e < here ? x[e] * scale - pivot : 0.0f;
    sum += pairwise<Layout::kChunk>(x, [](float a, float b) { return a + b; });
  }
  const float mean = sum / static_cast<float>(count);
  float squares = 0.0f;
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    const int here = columns.count(u);
    typename Layout::Unit x;
    unpack_unit(units[u], type, x);
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      const float d = e < here ? x[e] * scale - pivot - mean : 0.0f;
      x[e] = d * d;
    }
    squares += pairwise<Layout::kChunk>(x, [](float a, float b) { return a + b; });
  }
  part = Spread::merge(part, {static_cast<float>(count), pivot, mean, squares});
}

// What normalizes a row: h = ((x scale - pivot) - mean) factor.
struct RowMoments {
  float scale;  // a power of two: 1 but for rows whose squares leave the range of fp32
  float pivot;
  float mean;
  float spread;  // mean square (RmsNorm) or variance of the scaled elements, and eps
  float factor;  // NaN for a row that is not finite, or without spread at eps 0
  bool fine;

  EVENKEEL_DEVICE float normalized(float x) const { return ((x * scale - pivot) - mean) * factor; }
  EVENKEEL_DEVICE float saved_rstd() const { return factor * scale; }
  EVENKEEL_DEVICE float saved_mean() const { return fine ? (pivot + mean) / scale : quiet_nan(); }
};

// The mean square (RmsNorm) or variance, of elements times the scale.
EVENKEEL_DEVICE float mean_square(const SquareSum& part, uint32_t columns) {
  return part.sum / static_cast<float>(columns);
}
EVENKEEL_DEVICE float mean_square(const Spread& part, uint32_t columns) {
  return part.squares / static_cast<float>(columns);
}
EVENKEEL_DEVICE void set_centre(const SquareSum&, RowMoments& row) { row.pivot = row.mean = 0.0f; }
EVENKEEL_DEVICE void set_centre(const Spread& part, RowMoments& row) {
  row.pivot = part.pivot;
  row.mean = part.mean;
}

// 2^-80 and 2^100: what elements are multiplied by where their squares overflow or vanish. Below
// 2^128 and 2^18 columns, squares of the first stay below 2^96; those that reach the second, whose
// mean square is below 2^-100, stay below 2^118, and the smallest subnormal becomes 2^-49.
inline constexpr float kScaleDown = 8.271806125530277e-25f;
inline constexpr float kScaleUp = 1.2676506002282294e30f;
inline constexpr float kSmallestSquare = 7.888609052210118e-31f;  // 2^-100

// The moments of a row whose elements `sums(scale)` gathers over the whole team. Almost every row
// needs one pass; the others a second one at another scale. A small spread of large elements (an
// offset) leaves the range there, and stays as it was.
template <typename Team, typename Sums>
EVENKEEL_DEVICE RowMoments row_moments(Team& team, uint32_t columns, float eps, Sums sums) {
  RowMoments row;
  row.scale = 1.0f;
  auto part = sums(1.0f, true);
  float spread = mean_square(part, columns) + eps;
  const bool large = !is_finite(spread);
  const bool small = spread < kSmallestSquare;
  if (team.any(large || small)) {
    const float scale = large ? kScaleDown : small ? kScaleUp : 1.0f;
    const auto scaled = sums(scale, false);
    const float scaled_spread = mean_square(scaled, columns) + eps * scale * scale;
    if (!small || is_finite(scaled_spread)) {
      row.scale = scale;
      part = scaled;
      spread = scaled_spread;
    }
  }
  set_centre(part, row);
  row.spread = spread;
  row.fine = spread > 0.0f && is_finite(spread);
  row.factor = row.fine ? 1.0f / sqrtf(spread) : quiet_nan();
  return row;
}

}  // namespace evenkeel
