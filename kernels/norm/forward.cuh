// RmsNorm and LayerNorm, forward: with a residual that is added first, a gate whose silu multiplies
// the result, or a rotary embedding of heads after it.
//
//   s = x + residual, rounded to the stream's type     h = (s - mean) rstd
//   y = (h (gamma + offset) + beta) [silu(z)]           then rotated
//
// Never materialised: the sum in fp32, h, deviations. The mathematics is src/reference/norm.rs.
//
// Traffic: each element of x (and residual or gate) is read once and each of y (and the stream)
// written once, in rows that the registers of a block or of a cluster hold; where there are no
// clusters, longer rows are read a second time, from L2 where that holds the rows in flight.
// Weights are read for every row and stay in L1. At 4.3 TB/s, nine tenths of an H200's nominal
// bandwidth, 16384 x 8192 in bf16 are 537 MB and 125 us; with a residual 1.07 GB and 250 us; with a
// gate 805 MB and 187 us; 16384 x 32 heads of 128, 270 MB and 63 us. These are predictions: nothing
// of this has been measured yet.
//
// Mapping: a team of threads a row (common/team.cuh), a few units of 4 or 8 elements a thread
// (common/columns.cuh), which stay packed in registers between the statistics and the result.
// Blocks are persistent and take rows with the number of teams as stride.
#pragma once

#include "common/team.cuh"
#include "norm/rotary.cuh"
#include "norm/statistics.cuh"
#include "norm/store.cuh"
#include "ptx/math.cuh"

namespace evenkeel {

// What a kernel does beside normalizing; a residual is a matter of its tensors.
enum class Extra { kNone, kRotary, kGate };

// z sigmoid(z), and sigmoid(z): exp overflows to infinity where sigmoid is 0.
EVENKEEL_DEVICE float sigmoid(float z) {
  return ptx::rcp_approx_ftz(1.0f + ptx::ex2_approx_ftz(-z * kLog2E));
}
EVENKEEL_DEVICE float silu(float z) { return z * sigmoid(z); }

template <bool kLayer, Extra kExtra, typename Layout, typename Team, typename Store>
struct NormForward {
  using Params = NormForwardParams;
  using Partial = typename PartialOf<kLayer>::Type;
  using Unit = typename Layout::Unit;
  using Units = typename Layout::Units;

  static constexpr bool kRotary = kExtra == Extra::kRotary;
  static constexpr bool kGate = kExtra == Extra::kGate;

  const Params& params;
  Team& team;
  float* heads;  // rotary: a row of fp32 for each team of the block
  Store& store;

  // A segment of what is normalized, and of z. At the first look the residual is added and the
  // stream stored.
  EVENKEEL_DEVICE void load(const RowPlace& place, const Columns<Layout>& columns, bool first_look,
                            Units& x, Units& z) const {
    if constexpr (kExtra != Extra::kNone) {
      fetch(params.x, place, columns, x);
      if constexpr (kGate) fetch(params.beside, place, columns, z);
      return;
    }
    if (params.beside.data != nullptr && !first_look) {
      fetch(params.stream, place, columns, x);
      return;
    }
    fetch(params.x, place, columns, x);
    if (params.beside.data == nullptr) return;
    Units beside;
    fetch(params.beside, place, columns, beside);
    unsigned char* const stream = row_address<Layout>(params.stream, place);
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (!columns.has(u)) continue;
      Unit sum;
      Unit residual;
      unpack_unit(x[u], params.x.type, sum);
      unpack_unit(beside[u], params.beside.type, residual);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) sum[e] += residual[e];
      x[u] = pack_unit(sum, params.stream.type);
      store_unit(stream, params.stream.type, columns, u, x[u]);
    }
  }

  // 0 for a gate that is finite, NaN for one that is not.
  EVENKEEL_DEVICE float faults(const Units& z) const {
    float sum = 0.0f;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      Unit gate;
      unpack_unit(z[u], params.beside.type, gate);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) sum += 0.0f * gate[e];
    }
    return sum;
  }

  EVENKEEL_DEVICE static void add_fault(SquareSum& part, float fault) { part.sum += fault; }
  EVENKEEL_DEVICE static void add_fault(Spread& part, float fault) { part.squares += fault; }

  EVENKEEL_DEVICE uint32_t row(uint32_t index, const Columns<Layout>& all) {
    const RowGrid& grid = params.grid;
    const bool present = index < grid.rows;
    const RowPlace place = row_place(grid, index);
    Columns<Layout> columns = all;
    if (!present) columns.end = 0;
    const bool summed = kExtra == Extra::kNone && params.beside.data != nullptr;
    const FloatType type = summed ? params.stream.type : params.x.type;
    uint32_t status = 0;

    Units x;
    Units z;
    const auto sums = [&](float scale, bool first_look) {
      Partial part = Partial::empty();
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        if (first_look || grid.segments > 1) load(place, here, first_look, x, z);
        gather(x, type, here, scale, part);
        if constexpr (kGate) add_fault(part, faults(z));
      }
      return team.merge(part);
    };
    RowMoments moments = {1.0f, 0.0f, 0.0f, 1.0f, 1.0f, true};
    if (!kRotary || params.normalize != 0) {
      moments = row_moments(team, grid.columns, params.eps, sums);
      if (present && team.leads()) {
        if (params.mean != nullptr) params.mean[index] = moments.saved_mean();
        if (params.rstd != nullptr) params.rstd[index] = moments.saved_rstd();
        if (!moments.fine) status |= kNonFiniteRow;
      }
    } else {
      // The sum is only looked at.
      const float sum = mean_square(sums(0.0f, true), grid.columns);
      if (present && team.leads() && !is_finite(sum)) status |= kNonFiniteRow;
    }

    // Goes over the results, a segment at a time.
    const auto results = [&](auto use) {
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        if (grid.segments > 1) load(place, here, false, x, z);
        const auto value = [&](int u, Unit& y) {
          Unit factor;
          Unit term;
          load_columns(params.gamma, place.head, here, u, 1.0f - params.gamma_offset, factor);
          load_columns(params.beta, place.head, here, u, 0.0f, term);
          unpack_unit(unit_of<Layout>(x, u), type, y);
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            const float h =
                kLayer ? moments.normalized(y[e]) : y[e] * moments.scale * moments.factor;
            y[e] = h * (factor[e] + params.gamma_offset) + term[e];
          }
          if constexpr (kGate) {
            Unit gate;
            unpack_unit(unit_of<Layout>(z, u), params.beside.type, gate);
#pragma unroll
            for (int e = 0; e < Layout::kChunk; ++e) y[e] *= silu(gate[e]);
          }
        };
        if constexpr (kRotary) {
          const int64_t position = present ? rotary_row(params.rotary, place.token, status) : -1;
          const Rotation<Layout> rotation = {params.rotary, heads, position, 1.0f};
          if (!rotation.stays_in_unit()) {
#pragma unroll
            for (int u = 0; u < Layout::kUnits; ++u) {
              if (!here.has(u)) continue;
              Unit y;
              value(u, y);
              rotation.publish(here, u, y);
            }
            team.sync();
          }
          const auto turned = [&](int u, Unit& y) {
            value(u, y);
            rotation.turn(here, u, y);
          };
          use(here, turned);
          // The next row must not overwrite what a partner still reads.
          if (!rotation.stays_in_unit()) team.sync();
        } else {
          use(here, value);
        }
      }
    };
    if constexpr (Store::kLooks) {
      if (store.looks()) {
        results([&](const Columns<Layout>& here, auto value) { store.look(here, value); });
      }
      store.settle(team);
    }
    results([&](const Columns<Layout>& here, auto value) {
      store.row(params.y, place, here, team, value);
    });
    return status;
  }
};

// The floats of shared memory that a team's head takes on its way through a rotary embedding.
template <Extra kExtra>
EVENKEEL_DEVICE uint32_t head_floats(const RowGrid& grid) {
  return kExtra == Extra::kRotary ? (grid.columns + 3) / 4 * 4 : 0;
}

// Shared memory: the team's, then heads for rotary.
template <bool kLayer, Extra kExtra, typename Layout, typename Team, typename Store>
EVENKEEL_DEVICE void norm_forward_to(const NormForwardParams& params, Team& team, Store& store) {
  unsigned char* const base = platform::dynamic_shared();
  const RowGrid& grid = params.grid;
  float* const heads = reinterpret_cast<float*>(base + sizeof(typename Team::Shared)) +
                       team.index() * head_floats<kExtra>(grid);
  NormForward<kLayer, kExtra, Layout, Team, Store> op = {params, team, heads, store};
  const Columns<Layout> columns = team.template columns<Layout>(grid);
  uint32_t status = 0;
  for (uint32_t first = team.worker() * team.count(); first < grid.rows;
       first += team.workers() * team.count()) {
    status |= op.row(first + team.index(), columns);
  }
  if (status != 0) atomicOr(params.status, status);
}

// Into tensors of floats.
template <bool kLayer, Extra kExtra, typename Layout, typename Team>
EVENKEEL_DEVICE void norm_forward(const NormForwardParams& params) {
  unsigned char* const base = platform::dynamic_shared();
  Team team(params.grid, *reinterpret_cast<typename Team::Shared*>(base));
  StoreFloats store;
  norm_forward_to<kLayer, kExtra, Layout>(params, team, store);
  team.leave();
}

}  // namespace evenkeel
