// Dynamic tanh, which stands where a normalization would, forward and backward.
//
//   y = gamma t + beta        t = tanh(alpha x), alpha one number on the device
//
//   dx = alpha gamma dy (1 - t^2)         dalpha = sum gamma dy x (1 - t^2)
//   dgamma = sum over rows of dy t        dbeta = sum over rows of dy
//
// Never materialised: t, its slope. The slope is 4 e / (1 + e)^2 with e = exp(-2 |alpha x|):
// 1 - t^2 has no digits left where tanh saturates. The mathematics is src/reference/norm/dyt.rs.
//
// Traffic: forward one read of x and one write of y; backward one read of x and dy, one write of
// dx, and a row of partial sums a block, for each of gamma and beta. At 4.3 TB/s, as
// norm/forward.cuh has it, 16384 x 8192 in bf16 are 537 MB and 125 us, backward 805 MB and 187 us:
// predictions, nothing of this has been measured yet.
//
// Mapping: nothing is summed over a row, so threads walk down the rows (common/walk.cuh) with their
// columns' weights and sums in registers. norm_dyt_sums adds the partial sums, 32 columns a block.

#include "common/block_reduce.cuh"
#include "common/status.h"
#include "common/team_sums.cuh"
#include "common/walk.cuh"
#include "norm/dyt.cuh"

namespace evenkeel {

// Mirrored in src/norm/kernels/dyt.rs.
struct DytParams {
  RowGrid grid;
  RowTensor x;
  RowTensor dy;   // backward
  RowTensor out;  // y, or dx
  ColumnVector gamma;
  ColumnVector beta;
  const float* alpha;
  // Partial sums, or null: of each block; [slices, columns] each.
  float* dalpha;
  float* dgamma;
  float* dbeta;
  uint32_t* status;
  uint32_t slices;
  uint32_t unused;
};
// dalpha, dgamma and dbeta, null where one is not asked for, from their partial sums; without rows
// there are none.
struct DytSumsParams {
  const float* partial_dalpha;  // [blocks]
  const float* partial_dgamma;  // [slices, columns]
  const float* partial_dbeta;   // [slices, columns]
  float* dalpha;
  float* dgamma;
  float* dbeta;
  uint32_t blocks;
  uint32_t slices;
  uint32_t columns;
  uint32_t accumulate;
};
static_assert(sizeof(DytParams) == 224, "src/norm/kernels/dyt.rs mirrors it");
static_assert(sizeof(DytSumsParams) == 64, "src/norm/kernels/dyt.rs mirrors it");

namespace {

// Warps of a block of norm_dyt_sums.
inline constexpr int kSumsWarps = 16;

template <typename Layout>
EVENKEEL_DEVICE void forward(const DytParams& params) {
  const RowGrid& grid = params.grid;
  const LocalTeam team(grid, *reinterpret_cast<TeamShared*>(platform::dynamic_shared()));
  const Walk<Layout> walk = Walk<Layout>::of(grid, params.slices, team);
  const float alpha = warp_load(params.alpha);
  typename Layout::Unit gamma;
  typename Layout::Unit beta;
  load_columns(params.gamma, 0, walk.columns, 0, 1.0f, gamma);
  load_columns(params.beta, 0, walk.columns, 0, 0.0f, beta);
  // 0, or NaN as soon as an element is not finite.
  float fault = 0.0f;
  for (uint32_t first = walk.first; first < grid.rows; first += walk.step) {
    uint4 x[kWalkRows];
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      x[r] = walk.fetch(params.x, walk.row(grid, first, r));
    }
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      typename Layout::Unit y;
      unpack_unit(x[r], params.x.type, y);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) {
        fault += 0.0f * y[e];
        y[e] = dynamic_tanh(y[e], alpha, gamma[e], beta[e]);
      }
      walk.store(params.out, walk.row(grid, first, r), y);
    }
  }
  if (!is_finite(fault)) atomicOr(params.status, static_cast<uint32_t>(kNonFiniteRow));
}

// Shared memory: 32 numbers, then the sums of the teams' columns.
struct BackwardShared {
  TeamShared team;
  float scratch[32];
};

template <typename Layout>
EVENKEEL_DEVICE void backward(const DytParams& params) {
  unsigned char* const base = platform::dynamic_shared();
  BackwardShared& shared = *reinterpret_cast<BackwardShared*>(base);
  const RowGrid& grid = params.grid;
  const LocalTeam team(grid, shared.team);
  const Walk<Layout> walk = Walk<Layout>::of(grid, params.slices, team);
  const uint64_t sums_row = static_cast<uint64_t>(walk.slice) * grid.columns;
  float dgamma[1][Layout::kChunk] = {};
  float dbeta[1][Layout::kChunk] = {};
  float dalpha = 0.0f;

  const float alpha = warp_load(params.alpha);
  typename Layout::Unit gamma;
  load_columns(params.gamma, 0, walk.columns, 0, 1.0f, gamma);
  float fault = 0.0f;
  for (uint32_t first = walk.first; first < grid.rows; first += walk.step) {
    uint4 x[kWalkRows];
    uint4 dy[kWalkRows];
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      const auto row = walk.row(grid, first, r);
      x[r] = walk.fetch(params.x, row);
      dy[r] = walk.fetch(params.dy, row);
    }
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      const auto row = walk.row(grid, first, r);
      if (!row.columns.has(0)) continue;
      typename Layout::Unit value;
      typename Layout::Unit g;
      typename Layout::Unit dx;
      typename Layout::Unit term;
      unpack_unit(x[r], params.x.type, value);
      unpack_unit(dy[r], params.dy.type, g);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) {
        fault += 0.0f * value[e];
        fault += 0.0f * g[e];
        const float a = alpha * value[e];
        const float decay = exp_fast(-2.0f * fabsf(a));
        const float width = 1.0f + decay;
        const float slope = 4.0f * decay * ptx::rcp_approx_ftz(width * width);
        // Where tanh is flat, 0 is meant, whatever it is multiplied with.
        const bool flat = fabsf(a) > kFloatMax;
        dx[e] = alpha * (gamma[e] * (flat ? 0.0f : g[e])) * (flat ? 0.0f : slope);
        term[e] = !Layout::kSpread || e < row.columns.count(0)
                      ? gamma[e] * g[e] * (flat ? 0.0f : value[e] * slope)
                      : 0.0f;
        value[e] = g[e] * tanhf(a);
      }
      walk.store(params.out, row, dx);
      dalpha += pairwise<Layout::kChunk>(term, [](float s, float t) { return s + t; });
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) {
        dgamma[0][e] += value[e];
        dbeta[0][e] += g[e];
      }
    }
  }
  if (!is_finite(fault)) atomicOr(params.status, static_cast<uint32_t>(kNonFiniteRow));
  float* const shared_sums = reinterpret_cast<float*>(base + sizeof(BackwardShared));
  const auto store = [&](const float(&sums)[1][Layout::kChunk], float* partial) {
    if (partial == nullptr) return;
    store_team_sums(team, walk.columns, walk.begin, sums, shared_sums, partial + sums_row);
  };
  store(dgamma, params.dgamma);
  store(dbeta, params.dbeta);
  if (params.dalpha == nullptr) return;
  dalpha = block_sum(dalpha, shared.scratch);
  if (threadIdx.x == 0) params.dalpha[blockIdx.x] = dalpha;
}

struct SumsShared {
  float warps[kSumsWarps][32];
};

// 32 columns of `partial`, by warps that take the slices in turn.
EVENKEEL_DEVICE void column_sums(const DytSumsParams& params, const float* partial, float* out,
                                 uint32_t first) {
  SumsShared& shared = *reinterpret_cast<SumsShared*>(platform::dynamic_shared());
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t column = first + lane;
  float sum = 0.0f;
  if (column < params.columns) {
    for (uint32_t s = warp; s < params.slices; s += blockDim.x / 32) {
      sum += partial[static_cast<uint64_t>(s) * params.columns + column];
    }
  }
  shared.warps[warp][lane] = sum;
  // Publishes the warps' sums.
  __syncthreads();
  if (warp > 0 || column >= params.columns) return;
  for (uint32_t w = 1; w < blockDim.x / 32; ++w) sum += shared.warps[w][lane];
  out[column] = params.accumulate != 0 ? out[column] + sum : sum;
}

// Blocks: those of gamma's columns, those of beta's, and one for alpha.
EVENKEEL_DEVICE void sums(const DytSumsParams& params) {
  const uint32_t column_blocks = (params.columns + 31) / 32;
  if (blockIdx.x < 2 * column_blocks) {
    const bool of_gamma = blockIdx.x < column_blocks;
    float* const out = of_gamma ? params.dgamma : params.dbeta;
    if (out == nullptr) return;
    column_sums(params, of_gamma ? params.partial_dgamma : params.partial_dbeta, out,
                (of_gamma ? blockIdx.x : blockIdx.x - column_blocks) * 32);
    return;
  }
  if (params.dalpha == nullptr) return;
  float sum = 0.0f;
  for (uint32_t b = threadIdx.x; b < params.blocks; b += blockDim.x) {
    sum += params.partial_dalpha[b];
  }
  sum = block_sum(sum, reinterpret_cast<float*>(platform::dynamic_shared()));
  if (threadIdx.x != 0) return;
  *params.dalpha = params.accumulate != 0 ? *params.dalpha + sum : sum;
}

}  // namespace
}  // namespace evenkeel

// Bytes in flight as norm/rows_block.cu has them; no measurement chose these yet.
#define DYT(K, name, chunk, spread)                             \
  K(norm_dyt_forward_##name, evenkeel::DytParams, 256, 4,       \
    (evenkeel::forward<evenkeel::RowLayout<chunk, 1, spread>>)) \
  K(norm_dyt_backward_##name, evenkeel::DytParams, 256, 2,      \
    (evenkeel::backward<evenkeel::RowLayout<chunk, 1, spread>>))
#define DYT_KERNELS(K)   \
  DYT(K, c8u1, 8, false) \
  DYT(K, c4u1, 4, false) \
  DYT(K, s4u1, 4, true)  \
  K(norm_dyt_sums, evenkeel::DytSumsParams, 512, 1, (evenkeel::sums))

EVENKEEL_EXPORT(norm_dyt, DYT_KERNELS)
