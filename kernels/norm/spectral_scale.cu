// What sigmaReparam does with sigma, for each weight W [m, n] of a batch, G the gradient of W^:
//
//   W^ = (gamma / sigma) W
//   dW = (gamma / sigma) (G - (<G, W> / sigma) v u^T)      dgamma = <G, W> / sigma
//
// Never materialised: v u^T, G W.
//
// Traffic: W^ one read of W and one write. Gradients: one read of W and of G for <G, W>, one more
// of G and one write for dW. At 4.3 TB/s, as norm/forward.cuh has it, 8192 x 8192 in bf16 are 268
// MB and 62 us, backward 537 MB and 125 us: predictions, nothing of this has been measured yet.
//
// Mapping: nothing is summed over a row, so threads walk down the rows (common/walk.cuh).
// norm_spectral_dot_* leaves a sum a block, norm_spectral_ratio adds those of a weight in one
// block, in fp64, norm_spectral_apply_* is elementwise.

#include "common/block_reduce.cuh"
#include "common/status.h"
#include "common/walk.cuh"

namespace evenkeel {

// Mirrored in src/norm/kernels/spectral.rs.
struct SpectralDotParams {
  RowGrid grid;  // rows of one weight
  RowTensor w;
  RowTensor g;
  float* partial;  // one for each block
  uint32_t slices;
  uint32_t unused;
};
struct SpectralRatioParams {
  const float* partial;  // [batch, blocks]
  const float* sigma;    // [batch], as all that follow
  const float* gamma;    // or null: 1
  float* ratio;          // <G, W> / sigma
  float* scale;          // gamma / sigma
  float* dgamma;         // or null
  uint32_t* status;
  uint32_t blocks;
  uint32_t accumulate;
};
struct SpectralApplyParams {
  RowGrid grid;
  RowTensor from;
  RowTensor out;
  const float* scale;  // [batch]
  const float* ratio;  // [batch], or null: out = scale from
  const float* u;      // [batch, n]
  const float* v;      // [batch, m]
  uint32_t slices;
  uint32_t accumulate;
};
static_assert(sizeof(SpectralDotParams) == 112, "src/norm/kernels/spectral.rs mirrors it");
static_assert(sizeof(SpectralRatioParams) == 64, "src/norm/kernels/spectral.rs mirrors it");
static_assert(sizeof(SpectralApplyParams) == 136, "src/norm/kernels/spectral.rs mirrors it");

namespace {

struct DotShared {
  TeamShared team;
  float scratch[32];
};

template <typename Layout>
EVENKEEL_DEVICE void dot(const SpectralDotParams& params) {
  DotShared& shared = *reinterpret_cast<DotShared*>(platform::dynamic_shared());
  const RowGrid& grid = params.grid;
  const LocalTeam team(grid, shared.team);
  const Walk<Layout> walk = Walk<Layout>::of(grid, params.slices, team);
  float sum = 0.0f;
  for (uint32_t first = walk.first; first < grid.rows; first += walk.step) {
    uint4 w[kWalkRows];
    uint4 g[kWalkRows];
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      const auto row = walk.row(grid, first, r);
      w[r] = walk.fetch(params.w, row);
      g[r] = walk.fetch(params.g, row);
    }
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      typename Layout::Unit x;
      typename Layout::Unit y;
      unpack_unit(w[r], params.w.type, x);
      unpack_unit(g[r], params.g.type, y);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) x[e] *= y[e];
      sum += pairwise<Layout::kChunk>(x, [](float a, float b) { return a + b; });
    }
  }
  sum = block_sum(sum, shared.scratch);
  if (threadIdx.x == 0) params.partial[blockIdx.x] = sum;
}

// A quotient by sigma, 0 where sigma is.
EVENKEEL_DEVICE float divided(double value, float sigma) {
  return sigma == 0.0f ? 0.0f : static_cast<float>(value / sigma);
}

EVENKEEL_DEVICE void ratio(const SpectralRatioParams& params) {
  double* const scratch = reinterpret_cast<double*>(platform::dynamic_shared());
  const uint32_t weight = blockIdx.x;
  const float* const partial = params.partial + static_cast<uint64_t>(weight) * params.blocks;
  double sum = 0.0;
  for (uint32_t b = threadIdx.x; b < params.blocks; b += blockDim.x) {
    sum += static_cast<double>(partial[b]);
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x != 0) return;
  const float sigma = params.sigma[weight];
  const float along = divided(sum, sigma);
  params.ratio[weight] = along;
  params.scale[weight] = divided(params.gamma != nullptr ? params.gamma[weight] : 1.0f, sigma);
  if (params.dgamma != nullptr) {
    params.dgamma[weight] = params.accumulate != 0 ? params.dgamma[weight] + along : along;
  }
  if (sigma == 0.0f) {
    atomicOr(params.status, static_cast<uint32_t>(kZeroSigma));
  } else if (!is_finite(sigma)) {
    atomicOr(params.status, static_cast<uint32_t>(kNonFiniteRow));
  }
}

template <typename Layout>
EVENKEEL_DEVICE void apply(const SpectralApplyParams& params) {
  const RowGrid& grid = params.grid;
  const LocalTeam team(grid, *reinterpret_cast<TeamShared*>(platform::dynamic_shared()));
  const Walk<Layout> walk = Walk<Layout>::of(grid, params.slices, team);
  const bool gradient = params.ratio != nullptr;
  const float scale = warp_load(params.scale + walk.group);
  const float ratio = gradient ? warp_load(params.ratio + walk.group) : 0.0f;
  typename Layout::Unit u;
  const ColumnVector vector = {
      gradient ? params.u + static_cast<uint64_t>(walk.group) * grid.columns : nullptr, 0,
      FloatType::kF32, 0};
  load_columns(vector, 0, walk.columns, 0, 0.0f, u);
  for (uint32_t first = walk.first; first < grid.rows; first += walk.step) {
    uint4 from[kWalkRows];
    uint4 before[kWalkRows];
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      const auto row = walk.row(grid, first, r);
      from[r] = walk.fetch(params.from, row);
      if (params.accumulate != 0) before[r] = walk.fetch(params.out, row);
    }
#pragma unroll
    for (int r = 0; r < kWalkRows; ++r) {
      const auto row = walk.row(grid, first, r);
      if (!row.columns.has(0)) continue;
      typename Layout::Unit x;
      unpack_unit(from[r], params.from.type, x);
      if (gradient) {
        const float along = ratio * params.v[row.place.row];
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) {
          // A scale of 0 removes everything.
          x[e] = scale == 0.0f ? 0.0f : scale * (x[e] - along * u[e]);
        }
      } else {
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) x[e] *= scale;
      }
      if (params.accumulate != 0) {
        typename Layout::Unit sum;
        unpack_unit(before[r], params.out.type, sum);
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) x[e] += sum[e];
      }
      walk.store(params.out, row, x);
    }
  }
}

}  // namespace
}  // namespace evenkeel

// As norm/dyt.cu has them.
#define SPECTRAL_WALKS(K, name, chunk, spread)                         \
  K(norm_spectral_dot_##name, evenkeel::SpectralDotParams, 256, 3,     \
    (evenkeel::dot<evenkeel::RowLayout<chunk, 1, spread>>))            \
  K(norm_spectral_apply_##name, evenkeel::SpectralApplyParams, 256, 3, \
    (evenkeel::apply<evenkeel::RowLayout<chunk, 1, spread>>))
#define SPECTRAL_SCALE_KERNELS(K)   \
  SPECTRAL_WALKS(K, c8u1, 8, false) \
  SPECTRAL_WALKS(K, c4u1, 4, false) \
  SPECTRAL_WALKS(K, s4u1, 4, true)  \
  K(norm_spectral_ratio, evenkeel::SpectralRatioParams, 256, 1, (evenkeel::ratio))

EVENKEEL_EXPORT(norm_spectral_scale, SPECTRAL_SCALE_KERNELS)
