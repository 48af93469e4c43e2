// Dynamic tanh, forward, with results in 8 or 4 bits (common/quantized_rows.cuh):
//
//   y = gamma tanh(alpha x) + beta
//
// Never materialised: y in a wider type.
//
// Traffic: one read of x, one write of y's bytes and scales, at any length of rows: each element is
// on its own, so that a row which goes round is read a segment at a time. A scale of the whole row
// (Fp8Row) is known after its last element: there rows of more than 8192 elements are a cluster's,
// and rows beyond its registers, or without clusters, are read again, from L2 where that holds the
// rows in flight. At 4.3 TB/s, 16384 x 8192 from bf16 to FP8 are
// 403 MB and 94 us, to FP4 340 MB and 79 us: predictions, nothing of this has been measured yet.
//
// Mapping: a team of threads a row, as of norm/forward.cuh, and not down the columns as
// norm/dyt.cu: a block's scale follows from its columns side by side. Weights are read for every
// row and stay in L1.

#pragma once

#include "common/block_reduce.cuh"
#include "common/quantized_rows.cuh"
#include "norm/dyt.cuh"

namespace evenkeel {

// Mirrored in src/norm/kernels/dyt_quantized.rs.
struct DytQuantizedParams {
  RowGrid grid;
  RowTensor x;
  RowTensor y;
  ColumnVector gamma;
  ColumnVector beta;
  const float* alpha;
  uint32_t* status;
  QuantizedRows to;
};
static_assert(sizeof(DytQuantizedParams) == 264, "src/norm/kernels/dyt_quantized.rs mirrors it");

// Shared memory: the team's, then a word for each block of the teams' rows.
template <typename Layout, typename Team>
EVENKEEL_DEVICE void dyt_quantized(const DytQuantizedParams& params) {
  using Unit = typename Layout::Unit;
  unsigned char* const base = platform::dynamic_shared();
  const RowGrid& grid = params.grid;
  Team team(grid, *reinterpret_cast<typename Team::Shared*>(base));
  uint32_t* const words = reinterpret_cast<uint32_t*>(base + sizeof(typename Team::Shared));
  StoreQuantized<Layout> store(params.to, grid, words);
  store.clear_padding();
  const float alpha = warp_load(params.alpha);
  const Columns<Layout> all = team.template columns<Layout>(grid);
  // 0, or NaN as soon as an element is not finite.
  float fault = 0.0f;
  for (uint32_t first = team.worker() * team.count(); first < grid.rows;
       first += team.workers() * team.count()) {
    const uint32_t index = first + team.index();
    const RowPlace place = {index, index, 0};
    Columns<Layout> columns = all;
    if (index >= grid.rows) columns.end = 0;
    // Goes over the results, a segment at a time.
    typename Layout::Units x;
    const auto results = [&](bool held, auto use) {
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        if (!held || grid.segments > 1) fetch(params.x, place, here, x);
        use(here, [&](int u, Unit& y) {
          Unit gamma;
          Unit beta;
          load_columns(params.gamma, 0, here, u, 1.0f, gamma);
          load_columns(params.beta, 0, here, u, 0.0f, beta);
          unpack_unit(unit_of<Layout>(x, u), params.x.type, y);
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            fault += 0.0f * y[e];
            y[e] = dynamic_tanh(y[e], alpha, gamma[e], beta[e]);
          }
        });
      }
    };
    const bool looks = store.looks();
    if (looks) {
      results(false, [&](const Columns<Layout>& here, auto value) { store.look(here, value); });
    }
    store.settle(team);
    results(looks, [&](const Columns<Layout>& here, auto value) {
      store.row(params.y, place, here, team, value);
    });
  }
  if (!is_finite(fault)) atomicOr(params.status, static_cast<uint32_t>(kNonFiniteRow));
  store.finish(params.status);
  team.leave();
}

}  // namespace evenkeel
