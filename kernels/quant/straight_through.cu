// Gradients through a rounding, which has none of its own.
//
//   saturation   dx = dy where |x / scale| rounds to no more than `largest`, 0 elsewhere
//   ReSTE        dx = dy (1/o) |x|^((1-o)/o)     for interval < |x| <= threshold
//                     dy interval^((1-o)/o)      for |x| <= interval
//                     0                          for |x| > threshold
//
// Never materialised: the mask, the slope. The mathematics is
// src/reference/quant/straight_through.rs.
//
// The mask divides nothing: x / scale rounds to more than `largest` exactly where |x| is above
// scale (largest + half a unit of its last place), a product that fp64 holds exactly.
//
// Traffic: one read of x and dy and one write of dx. At 4.3 TB/s, as norm/forward.cuh has it,
// 16384 x 4096 in bf16 are 403 MB and 94 us: a prediction, nothing of this has been measured yet.
//
// Mapping: a block has kUnits chunks a thread of a piece of a row at a time, all of them in flight;
// blocks go round pieces and rows. Tensors without gaps are one row.

#include "common/block_reduce.cuh"
#include "quant/chunk.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/straight_through.rs.
struct StraightThroughParams {
  RowTensor x;
  RowTensor dy;
  RowTensor dx;        // may be dy
  const float* scale;  // or null: 1; of the saturation
  uint64_t rows;
  uint64_t columns;
  double limit;     // saturation: the largest number that rounds to `largest`
  float threshold;  // ReSTE
  float interval;
  float power;        // (1 - o) / o
  float log2_factor;  // -log2(o)
  float inner_slope;
  uint32_t unused;
};
static_assert(sizeof(StraightThroughParams) == 152,
              "src/quant/kernels/straight_through.rs mirrors it");

namespace {

// Chunks of a piece that a thread has.
inline constexpr uint32_t kUnits = 4;

// dx = f(x, dy), element by element.
template <typename Chunk, typename F>
EVENKEEL_DEVICE void each(const StraightThroughParams& params, F f) {
  const uint64_t piece = static_cast<uint64_t>(blockDim.x) * kUnits * Chunk::kCount;
  const uint64_t pieces = (params.columns + piece - 1) / piece;
  // Divided once: from then on a block goes so many rows and pieces further.
  uint64_t row = blockIdx.x / pieces;
  uint64_t at = blockIdx.x - row * pieces;
  const uint64_t row_step = gridDim.x / pieces;
  const uint64_t step = gridDim.x - row_step * pieces;
  while (row < params.rows) {
    uint64_t columns[kUnits];
    uint32_t present[kUnits];
    uint4 x[kUnits];
    uint4 dy[kUnits];
#pragma unroll
    for (uint32_t u = 0; u < kUnits; ++u) {
      columns[u] =
          at * piece + (static_cast<uint64_t>(u) * blockDim.x + threadIdx.x) * Chunk::kCount;
      const uint64_t left = columns[u] < params.columns ? params.columns - columns[u] : 0;
      present[u] = static_cast<uint32_t>(min(left, static_cast<uint64_t>(Chunk::kCount)));
      x[u] = Chunk::fetch(params.x, row * params.x.token_stride + columns[u], present[u]);
      dy[u] = Chunk::fetch(params.dy, row * params.dy.token_stride + columns[u], present[u]);
    }
#pragma unroll
    for (uint32_t u = 0; u < kUnits; ++u) {
      float value[Chunk::kCount];
      float gradient[Chunk::kCount];
      Chunk::unpack(x[u], params.x.type, value);
      Chunk::unpack(dy[u], params.dy.type, gradient);
#pragma unroll
      for (int e = 0; e < Chunk::kCount; ++e) gradient[e] = f(value[e], gradient[e]);
      Chunk::store(params.dx, row * params.dx.token_stride + columns[u], present[u], gradient);
    }
    at += step;
    row += row_step;
    if (at >= pieces) {
      at -= pieces;
      ++row;
    }
  }
}

// NaN is kept by the formats that mask, so that its gradient passes.
template <typename Chunk>
EVENKEEL_DEVICE void saturation(const StraightThroughParams& params) {
  const float scale = params.scale != nullptr ? warp_load(params.scale) : 1.0f;
  const double exact = static_cast<double>(fabsf(scale)) * params.limit;
  // The last fp32 that is no greater.
  float limit = static_cast<float>(exact);
  if (static_cast<double>(limit) > exact) limit = __uint_as_float(__float_as_uint(limit) - 1);
  each<Chunk>(params, [&](float x, float dy) { return fabsf(x) > limit ? 0.0f : dy; });
}

template <typename Chunk>
EVENKEEL_DEVICE void reste(const StraightThroughParams& params) {
  each<Chunk>(params, [&](float x, float dy) {
    const float size = fabsf(x);
    const float outer =
        ptx::ex2_approx_ftz(fmaf(params.power, ptx::lg2_approx_ftz(size), params.log2_factor));
    const float slope = size <= params.interval ? params.inner_slope : outer;
    return size > params.threshold ? 0.0f : dy * slope;
  });
}

}  // namespace
}  // namespace evenkeel

#define STRAIGHT_THROUGH(K, name, chunk, spread)                                       \
  K(quant_straight_through_saturation_##name, evenkeel::StraightThroughParams, 256, 4, \
    (evenkeel::saturation<evenkeel::Chunk<chunk, spread>>))                            \
  K(quant_straight_through_reste_##name, evenkeel::StraightThroughParams, 256, 4,      \
    (evenkeel::reste<evenkeel::Chunk<chunk, spread>>))
#define STRAIGHT_THROUGH_KERNELS(K) \
  STRAIGHT_THROUGH(K, c8, 8, false) \
  STRAIGHT_THROUGH(K, c4, 4, false) \
  STRAIGHT_THROUGH(K, s4, 4, true)

EVENKEEL_EXPORT(quant_straight_through, STRAIGHT_THROUGH_KERNELS)
