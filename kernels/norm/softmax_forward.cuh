// Softmax, log-softmax and StableMax of masked rows, forward, with the entropy and the normalizer
// of each row.
//
//   softmax    m = max x   e_j = exp(scale (x_j - m))   S = sum e   p_j = e_j / S
//              H = log S + (sum_j e_j scale (m - x_j)) / S          lse = scale m + log S
//   log        log p_j = scale (x_j - m) - log S
//   stablemax  s_j = z_j + 1 (z_j >= 0), 1 / (1 - z_j) (below), z = scale x   S = sum s
//              p_j = s_j / S   H = -sum p log p, by a sum of its own where it is asked for
//
// over the keys that a row sees. Never materialised: scores, exponentials, the mask. The
// mathematics is src/reference/norm/softmax.rs.
//
// Traffic: each key that a row sees is read once (to the end of its 16 bytes), each y written once,
// in rows that the registers of a block or of a cluster hold; longer ones are read again from L2.
// At 4.3 TB/s, as norm/forward.cuh has it, 16384 x 8192 in bf16 without a mask are 537 MB and
// 125 us: a prediction, nothing of this has been measured yet.
//
// Mapping: as norm/forward.cuh. What a row does not see takes the place of -inf in the registers:
// its share is 0 of itself.
#pragma once

#include "common/team.cuh"
#include "norm/store.cuh"
#include "norm/visible.cuh"
#include "ptx/math.cuh"

namespace evenkeel {

// Beyond it 2^-t is 0 and its product with t must be.
inline constexpr float kFarExponent = 1e4f;
inline constexpr float kLn2 = 0.693147180559945309f;

// Of a softmax: the exponentials of some keys, relative to the largest of them. Keys that equal it
// are counted and not added: log S keeps the digits of the others' sum.
struct ExponentialPart {
  float max;  // of x
  float count;
  float others;
  float gap;  // sum of 2^-t t

  EVENKEEL_DEVICE static ExponentialPart empty() { return {negative_infinity(), 0.0f, 0.0f, 0.0f}; }
};

// Merges parts of a row whose exponentials are 2^(rate (x - max)).
struct MergeExponentials {
  float rate;

  EVENKEEL_DEVICE ExponentialPart operator()(const ExponentialPart& a,
                                             const ExponentialPart& b) const {
    const bool rises = b.max > a.max;
    const ExponentialPart high = rises ? b : a;
    const ExponentialPart low = rises ? a : b;
    // Far where `low` has no keys, or neither has.
    const float t = fminf((high.max - low.max) * rate, kFarExponent);
    const float factor = ptx::ex2_approx_ftz(-t);
    const bool same = t == 0.0f;
    const float all = low.count + low.others;
    return {high.max, high.count + (same ? low.count : 0.0f),
            high.others + (same ? low.others : factor * all),
            high.gap + factor * (low.gap + t * all)};
  }
};

struct StablePart {
  float sum;

  EVENKEEL_DEVICE static StablePart empty() { return {0.0f}; }
  EVENKEEL_DEVICE static StablePart merge(StablePart a, StablePart b) { return {a.sum + b.sum}; }
};

// s, 0 for z = -inf. The sixteenths keep 1 / (1 - z) of every z within the normal numbers, where an
// approximate reciprocal has its digits.
EVENKEEL_DEVICE float stable_score(float z) {
  constexpr float kSixteenth = 0.0625f;
  const float below = kSixteenth * ptx::rcp_approx_ftz(kSixteenth - kSixteenth * z);
  return z >= 0.0f ? z + 1.0f : below;
}

// p = (s lift) factor: `lift` is a power of two that keeps 1 / S of any S a normal number.
struct StableShare {
  float scale;  // of x
  float lift;
  float factor;

  // Of rows that see nothing, S is 0, and p is.
  EVENKEEL_DEVICE static StableShare of(float scale, float sum) {
    constexpr float kLarge = 18446744073709551616.0f;  // 2^64
    const float lift = sum > kLarge ? 1.0f / kLarge : sum < 1.0f / kLarge ? kLarge : 1.0f;
    return {scale, lift, sum > 0.0f ? 1.0f / (sum * lift) : 0.0f};
  }
  EVENKEEL_DEVICE float operator()(float x) const {
    return stable_score(x * scale) * lift * factor;
  }
};

// A thread's units of a row.
template <typename Layout>
EVENKEEL_DEVICE ExponentialPart gather_exponentials(const typename Layout::Units& units,
                                                    FloatType type, float rate) {
  const auto add = [](float a, float b) { return a + b; };
  float max = negative_infinity();
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    typename Layout::Unit x;
    unpack_unit(units[u], type, x);
    max = fmaxf(max, pairwise<Layout::kChunk>(x, [](float a, float b) { return fmaxf(a, b); }));
  }
  // Any finite number does where there is nothing: x - base is -inf.
  const float base = max > negative_infinity() ? max : 0.0f;
  float count = 0.0f;
  float others = 0.0f;
  float gap = 0.0f;
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    typename Layout::Unit x;
    unpack_unit(units[u], type, x);
    typename Layout::Unit gaps;
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      const float t = (base - x[e]) * rate;
      const float share = ptx::ex2_approx_ftz(-t);
      const bool top = x[e] == base;
      count += top ? 1.0f : 0.0f;
      x[e] = top ? 0.0f : share;
      gaps[e] = share * fminf(t, kFarExponent);
    }
    others += pairwise<Layout::kChunk>(x, add);
    gap += pairwise<Layout::kChunk>(gaps, add);
  }
  return {max, count, others, gap};
}

template <typename Layout>
EVENKEEL_DEVICE float sum_scores(const typename Layout::Units& units, FloatType type, float scale) {
  float sum = 0.0f;
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    typename Layout::Unit s;
    unpack_unit(units[u], type, s);
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) s[e] = stable_score(s[e] * scale);
    sum += pairwise<Layout::kChunk>(s, [](float a, float b) { return a + b; });
  }
  return sum;
}

template <typename Layout>
EVENKEEL_DEVICE float sum_surprise(const typename Layout::Units& units, FloatType type,
                                   const StableShare& share) {
  float entropy = 0.0f;
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    typename Layout::Unit p;
    unpack_unit(units[u], type, p);
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      p[e] = share(p[e]);
      p[e] = p[e] > 0.0f ? -p[e] * logf(p[e]) : 0.0f;
    }
    entropy += pairwise<Layout::kChunk>(p, [](float a, float b) { return a + b; });
  }
  return entropy;
}

// What a row's y are made from.
struct RowShares {
  float base;    // the largest x
  float factor;  // 1 / S
  float log_sum;
  StableShare stable;
  float entropy;
  float normalizer;
  bool fine;
};

template <typename Layout, typename Team>
struct SoftmaxForward {
  using Unit = typename Layout::Unit;
  using Units = typename Layout::Units;

  const SoftmaxForwardParams& params;
  Team& team;
  float rate;  // exp(scale d) = 2^(rate d)

  EVENKEEL_DEVICE void load(const RowPlace& place, const Columns<Layout>& columns, Units& x) const {
    fetch_seen(params.x, place, columns, minus_infinity(params.x.type), x);
  }

  EVENKEEL_DEVICE RowShares exponentials(const RowPlace& place, const Columns<Layout>& visible,
                                         Units& x) {
    const MergeExponentials merge = {rate};
    ExponentialPart part = ExponentialPart::empty();
    for (uint32_t s = 0; s < params.grid.segments; ++s) {
      load(place, visible.segment(s), x);
      part = merge(part, gather_exponentials<Layout>(x, params.x.type, rate));
    }
    part = team.merge(part, merge);
    const bool any = part.max > negative_infinity();
    const float sum = part.count + part.others;
    RowShares row = {};
    // NaN is no maximum, but an exponential that others have.
    row.fine = part.max <= kFloatMax && is_finite(part.others);
    row.base = any ? part.max : 0.0f;
    row.factor = any ? 1.0f / sum : 0.0f;
    row.log_sum = any ? log1pf((part.count - 1.0f) + part.others) : 0.0f;
    row.entropy = any ? row.log_sum + part.gap * kLn2 / sum : 0.0f;
    row.normalizer = part.max * params.scale + row.log_sum;
    return row;
  }

  EVENKEEL_DEVICE RowShares scores(const RowPlace& place, const Columns<Layout>& visible,
                                   Units& x) {
    StablePart part = StablePart::empty();
    for (uint32_t s = 0; s < params.grid.segments; ++s) {
      load(place, visible.segment(s), x);
      part.sum += sum_scores<Layout>(x, params.x.type, params.scale);
    }
    part = team.merge(part);
    RowShares row = {};
    row.fine = is_finite(part.sum);
    row.normalizer = part.sum;
    row.stable = StableShare::of(params.scale, part.sum);
    if (params.entropy != nullptr) {
      StablePart entropy = StablePart::empty();
      for (uint32_t s = 0; s < params.grid.segments; ++s) {
        if (params.grid.segments > 1) load(place, visible.segment(s), x);
        entropy.sum += sum_surprise<Layout>(x, params.x.type, row.stable);
      }
      row.entropy = team.merge(entropy).sum;
    }
    return row;
  }

  EVENKEEL_DEVICE uint32_t row(uint32_t index, const Columns<Layout>& all) {
    const RowGrid& grid = params.grid;
    const bool present = index < grid.rows;
    const RowPlace place = {index, index, 0};
    Columns<Layout> columns = all;
    if (!present) columns.end = 0;
    Columns<Layout> visible = columns;
    visible.end = min(all.end, visible_keys(team, params.mask, index, grid));
    const SoftmaxKind kind = params.kind;

    Units x;
    const RowShares shares = kind == SoftmaxKind::kStableMax ? scores(place, visible, x)
                                                             : exponentials(place, visible, x);
    uint32_t status = 0;
    if (present && team.leads()) {
      const float nan = quiet_nan();
      if (params.entropy != nullptr) params.entropy[index] = shares.fine ? shares.entropy : nan;
      if (params.normalizer != nullptr) {
        params.normalizer[index] = shares.fine ? shares.normalizer : nan;
      }
      if (!shares.fine) status |= kNonFiniteRow;
    }

    for (uint32_t s = 0; s < grid.segments; ++s) {
      const Columns<Layout> here = columns.segment(s);
      const Columns<Layout> seen_here = visible.segment(s);
      if (grid.segments > 1) load(place, seen_here, x);
      const auto value = [&](int u, Unit& y) {
        if (!shares.fine) {
          const float absent = kind == SoftmaxKind::kLogSoftmax ? negative_infinity() : 0.0f;
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            y[e] = here.at(u, e) < seen_here.end ? quiet_nan() : absent;
          }
          return;
        }
        unpack_unit(x[u], params.x.type, y);
        if (kind == SoftmaxKind::kSoftmax) {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            y[e] = ptx::ex2_approx_ftz((y[e] - shares.base) * rate) * shares.factor;
          }
        } else if (kind == SoftmaxKind::kLogSoftmax) {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            y[e] = (y[e] - shares.base) * params.scale - shares.log_sum;
          }
        } else {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            y[e] = shares.stable(y[e]);
          }
        }
      };
      StoreFloats().row(params.y, place, here, team, value);
    }
    return status;
  }
};

// Shared memory: the team's.
template <typename Layout, typename Team>
EVENKEEL_DEVICE void softmax_forward(const SoftmaxForwardParams& params) {
  const RowGrid& grid = params.grid;
  Team team(grid, *reinterpret_cast<typename Team::Shared*>(platform::dynamic_shared()));
  // A scale near the end of fp32 must not make 0 NaN.
  const float rate = fminf(params.scale * kLog2E, kFloatMax);
  SoftmaxForward<Layout, Team> op = {params, team, rate};
  const Columns<Layout> columns = team.template columns<Layout>(grid);
  uint32_t status = 0;
  for (uint32_t first = team.worker() * team.count(); first < grid.rows;
       first += team.workers() * team.count()) {
    status |= op.row(first + team.index(), columns);
  }
  if (status != 0) atomicOr(params.status, status);
  team.leave();
}

}  // namespace evenkeel
