// The power iteration of sigmaReparam, for each weight W [m, n] of a batch:
//
//   v = W u / |W u|    u = W^T v / |W^T v|    sigma = v^T W u, and gamma / sigma
//
// Never materialised: W u normalized before it is multiplied with W again. A step reads W once:
// with t = W u the new u is W^T t / |W^T t| and sigma is |W^T t| / |t|.
//
// Traffic of a step: one read of W, and a row of fp32 partial sums a slice of W's rows, written and
// read once. Without steps: one read of W. At 4.3 TB/s, as norm/forward.cuh has it, a step on 8192
// x 8192 in bf16 is 134 MB and 31 us beside the partial sums: a prediction, nothing of this has
// been measured yet.
//
// Mapping:
// - norm_spectral_step_*: a block has a slice of the rows of a weight. A team of threads a row
//   (common/team.cuh) gathers t_i, then adds t_i w_i to sums that the threads keep for their
//   columns, while the row is still in registers and the next one on its way. Rows beyond the
//   registers of a block are read twice, from L2 the second time, and their sums lie in shared
//   memory.
// - norm_spectral_columns: adds the partial sums of the slices, in their order, 32 columns a block.
// - norm_spectral_finish: a block a weight: norms in fp64, whose range no square of fp32 leaves.
//
// t_i w_i is a square of the weight's size, which may leave the range of fp32 where its root would
// not. So each slice multiplies its t by a power of two, its scale, that brings the largest near 1.

#include "common/block_reduce.cuh"
#include "common/status.h"
#include "common/team_sums.cuh"

namespace evenkeel {

// Mirrored in src/norm/kernels/spectral.rs.
struct SpectralStepParams {
  RowGrid grid;  // rows of one weight
  RowTensor w;
  const float* u;  // [batch, n]
  float* t;        // [batch, m]
  float* partial;  // [batch, slices, n], or null: t alone
  float* scales;   // [batch, slices]; 0 where all of a slice's t are
  uint32_t slices;
  // Bytes from the base of shared memory to the sums of a long row, or 0: in the partial sums.
  uint32_t sums_offset;
};
struct SpectralColumnsParams {
  const float* partial;
  const float* scales;
  float* u;  // [batch, n]: the sums, at the scale of the slice with the largest t
  uint32_t slices;
  uint32_t columns;
};
enum class SpectralStage : uint32_t {
  kStep,      // u alone
  kLastStep,  // u, v, sigma, scale
  kNoStep,    // sigma, scale
};
struct SpectralFinishParams {
  const float* t;
  const float* scales;
  const float* gamma;  // [batch], or null: 1
  float* u;
  float* v;
  float* sigma;
  float* scale;
  uint32_t* status;
  uint32_t m;
  uint32_t n;
  uint32_t slices;
  SpectralStage stage;
};
static_assert(sizeof(SpectralStepParams) == 104, "src/norm/kernels/spectral.rs mirrors it");
static_assert(sizeof(SpectralColumnsParams) == 32, "src/norm/kernels/spectral.rs mirrors it");
static_assert(sizeof(SpectralFinishParams) == 80, "src/norm/kernels/spectral.rs mirrors it");

namespace {

struct Dot {
  float sum;

  EVENKEEL_DEVICE static Dot empty() { return {0.0f}; }
  EVENKEEL_DEVICE static Dot merge(Dot a, Dot b) { return {a.sum + b.sum}; }
};

// Shared memory: this, then the sums of the teams' columns, or those of a long row.
struct StepShared {
  TeamShared team;
  float scales[32];
};

EVENKEEL_DEVICE float infinity() { return __uint_as_float(0x7f800000u); }

// The smallest of the scales that are not 0; infinity where all are.
EVENKEEL_DEVICE float least(float a, float b) {
  if (a == 0.0f) a = infinity();
  if (b == 0.0f) b = infinity();
  return fminf(a, b);
}
EVENKEEL_DEVICE float warp_least(float scale) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    scale = least(scale, __shfl_xor_sync(kAllLanes, scale, offset));
  }
  return scale;
}

// From sums at one scale to sums at another, smaller one: a power of two.
EVENKEEL_DEVICE float rescaling(float from, float to) { return from == 0.0f ? 1.0f : to / from; }

// The scale of a thread's sums.
class Scale {
 public:
  // Makes room for a term t w, where |t| is the largest so far: what the sums so far are to be
  // multiplied with.
  EVENKEEL_DEVICE float admit(float t) {
    const float size = fabsf(t);
    // NaN makes its sums NaN at any scale.
    if (size == 0.0f || !(size * value_ >= kRoom || value_ == 0.0f)) return 1.0f;
    // 2^-e for 2^e <= |t| < 2^(e + 1), within the range of normal numbers.
    const uint32_t exponent = __float_as_uint(size) & 0x7f800000u;
    const float scale = __uint_as_float(max(0x7f000000u - min(exponent, 0x7f000000u), 0x00800000u));
    const float factor = rescaling(value_, scale);
    value_ = scale;
    return factor;
  }
  EVENKEEL_DEVICE float value() const { return value_; }

 private:
  // Sums of 2^18 terms below 2^2 w stay finite for w up to 2^108.
  static constexpr float kRoom = 4.0f;
  float value_ = 0.0f;
};

template <typename Layout>
struct Step {
  using Unit = typename Layout::Unit;
  using Units = typename Layout::Units;

  const SpectralStepParams& params;
  LocalTeam& team;
  StepShared& shared;
  float* sums;  // after StepShared
  uint32_t slice;
  uint32_t weight;

  EVENKEEL_DEVICE RowPlace place(uint32_t row) const {
    const uint32_t index = weight * params.grid.rows + row;
    return {index, index, 0};
  }
  EVENKEEL_DEVICE float* partial() const {
    return params.partial + static_cast<uint64_t>(slice) * params.grid.columns;
  }
  EVENKEEL_DEVICE void load(uint32_t row, const Columns<Layout>& all, Units& w) const {
    Columns<Layout> columns = all;
    if (row >= params.grid.rows) columns.end = 0;
    fetch(params.w, place(row), columns, w);
  }
  EVENKEEL_DEVICE float product(const Units& w, const float (&u)[Layout::kUnits][Layout::kChunk]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < Layout::kUnits; ++i) {
      Unit x;
      unpack_unit(w[i], params.w.type, x);
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) x[e] *= u[i][e];
      sum += pairwise<Layout::kChunk>(x, [](float a, float b) { return a + b; });
    }
    return sum;
  }
  EVENKEEL_DEVICE float store_t(uint32_t row, Dot part) {
    const float t = team.merge(part).sum;
    if (row < params.grid.rows && team.leads()) {
      params.t[static_cast<uint64_t>(weight) * params.grid.rows + row] = t;
    }
    return t;
  }

  // The thread's part of u; teams that share a block read it once together. Their sums come over
  // it, after the barrier of common_scale().
  EVENKEEL_DEVICE void load_u(const Columns<Layout>& columns,
                              float (&u)[Layout::kUnits][Layout::kChunk]) {
    const uint32_t count = params.grid.columns;
    const float* from = params.u + static_cast<uint64_t>(weight) * count;
    if (team.count() > 1) {
      for (uint32_t j = threadIdx.x; j < count; j += blockDim.x) sums[j] = from[j];
      // Publishes u.
      __syncthreads();
      from = sums;
    }
#pragma unroll
    for (int i = 0; i < Layout::kUnits; ++i) {
      const ColumnVector vector = {from, 0, FloatType::kF32, 0};
      load_columns(vector, 0, columns, i, 0.0f, u[i]);
    }
  }

  // A row in registers.
  EVENKEEL_DEVICE void in_registers() {
    const RowGrid& grid = params.grid;
    const Columns<Layout> columns = team.columns<Layout>(grid);
    float u[Layout::kUnits][Layout::kChunk];
    load_u(columns, u);
    float mine[Layout::kUnits][Layout::kChunk] = {};
    Scale scale;
    const uint32_t of_weight = slice - weight * params.slices;
    const uint32_t step = params.slices * team.count();
    uint32_t first = of_weight * team.count();
    Units next;
    load(first + team.index(), columns, next);
    for (; first < grid.rows; first += step) {
      const uint32_t row = first + team.index();
      Units w;
#pragma unroll
      for (int i = 0; i < Layout::kUnits; ++i) w[i] = next[i];
      if (first + step < grid.rows) load(row + step, columns, next);
      const float t = store_t(row, {product(w, u)});
      if (params.partial == nullptr) continue;
      const float factor = scale.admit(t);
      if (factor != 1.0f) {
#pragma unroll
        for (int i = 0; i < Layout::kUnits; ++i) {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) mine[i][e] *= factor;
        }
      }
      const float scaled = t * scale.value();
#pragma unroll
      for (int i = 0; i < Layout::kUnits; ++i) {
        Unit x;
        unpack_unit(w[i], params.w.type, x);
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) mine[i][e] += scaled * x[e];
      }
    }
    if (params.partial == nullptr) return;

    const float common = common_scale(scale.value());
    const float factor = scale.value() == 0.0f ? 1.0f : common / scale.value();
#pragma unroll
    for (int i = 0; i < Layout::kUnits; ++i) {
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) mine[i][e] *= factor;
    }
    store_team_sums(team, columns, 0, mine, sums, partial());
  }

  // That of the block's sums, which its teams bring theirs to.
  EVENKEEL_DEVICE float common_scale(float mine) {
    float scale = warp_least(mine);
    if (threadIdx.x % 32 == 0) shared.scales[threadIdx.x / 32] = scale;
    // Publishes the warps' scales.
    __syncthreads();
    const uint32_t lane = threadIdx.x % 32;
    scale = warp_least(lane < blockDim.x / 32 ? shared.scales[lane] : 0.0f);
    if (scale == infinity()) scale = 0.0f;
    if (threadIdx.x == 0) params.scales[slice] = scale;
    return scale;
  }

  // A row that one team reads twice.
  EVENKEEL_DEVICE void in_memory() {
    const RowGrid& grid = params.grid;
    const Columns<Layout> columns = team.columns<Layout>(grid);
    const bool summed = params.partial != nullptr;
    float* const home = params.sums_offset != 0 ? sums : summed ? partial() : nullptr;
    const ColumnVector u = {params.u + static_cast<uint64_t>(weight) * grid.columns, 0,
                            FloatType::kF32, 0};
    // Each thread goes over its own columns: nothing is exchanged.
    const auto each = [&](auto change) {
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
#pragma unroll
        for (int i = 0; i < Layout::kUnits; ++i) {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            if (here.at(i, e) < here.end) change(here.at(i, e));
          }
        }
      }
    };
    if (summed) each([&](uint32_t at) { home[at] = 0.0f; });
    Scale scale;
    for (uint32_t row = slice - weight * params.slices; row < grid.rows; row += params.slices) {
      Units w;
      Dot part = Dot::empty();
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        fetch(params.w, place(row), here, w);
        float of_u[Layout::kUnits][Layout::kChunk];
#pragma unroll
        for (int i = 0; i < Layout::kUnits; ++i) load_columns(u, 0, here, i, 0.0f, of_u[i]);
        part.sum += product(w, of_u);
      }
      const float t = store_t(row, part);
      if (!summed) continue;
      const float factor = scale.admit(t);
      if (factor != 1.0f) each([&](uint32_t at) { home[at] *= factor; });
      const float scaled = t * scale.value();
      for (uint32_t s = 0; s < grid.segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
        fetch(params.w, place(row), here, w);
#pragma unroll
        for (int i = 0; i < Layout::kUnits; ++i) {
          Unit x;
          unpack_unit(w[i], params.w.type, x);
          add(home, here, i, scaled, x);
        }
      }
    }
    if (!summed) return;
    if (threadIdx.x == 0) params.scales[slice] = scale.value();
    if (params.sums_offset != 0) each([&](uint32_t at) { partial()[at] = home[at]; });
  }

  EVENKEEL_DEVICE static void add(float* home, const Columns<Layout>& columns, int unit,
                                  float factor, const Unit& x) {
    if constexpr (!Layout::kSpread) {
      if (!columns.has(unit)) return;
      float4* const to = reinterpret_cast<float4*>(home + columns.at(unit, 0));
#pragma unroll
      for (int e = 0; e < Layout::kChunk; e += 4) {
        float4 four = to[e / 4];
        four.x += factor * x[e];
        four.y += factor * x[e + 1];
        four.z += factor * x[e + 2];
        four.w += factor * x[e + 3];
        to[e / 4] = four;
      }
    } else {
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) {
        if (columns.at(unit, e) < columns.end) home[columns.at(unit, e)] += factor * x[e];
      }
    }
  }
};

template <typename Layout>
EVENKEEL_DEVICE void step(const SpectralStepParams& params) {
  unsigned char* const base = platform::dynamic_shared();
  StepShared& shared = *reinterpret_cast<StepShared*>(base);
  LocalTeam team(params.grid, shared.team);
  Step<Layout> step = {params,     team,
                       shared,     reinterpret_cast<float*>(base + sizeof(StepShared)),
                       blockIdx.x, blockIdx.x / params.slices};
  if (params.grid.segments == 1) {
    step.in_registers();
  } else {
    step.in_memory();
  }
}

inline constexpr int kColumnWarps = 16;
struct ColumnsShared {
  float warps[kColumnWarps][32];
};

// The scale of the slice with the largest t of a weight; 0 where there is none.
EVENKEEL_DEVICE float weight_scale(const float* scales, uint32_t slices) {
  float scale = 0.0f;
  for (uint32_t s = threadIdx.x % 32; s < slices; s += 32) scale = least(scale, scales[s]);
  scale = warp_least(scale);
  return scale == infinity() ? 0.0f : scale;
}

EVENKEEL_DEVICE void columns(const SpectralColumnsParams& params) {
  ColumnsShared& shared = *reinterpret_cast<ColumnsShared*>(platform::dynamic_shared());
  const uint32_t blocks = (params.columns + 31) / 32;
  const uint32_t weight = blockIdx.x / blocks;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t column = (blockIdx.x - weight * blocks) * 32 + lane;
  const float* const scales = params.scales + static_cast<uint64_t>(weight) * params.slices;
  const float* const partial =
      params.partial + static_cast<uint64_t>(weight) * params.slices * params.columns;
  const float common = weight_scale(scales, params.slices);
  float sum = 0.0f;
  for (uint32_t s = warp; s < params.slices; s += kColumnWarps) {
    const float factor = rescaling(warp_load(scales + s), common);
    if (column >= params.columns) continue;
    sum += partial[static_cast<uint64_t>(s) * params.columns + column] * factor;
  }
  shared.warps[warp][lane] = sum;
  // Publishes the warps' sums.
  __syncthreads();
  if (warp > 0 || column >= params.columns) return;
  for (int w = 1; w < kColumnWarps; ++w) sum += shared.warps[w][lane];
  params.u[static_cast<uint64_t>(weight) * params.columns + column] = sum;
}

// |x|, in every thread.
EVENKEEL_DEVICE double norm_of(const float* x, uint32_t length, double* scratch) {
  double sum = 0.0;
  for (uint32_t i = threadIdx.x; i < length; i += blockDim.x) {
    const double value = x[i];
    sum += value * value;
  }
  return sqrt(block_sum(sum, scratch));
}

// x / |x|; a vector of norm 0 stays 0.
EVENKEEL_DEVICE void store_unit_vector(const float* x, uint32_t length, double norm, float* to) {
  const double inverse = norm == 0.0 ? 0.0 : 1.0 / norm;
  for (uint32_t i = threadIdx.x; i < length; i += blockDim.x) {
    to[i] = static_cast<float>(x[i] * inverse);
  }
}

EVENKEEL_DEVICE void finish(const SpectralFinishParams& params) {
  double* const scratch = reinterpret_cast<double*>(platform::dynamic_shared());
  const uint32_t weight = blockIdx.x;
  const float* const t = params.t + static_cast<uint64_t>(weight) * params.m;
  float* const u = params.u + static_cast<uint64_t>(weight) * params.n;
  float* const v = params.v + static_cast<uint64_t>(weight) * params.m;
  double sigma = 0.0;
  if (params.stage == SpectralStage::kNoStep) {
    for (uint32_t i = threadIdx.x; i < params.m; i += blockDim.x) {
      sigma += static_cast<double>(v[i]) * t[i];
    }
    sigma = block_sum(sigma, scratch);
  } else {
    const double of_u = norm_of(u, params.n, scratch);
    store_unit_vector(u, params.n, of_u, u);
    if (params.stage == SpectralStage::kStep) return;
    const double of_t = norm_of(t, params.m, scratch);
    store_unit_vector(t, params.m, of_t, v);
    const float scale =
        weight_scale(params.scales + static_cast<uint64_t>(weight) * params.slices, params.slices);
    sigma = of_t == 0.0 ? 0.0 : of_u / (scale == 0.0f ? 1.0 : scale) / of_t;
  }
  if (threadIdx.x != 0) return;
  const float rounded = static_cast<float>(sigma);
  const float gamma = params.gamma != nullptr ? params.gamma[weight] : 1.0f;
  params.sigma[weight] = rounded;
  params.scale[weight] = rounded == 0.0f ? 0.0f : gamma / rounded;
  if (rounded == 0.0f) {
    atomicOr(params.status, static_cast<uint32_t>(kZeroSigma));
  } else if (!is_finite(rounded)) {
    atomicOr(params.status, static_cast<uint32_t>(kNonFiniteRow));
  }
}

}  // namespace
}  // namespace evenkeel

// 16 columns a thread leave registers for u, the sums, a row and the next one in three blocks of
// 256 threads. No measurement chose these yet.
#define SPECTRAL_STEP(K, name, chunk, units, spread)                 \
  K(norm_spectral_step_##name, evenkeel::SpectralStepParams, 512, 1, \
    (evenkeel::step<evenkeel::RowLayout<chunk, units, spread>>))
#define SPECTRAL_KERNELS(K)                                                              \
  SPECTRAL_STEP(K, c8u2, 8, 2, false)                                                    \
  SPECTRAL_STEP(K, c4u4, 4, 4, false)                                                    \
  SPECTRAL_STEP(K, s4u4, 4, 4, true)                                                     \
  K(norm_spectral_columns, evenkeel::SpectralColumnsParams, 512, 1, (evenkeel::columns)) \
  K(norm_spectral_finish, evenkeel::SpectralFinishParams, 1024, 1, (evenkeel::finish))

EVENKEEL_EXPORT(norm_spectral, SPECTRAL_KERNELS)
