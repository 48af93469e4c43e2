// Softmax, log-softmax and StableMax of masked rows, backward, from y as it is stored.
//
//   softmax    dz_j = p_j (g_j - A - u (log p_j + H))               A = sum p g   H = -sum p log p
//   log        dz_j = g_j - p_j (A + u (log p_j + H))               A = sum g     p = exp(y)
//   stablemax  dz_j = s'_j / S (g_j - A - u (log p_j + H))          s'_j = min(1, S p_j)^2
//   dx_j = scale dz_j, and 0 where p_j = 0
//
// with g the gradient of y and u that of the entropy. Never materialised: the Jacobian, p of a
// log-softmax. The mathematics is src/reference/norm/softmax.rs.
//
// Traffic: y and dy are read once where a row sees them, dx is written once, in rows that the
// registers of a block or of a cluster hold; longer ones are read again from L2. At 4.3 TB/s, as
// norm/forward.cuh has it, 16384 x 8192 in bf16 without a mask are 805 MB and 187 us: a prediction,
// nothing of this has been measured yet.
//
// Mapping: as norm/softmax_forward.cuh, where p = 0 stands for what a row does not see.
#pragma once

#include "common/team.cuh"
#include "norm/store.cuh"
#include "norm/visible.cuh"
#include "ptx/math.cuh"

namespace evenkeel {

struct GradientPart {
  float mean;
  float entropy;

  EVENKEEL_DEVICE static GradientPart empty() { return {0.0f, 0.0f}; }
  EVENKEEL_DEVICE static GradientPart merge(GradientPart a, GradientPart b) {
    return {a.mean + b.mean, a.entropy + b.entropy};
  }
};

template <typename Layout, typename Team>
struct SoftmaxBackward {
  using Unit = typename Layout::Unit;
  using Units = typename Layout::Units;

  const SoftmaxBackwardParams& params;
  Team& team;

  EVENKEEL_DEVICE bool is_log() const { return params.kind == SoftmaxKind::kLogSoftmax; }

  EVENKEEL_DEVICE void load(const RowPlace& place, const Columns<Layout>& columns, Units& y,
                            Units& dy) const {
    fetch(params.dy, place, columns, dy);
    fetch_seen(params.y, place, columns, is_log() ? minus_infinity(params.y.type) : 0, y);
  }

  // y times g, or for log-softmax g; NaN where either is not finite. 0 where p is.
  EVENKEEL_DEVICE float gather_mean(const Units& y, const Units& dy) const {
    const auto add = [](float a, float b) { return a + b; };
    float sum = 0.0f;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      Unit share;
      Unit g;
      unpack_unit(y[u], params.y.type, share);
      unpack_unit(dy[u], params.dy.type, g);
      if (is_log()) {
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) {
          g[e] = share[e] == negative_infinity() ? 0.0f : g[e] + 0.0f * share[e];
        }
      } else {
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) {
          g[e] = share[e] == 0.0f ? 0.0f : share[e] * g[e];
        }
      }
      sum += pairwise<Layout::kChunk>(g, add);
    }
    return sum;
  }

  // p and log p, for p > 0.
  EVENKEEL_DEVICE void share_of(float y, float& p, float& log_p) const {
    p = is_log() ? exp_fast(y) : y;
    log_p = is_log() ? y : logf(y);
  }

  EVENKEEL_DEVICE float gather_entropy(const Units& y) const {
    const float absent = is_log() ? negative_infinity() : 0.0f;
    float entropy = 0.0f;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      Unit share;
      unpack_unit(y[u], params.y.type, share);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) {
        float p;
        float log_p;
        share_of(share[e], p, log_p);
        share[e] = share[e] == absent ? 0.0f : -p * log_p;
      }
      entropy += pairwise<Layout::kChunk>(share, [](float a, float b) { return a + b; });
    }
    return entropy;
  }

  EVENKEEL_DEVICE uint32_t row(uint32_t index, const Columns<Layout>& all) {
    const RowGrid& grid = params.grid;
    const bool present = index < grid.rows;
    const RowPlace place = {index, index, 0};
    Columns<Layout> columns = all;
    if (!present) columns.end = 0;
    Columns<Layout> visible = columns;
    visible.end = min(all.end, visible_keys(team, params.mask, index, grid));
    const bool stable = params.kind == SoftmaxKind::kStableMax;
    const bool weighted = params.dentropy != nullptr;
    const auto of_row = [&](const float* values) {
      return load_once(team, present, [&] { return values[index]; });
    };
    const float dentropy = weighted ? of_row(params.dentropy) : 0.0f;
    const float normalizer = stable ? of_row(params.normalizer) : 1.0f;
    const float reciprocal = 1.0f / normalizer;

    Units y;
    Units dy;
    GradientPart part = GradientPart::empty();
    for (uint32_t s = 0; s < grid.segments; ++s) {
      load(place, visible.segment(s), y, dy);
      part.mean += gather_mean(y, dy);
      if (weighted) part.entropy += gather_entropy(y);
    }
    part = team.merge(part);
    const bool fine = is_finite(part.mean);

    bool wrong = false;
    for (uint32_t s = 0; s < grid.segments; ++s) {
      const Columns<Layout> here = columns.segment(s);
      const Columns<Layout> seen_here = visible.segment(s);
      if (grid.segments > 1) load(place, seen_here, y, dy);
      const auto value = [&](int u, Unit& dx) {
        if (!fine) {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            const bool is_seen = here.at(u, e) < seen_here.end;
            dx[e] = is_seen ? quiet_nan() : 0.0f;
            wrong |= is_seen;
          }
          return;
        }
        Unit share;
        unpack_unit(y[u], params.y.type, share);
        unpack_unit(dy[u], params.dy.type, dx);
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) {
          float shift = part.mean;
          if (weighted) {
            float p;
            float log_p;
            share_of(share[e], p, log_p);
            shift += dentropy * (log_p + part.entropy);
          }
          if (is_log()) {
            const float dz = dx[e] - exp_fast(share[e]) * shift;
            dx[e] = share[e] == negative_infinity() ? 0.0f : params.scale * dz;
          } else {
            // S p below 1 is s, and s^2 / S = s p.
            const float s = share[e] * normalizer;
            const float slope = !stable ? share[e] : s < 1.0f ? s * share[e] : reciprocal;
            const float dz = slope * (dx[e] - shift);
            dx[e] = share[e] == 0.0f ? 0.0f : params.scale * dz;
          }
          wrong |= dx[e] != dx[e];
        }
      };
      StoreFloats().row(params.dx, place, here, team, value);
    }
    return wrong ? kNonFiniteRow : 0;
  }
};

// Shared memory: the team's.
template <typename Layout, typename Team>
EVENKEEL_DEVICE void softmax_backward(const SoftmaxBackwardParams& params) {
  const RowGrid& grid = params.grid;
  Team team(grid, *reinterpret_cast<typename Team::Shared*>(platform::dynamic_shared()));
  SoftmaxBackward<Layout, Team> op = {params, team};
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
