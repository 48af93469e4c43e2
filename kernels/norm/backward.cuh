// RmsNorm and LayerNorm, backward, with what the forward had beside: residual, gate, rotary
// embedding.
//
//   a = dn (gamma + offset)     dn = dy, turned back, times silu(z)     h = (x - mean) rstd
//   dx = rstd (a - mean(a) - h mean(a h)) + dstream                    (RmsNorm has no mean(a))
//   dgamma = sum over rows of dn h     dbeta = sum over rows of dn
//   dz = dy n sigmoid(z) (1 + z sigmoid(-z))     n = h (gamma + offset) + beta
//
// The saved mean is rounded to fp32, which a row with an offset notices: h would be off by a
// constant. The sum of h, gathered with the others, takes it away again.
//
// Traffic: each element of x, dy and, where they are, dstream or z is read once; dx, and dresidual
// or dz, are written once. The weights' gradients add a row of fp32 a block each (column_sums.cuh).
// At 4.3 TB/s, as forward.cuh has it, 16384 x 8192 in bf16 are 805 MB and 187 us; with dstream 1.07
// GB and 250 us; with a gate 1.34 GB and 312 us; 16384 x 32 heads of 128, 405 MB and 94 us. These
// are predictions: nothing of this has been measured yet.
//
// Mapping: as forward.cuh. A row's x and dy are on their way while the row before is worked on:
// the sums that a thread keeps leave room for few blocks a multiprocessor.
#pragma once

#include <type_traits>

#include "common/column_sums.cuh"
#include "norm/forward.cuh"

namespace evenkeel {

// The sums of a row.
struct RmsSums {
  float ah;

  EVENKEEL_DEVICE static RmsSums empty() { return {0.0f}; }
  EVENKEEL_DEVICE static RmsSums merge(RmsSums a, RmsSums b) { return {a.ah + b.ah}; }
  EVENKEEL_DEVICE bool fine() const { return is_finite(ah); }
  EVENKEEL_DEVICE void add(float product, float /*a*/, float /*h*/) { ah += product; }
};

struct LayerSums {
  float ah;
  float a;
  float h;

  EVENKEEL_DEVICE static LayerSums empty() { return {0.0f, 0.0f, 0.0f}; }
  EVENKEEL_DEVICE static LayerSums merge(LayerSums x, LayerSums y) {
    return {x.ah + y.ah, x.a + y.a, x.h + y.h};
  }
  EVENKEEL_DEVICE bool fine() const { return is_finite(ah) && is_finite(a) && is_finite(h); }
  EVENKEEL_DEVICE void add(float product, float gradient, float normalized) {
    ah += product;
    a += gradient;
    h += normalized;
  }
};

// 2^-100 and back: for gradients whose sums overflow.
inline constexpr float kShrink = 7.888609052210118e-31f;
inline constexpr float kGrow = 1.2676506002282294e30f;

template <bool kLayer, Extra kExtra, typename Layout, typename Team>
struct NormBackward {
  using Params = NormBackwardParams;
  using Unit = typename Layout::Unit;
  using Units = typename Layout::Units;
  using Quad = float[4];
  using Sums = std::conditional_t<kLayer, LayerSums, RmsSums>;
  static constexpr bool kRotary = kExtra == Extra::kRotary;
  static constexpr bool kGate = kExtra == Extra::kGate;
  // Where registers are left for it.
  static constexpr bool kLooksAhead =
      kExtra == Extra::kNone && Layout::kUnits == 2 && !Layout::kSpread;

  // What is fetched ahead.
  struct Ahead {
    Units x;
    Units dy;
  };

  // What a row's elements are multiplied with.
  struct Row {
    float rstd;
    float mean;
    float scale;   // of dy: 1, but for gradients whose sums overflow
    float offset;  // of h, from the mean's rounding
    float c1;
    float c2;
    bool fine;
  };

  const Params& params;
  Team& team;
  float* heads;
  ColumnSums<Layout>& dgamma;
  ColumnSums<Layout>& dbeta;
  uint32_t status;

  EVENKEEL_DEVICE void look_ahead(const RowPlace& place, const Columns<Layout>& columns,
                                  Ahead& row) const {
    if (!kRotary || params.normalize != 0) fetch(params.x, place, columns, row.x);
    fetch(params.dy, place, columns, row.dy);
  }

  EVENKEEL_DEVICE void factors(const RowPlace& place, const Columns<Layout>& columns, int u, int q,
                               Quad& factor) const {
    load_quad(params.gamma, place.head, columns, u, q, 1.0f - params.gamma_offset, factor);
#pragma unroll
    for (int e = 0; e < 4; ++e) factor[e] += params.gamma_offset;
  }

  // h but for the offset.
  EVENKEEL_DEVICE float normalized(const Row& row, float x) const {
    return kLayer ? (x - row.mean) * row.rstd : x * row.rstd;
  }

  // The gradient of the norm's result, times row.scale.
  EVENKEEL_DEVICE void incoming(const Row& row, const Units& dy, const Units& beside, int u, int q,
                                Quad& g) const {
    unpack_quad<Layout>(dy[u], params.dy.type, q, g);
#pragma unroll
    for (int e = 0; e < 4; ++e) g[e] *= row.scale;
    if constexpr (kGate) {
      Quad z;
      unpack_quad<Layout>(beside[u], params.gate.type, q, z);
#pragma unroll
      for (int e = 0; e < 4; ++e) g[e] *= silu(z[e]);
    }
  }

  // A segment's share of the sums.
  template <typename Incoming>
  EVENKEEL_DEVICE void gather_sums(const Row& row, const RowPlace& place,
                                   const Columns<Layout>& columns, const Units& x,
                                   Incoming incoming_of, Sums& sums) const {
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (!columns.has(u)) continue;
      const int count = columns.count(u);
#pragma unroll
      for (int q = 0; q < Layout::kQuads; ++q) {
        Quad g;
        Quad h;
        Quad factor;
        incoming_of(u, q, g);
        unpack_quad<Layout>(x[u], params.x.type, q, h);
        factors(place, columns, u, q, factor);
        Quad product;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          h[e] = !Layout::kSpread || e < count ? normalized(row, h[e]) : 0.0f;
          g[e] *= factor[e];
          product[e] = g[e] * h[e];
        }
        const auto plus = [](float a, float b) { return a + b; };
        sums.add(pairwise<4>(product, plus), kLayer ? pairwise<4>(g, plus) : 0.0f,
                 kLayer ? pairwise<4>(h, plus) : 0.0f);
      }
    }
  }

  EVENKEEL_DEVICE static void set_means(const RmsSums& sums, uint32_t columns, Row& row) {
    row.offset = row.c1 = 0.0f;
    row.c2 = sums.ah / static_cast<float>(columns);
  }
  EVENKEEL_DEVICE static void set_means(const LayerSums& sums, uint32_t columns, Row& row) {
    const float count = static_cast<float>(columns);
    row.offset = sums.h / count;
    row.c1 = sums.a / count;
    row.c2 = (sums.ah - row.offset * sums.a) / count;
  }

  // dx, dz and the row's share of the weights' gradients, of one segment.
  template <typename Incoming>
  EVENKEEL_DEVICE void emit(const Row& row, const RowPlace& place, const Columns<Layout>& columns,
                            const Units& x, const Units& dy, const Units& beside,
                            Incoming incoming_of) {
    unsigned char* const dx = row_address<Layout>(params.dx, place);
    const float back = row.scale == 1.0f ? 1.0f : kGrow;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (!columns.has(u)) continue;
      uint4 packed = {};
      uint4 second = {};  // of dresidual or dz
#pragma unroll
      for (int q = 0; q < Layout::kQuads; ++q) {
        Quad g;
        Quad h;
        Quad factor;
        incoming_of(u, q, g);
        unpack_quad<Layout>(x[u], params.x.type, q, h);
        factors(place, columns, u, q, factor);
        Quad out;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          h[e] = normalized(row, h[e]) - row.offset;
          out[e] = row.rstd * (g[e] * factor[e] - row.c1 - h[e] * row.c2) * back;
          g[e] *= back;
          if (!row.fine) out[e] = quiet_nan();
          if (kGate && !row.fine) g[e] = quiet_nan();
        }
        if constexpr (kGate) {
          gate_gradient(row, place, columns, dy, beside, u, q, h, factor, second);
        } else if constexpr (!kRotary) {
          if (params.dstream.data != nullptr) {
            Quad stream;
            unpack_quad<Layout>(beside[u], params.dstream.type, q, stream);
#pragma unroll
            for (int e = 0; e < 4; ++e) out[e] += stream[e];
          }
          if (params.dresidual.data != nullptr) {
            pack_quad<Layout>(out, params.dresidual.type, q, second);
          }
        }
        pack_quad<Layout>(out, params.dx.type, q, packed);
        if (params.dbeta != nullptr) dbeta.add(columns, u, q, g);
        if (params.dgamma != nullptr) {
#pragma unroll
          for (int e = 0; e < 4; ++e) g[e] *= h[e];
          dgamma.add(columns, u, q, g);
        }
      }
      store_unit(dx, params.dx.type, columns, u, packed);
      const RowTensor& other = kGate ? params.dgate : params.dresidual;
      if (!kRotary && other.data != nullptr) {
        store_unit(row_address<Layout>(other, place), other.type, columns, u, second);
      }
    }
  }

  // dz of four elements.
  EVENKEEL_DEVICE void gate_gradient(const Row& row, const RowPlace& place,
                                     const Columns<Layout>& columns, const Units& dy,
                                     const Units& beside, int u, int q, const Quad& h,
                                     const Quad& factor, uint4& packed) const {
    Quad z;
    Quad upper;
    Quad out;
    unpack_quad<Layout>(beside[u], params.gate.type, q, z);
    unpack_quad<Layout>(dy[u], params.dy.type, q, upper);
    load_quad(params.beta, place.head, columns, u, q, 0.0f, out);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float n = h[e] * factor[e] + out[e];
      out[e] = upper[e] * n * (sigmoid(z[e]) * (1.0f + z[e] * sigmoid(-z[e])));
      if (!row.fine) out[e] = quiet_nan();
    }
    pack_quad<Layout>(out, params.dgate.type, q, packed);
  }

  // The tensor beside: z or dstream.
  EVENKEEL_DEVICE void fetch_beside(const RowPlace& place, const Columns<Layout>& columns,
                                    Units& beside) const {
    if constexpr (kGate) {
      fetch(params.gate, place, columns, beside);
    } else if constexpr (!kRotary) {
      if (params.dstream.data != nullptr) fetch(params.dstream, place, columns, beside);
    }
  }

  EVENKEEL_DEVICE void row(const RowPlace& place, const Columns<Layout>& all, const Ahead& ahead) {
    const RowGrid& grid = params.grid;
    const bool present = place.row < grid.rows;
    Columns<Layout> columns = all;
    if (!present) columns.end = 0;

    Row row = {1.0f, 0.0f, 1.0f, 0.0f, 0.0f, 0.0f, true};
    if (present && params.normalize != 0) {
      row.rstd = params.rstd[place.row];
      if constexpr (kLayer) row.mean = params.mean[place.row];
    }
    Units x;
    Units dy;
    Units beside;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      x[u] = ahead.x[u];
      dy[u] = ahead.dy[u];
    }
    if (grid.segments == 1) fetch_beside(place, columns, beside);

    if constexpr (kRotary) {
      turned_row(row, place, columns, x, dy, beside, present);
      return;
    }
    const auto load = [&](const Columns<Layout>& here) {
      if (grid.segments == 1) return;
      fetch(params.x, place, here, x);
      fetch(params.dy, place, here, dy);
      fetch_beside(place, here, beside);
    };
    const auto incoming_of = [&](int u, int q, Quad& g) { incoming(row, dy, beside, u, q, g); };
    const auto sums_of = [&]() {
      Sums sums = Sums::empty();
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        load(here);
        gather_sums(row, place, here, x, incoming_of, sums);
        if constexpr (kGate) sums.ah += faults(beside);
      }
      return team.merge(sums);
    };
    reduce(row, sums_of, present);
    for (uint32_t s = 0; s < grid.segments; ++s) {
      const Columns<Layout> here = columns.segment(s);
      load(here);
      emit(row, place, here, x, dy, beside, incoming_of);
    }
  }

  // Gathers the sums; gradients that are finite and whose sums are not, at a smaller scale.
  template <typename SumsOf>
  EVENKEEL_DEVICE void reduce(Row& row, SumsOf sums_of, bool present) {
    Sums sums = sums_of();
    row.fine = sums.fine();
    const bool again = !row.fine && is_finite(row.rstd);
    if (team.any(again)) {
      if (again) row.scale = kShrink;
      sums = sums_of();
      row.fine = sums.fine();
    }
    set_means(sums, params.grid.columns, row);
    if (present && team.leads() && !row.fine) status |= kNonFiniteRow;
  }

  // 0 for a gate that is finite, NaN for one that is not.
  EVENKEEL_DEVICE float faults(const Units& beside) const {
    float sum = 0.0f;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      Unit z;
      unpack_unit(beside[u], params.gate.type, z);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) sum += 0.0f * z[e];
    }
    return sum;
  }

  // Whether this thread's part of the gradient of y is finite.
  EVENKEEL_DEVICE bool all_finite(const Units& dy) const {
    bool fine = true;
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      Unit before;
      unpack_unit(dy[u], params.dy.type, before);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) fine = fine && is_finite(before[e]);
    }
    return fine;
  }

  // A head whose gradient is turned back first.
  EVENKEEL_DEVICE void turned_row(Row& row, const RowPlace& place, const Columns<Layout>& columns,
                                  const Units& x, const Units& dy, const Units& beside,
                                  bool present) {
    uint32_t found = 0;
    const int64_t position = present ? rotary_row(params.rotary, place.token, found) : -1;
    const Rotation<Layout> rotation = {params.rotary, heads, position, -1.0f};
    Unit turned[Layout::kUnits];
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) unpack_unit(dy[u], params.dy.type, turned[u]);
    if (!rotation.stays_in_unit()) {
      // The row before must have been read.
      team.sync();
#pragma unroll
      for (int u = 0; u < Layout::kUnits; ++u) {
        if (columns.has(u)) rotation.publish(columns, u, turned[u]);
      }
      team.sync();
    }
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (columns.has(u)) rotation.turn(columns, u, turned[u]);
    }
    if (params.normalize == 0) {
      unsigned char* const dx = row_address<Layout>(params.dx, place);
#pragma unroll
      for (int u = 0; u < Layout::kUnits; ++u) {
        store_unit(dx, params.dx.type, columns, u, pack_unit(turned[u], params.dx.type));
      }
      if (present && !all_finite(dy)) found |= kNonFiniteRow;
      status |= found;
      return;
    }
    const auto incoming_of = [&](int u, int q, Quad& g) {
#pragma unroll
      for (int e = 0; e < 4; ++e) g[e] = turned[u][4 * q + e] * row.scale;
    };
    const auto sums_of = [&]() {
      Sums sums = Sums::empty();
      gather_sums(row, place, columns, x, incoming_of, sums);
      return team.merge(sums);
    };
    // Without a position the row is NaN whatever it holds: its sums say nothing of dy.
    const bool lost = present && position < 0;
    reduce(row, sums_of, present && !lost);
    if (lost && !(all_finite(dy) && is_finite(row.rstd))) found |= kNonFiniteRow;
    status |= found;
    emit(row, place, columns, x, dy, beside, incoming_of);
  }
};

// Shared memory: the team's, rows for rotary, sums of columns.
template <bool kLayer, Extra kExtra, typename Layout, typename Team>
EVENKEEL_DEVICE void norm_backward(const NormBackwardParams& params) {
  unsigned char* const base = platform::dynamic_shared();
  const RowGrid& grid = params.grid;
  Team team(grid, *reinterpret_cast<typename Team::Shared*>(base));
  const uint32_t row_floats = (grid.columns + 3) / 4 * 4;
  float* const heads = reinterpret_cast<float*>(base + sizeof(typename Team::Shared)) +
                       (kExtra == Extra::kRotary ? team.index() * row_floats : 0);
  const Columns<Layout> columns = team.template columns<Layout>(grid);
  ColumnSums<Layout> dgamma;
  ColumnSums<Layout> dbeta;
  // Where the sums of a weight go in shared memory: those of gamma come first, where there are any.
  const auto sums_place = [&](bool second) {
    const uint32_t capacity = team.threads() * Layout::kColumns * grid.segments;
    float* shared = nullptr;
    if (params.sums_offset != 0) {
      shared = reinterpret_cast<float*>(base + params.sums_offset);
      if (second && params.dgamma != nullptr) shared += team.count() * capacity;
    }
    return SumsPlace{shared, team.template first_column<Layout>(grid), capacity};
  };
  using Op = NormBackward<kLayer, kExtra, Layout, Team>;
  Op op = {params, team, heads, dgamma, dbeta, 0};

  // Rows that share their weights' gradients: all of them, or those of one head.
  const uint32_t rows = grid.rows / params.groups;
  const uint32_t step = params.slices * team.count();
  for (uint32_t item = team.worker(); item < params.groups * params.slices;
       item += team.workers()) {
    const uint32_t group = divide(item, params.by_slices);
    const uint32_t slice = item - group * params.slices;
    const auto place_of = [&](uint32_t index) {
      return index < rows ? row_place(grid, index * params.groups + group)
                          : RowPlace{grid.rows, 0, 0};
    };
    const auto partial = [&](float* sums) {
      return sums + static_cast<uint64_t>(item) * grid.columns;
    };
    if (params.dgamma != nullptr) {
      dgamma.begin(team, sums_place(false), columns, grid.segments, partial(params.dgamma));
    }
    if (params.dbeta != nullptr) {
      dbeta.begin(team, sums_place(true), columns, grid.segments, partial(params.dbeta));
    }
    uint32_t first = slice * team.count();
    const auto look = [&](uint32_t index, typename Op::Ahead& into) {
      if (grid.segments > 1) return;
      const RowPlace place = place_of(index);
      Columns<Layout> there = columns;
      if (place.row >= grid.rows) there.end = 0;
      op.look_ahead(place, there, into);
    };
    if constexpr (Op::kLooksAhead) {
      typename Op::Ahead ahead;
      look(first + team.index(), ahead);
      for (; first < rows; first += step) {
        const typename Op::Ahead row = ahead;
        if (first + step < rows) look(first + step + team.index(), ahead);
        op.row(place_of(first + team.index()), columns, row);
      }
    } else {
      for (; first < rows; first += step) {
        typename Op::Ahead row;
        look(first + team.index(), row);
        op.row(place_of(first + team.index()), columns, row);
      }
    }
    if (params.dgamma != nullptr) {
      dgamma.finish(team, sums_place(false), columns, partial(params.dgamma));
    }
    if (params.dbeta != nullptr) {
      dbeta.finish(team, sums_place(true), columns, partial(params.dbeta));
    }
  }
  if (op.status != 0) atomicOr(params.status, op.status);
  team.leave();
}

}  // namespace evenkeel
