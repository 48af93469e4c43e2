// The variability of an embedding table: the standard deviation of each token's row, and its mean
// over the tokens.
//
//   d_t = sqrt(mean_j (E_tj - mean_j E_tj)^2)      TEV = mean_t d_t
//
// Never materialised: deviations of elements, means. The mathematics is src/reference/norm/tev.rs.
//
// Traffic: one read of the table, however long its rows; one write of d, and one read of it for its
// mean. At 4.3 TB/s, as norm/forward.cuh has it, 128256 x 4096 in bf16 are 1.05 GB and 244 us: a
// prediction, nothing of this has been measured yet.
//
// Mapping: norm_tev_*: a team of threads a row (common/team.cuh), blocks persistent.
// norm_tev_mean: one block, so that the order of the sum is fixed; in fp64, whose range no sum of
// deviations leaves.

#include "common/block_reduce.cuh"
#include "common/team.cuh"
#include "norm/statistics.cuh"

namespace evenkeel {

// Mirrored in src/norm/kernels/tev.rs.
struct TevParams {
  RowGrid grid;
  RowTensor table;
  float* deviations;  // [rows]
  uint32_t* status;
};
struct TevMeanParams {
  const float* deviations;
  float* tev;
  uint32_t rows;
  uint32_t unused;
};
static_assert(sizeof(TevParams) == 80, "src/norm/kernels/tev.rs mirrors it");
static_assert(sizeof(TevMeanParams) == 24, "src/norm/kernels/tev.rs mirrors it");

namespace {

template <typename Layout>
EVENKEEL_DEVICE void deviations(const TevParams& params) {
  const RowGrid& grid = params.grid;
  LocalTeam team(grid, *reinterpret_cast<TeamShared*>(platform::dynamic_shared()));
  const Columns<Layout> all = team.columns<Layout>(grid);
  uint32_t status = 0;
  for (uint32_t first = team.worker() * team.count(); first < grid.rows;
       first += team.workers() * team.count()) {
    const uint32_t row = first + team.index();
    const bool present = row < grid.rows;
    const RowPlace place = row_place(grid, row);
    Columns<Layout> columns = all;
    if (!present) columns.end = 0;
    typename Layout::Units x;
    const auto sums = [&](float scale, bool first_look) {
      Spread part = Spread::empty();
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        if (first_look || grid.segments > 1) fetch(params.table, place, here, x);
        gather(x, params.table.type, here, scale, part);
      }
      return team.merge(part);
    };
    const RowMoments moments = row_moments(team, grid.columns, 0.0f, sums);
    if (!present || !team.leads()) continue;
    // A constant row has no deviation, which is no fault here.
    const bool finite = is_finite(moments.spread);
    params.deviations[row] = finite ? sqrtf(moments.spread) / moments.scale : quiet_nan();
    if (!finite) status |= kNonFiniteRow;
  }
  if (status != 0) atomicOr(params.status, status);
}

EVENKEEL_DEVICE void mean(const TevMeanParams& params) {
  double* const scratch = reinterpret_cast<double*>(platform::dynamic_shared());
  double sum = 0.0;
  for (uint32_t row = threadIdx.x; row < params.rows; row += blockDim.x) {
    sum += static_cast<double>(params.deviations[row]);
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x != 0) return;
  *params.tev = params.rows > 0 ? static_cast<float>(sum / params.rows) : 0.0f;
}

}  // namespace
}  // namespace evenkeel

// As norm/rows_block.cu has them.
#define TEV_ROWS(K, name, chunk, units, spread, threads, blocks) \
  K(norm_tev_##name, evenkeel::TevParams, threads, blocks,       \
    (evenkeel::deviations<evenkeel::RowLayout<chunk, units, spread>>))
#define TEV_KERNELS(K)                   \
  TEV_ROWS(K, c8u4, 8, 4, false, 256, 3) \
  TEV_ROWS(K, c4u4, 4, 4, false, 256, 3) \
  TEV_ROWS(K, s4u4, 4, 4, true, 512, 1)  \
  K(norm_tev_mean, evenkeel::TevMeanParams, 1024, 1, (evenkeel::mean))

EVENKEEL_EXPORT(norm_tev, TEV_KERNELS)
