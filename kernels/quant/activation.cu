// Activations, forward and backward, into bf16, f16 or f32; and the scales of Smooth-SwiGLU.
//
//   swiglu  y = silu(gate) (up / s)     dgate = (dy / s) up silu'(gate)     dup = (dy / s)
//   silu(gate) gelu    y = x Phi(x), or its tanh form           dx = dy gelu'(x) s = max |up| over
//   the tokens of a channel, or over the channels of a token; 1 without smoothing
//
// Never materialised: sigmoids, silu(gate), up / s. Quantised results are those of
// activation_quantize.cu, whose values have the same bits.
//
// Traffic: forward one read of each input, one write of y; backward one read of each input and of
// dy, one write of each gradient. Scales one read of up, which is not the read of the forward: its
// first y waits for the last token of a channel, or the last channel of a token. At 4.3 TB/s, as
// norm/forward.cuh has it, 16384 x 14336 in bf16 are, for SwiGLU, 1.41 GB and 328 us forward, 2.35
// GB and 546 us backward, 0.47 GB and 109 us for scales: predictions, nothing of this has been
// measured yet. erfcf takes some 40 instructions an element, which may bound the exact GELU
// instead.
//
// Mapping: a thread has 8 neighbouring columns of a few rows, 16 bytes of 16-bit types at once; a
// block has as many threads along a row as fill it, up to all 256, and the others take further
// rows. Channels' scales: a block has 32 columns of all tokens, 128 rows at a time, and no atomics.
// Tokens' scales: a warp a row.

#include "common/units.cuh"
#include "quant/activation.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/activation.rs. Null data: absent.
struct ActivationParams {
  UnitTensor x;  // or gate
  UnitTensor up;
  UnitTensor dy;        // backward
  UnitTensor out;       // y; dx or dgate
  UnitTensor out_up;    // dup
  const float* scales;  // of the smoothing, or null
  uint32_t rows;
  uint32_t columns;
  uint32_t per_token;     // whether scales are
  uint32_t threads_log2;  // of a block that share a row
};
struct ActivationScalesParams {
  UnitTensor up;
  float* scales;
  uint32_t rows;
  uint32_t columns;
};
static_assert(sizeof(ActivationParams) == 144, "src/quant/kernels/activation.rs mirrors it");
static_assert(sizeof(ActivationScalesParams) == 40, "src/quant/kernels/activation.rs mirrors it");

namespace {

// Rows of a thread whose units are on their way at once: 128 bytes of 16-bit types forward, 96
// backward. No measurement chose these yet.
inline constexpr int kForwardRows = 4;
inline constexpr int kBackwardRows = 2;

// Where a thread's unit lies.
struct Place {
  uint32_t row;   // of its first
  uint32_t step;  // to its next
  uint32_t column;

  template <int kRows>
  EVENKEEL_DEVICE static Place of(const ActivationParams& params) {
    const uint32_t threads = 1u << params.threads_log2;
    const uint32_t width = threads * kUnit;
    const uint32_t across = (params.columns + width - 1) / width;
    const uint32_t tile = blockIdx.x / across;
    const uint32_t step = blockDim.x >> params.threads_log2;
    return {tile * (step * kRows) + (threadIdx.x >> params.threads_log2), step,
            (blockIdx.x - tile * across) * width + (threadIdx.x & (threads - 1)) * kUnit};
  }
};

// What a unit is divided by: the scales of its columns, that of its row, or nothing.
struct Smoothing {
  const float* scales;
  bool per_token;
  float columns[kUnit];

  EVENKEEL_DEVICE Smoothing(const ActivationParams& params, uint32_t column)
      : scales(params.scales), per_token(params.per_token != 0) {
    if (scales == nullptr || per_token) return;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      columns[e] = column + e < params.columns ? scales[column + e] : 1.0f;
    }
  }

  EVENKEEL_DEVICE void divide(uint32_t row, float (&values)[kUnit]) const {
    if (scales == nullptr) return;
    const float of_row = per_token ? scales[row] : 1.0f;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) values[e] = values[e] / (per_token ? of_row : columns[e]);
  }
};

EVENKEEL_DEVICE void swiglu_forward(const ActivationParams& params) {
  const Place place = Place::of<kForwardRows>(params);
  if (place.column >= params.columns) return;
  const Smoothing smoothing(params, place.column);
  RawUnit gate[kForwardRows];
  RawUnit up[kForwardRows];
#pragma unroll
  for (int r = 0; r < kForwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    gate[r] = fetch_unit(params.x, row, place.column, params.columns);
    up[r] = fetch_unit(params.up, row, place.column, params.columns);
  }
#pragma unroll
  for (int r = 0; r < kForwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    float g[kUnit];
    float u[kUnit];
    unpack_unit(gate[r], params.x.type, g);
    unpack_unit(up[r], params.up.type, u);
    smoothing.divide(row, u);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) u[e] = swiglu(g[e], u[e]);
    store_unit(params.out, row, place.column, params.columns, u);
  }
}

EVENKEEL_DEVICE void swiglu_backward(const ActivationParams& params) {
  const Place place = Place::of<kBackwardRows>(params);
  if (place.column >= params.columns) return;
  const Smoothing smoothing(params, place.column);
  RawUnit gate[kBackwardRows];
  RawUnit up[kBackwardRows];
  RawUnit dy[kBackwardRows];
#pragma unroll
  for (int r = 0; r < kBackwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    gate[r] = fetch_unit(params.x, row, place.column, params.columns);
    up[r] = fetch_unit(params.up, row, place.column, params.columns);
    dy[r] = fetch_unit(params.dy, row, place.column, params.columns);
  }
#pragma unroll
  for (int r = 0; r < kBackwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    float g[kUnit];
    float u[kUnit];
    float d[kUnit];
    unpack_unit(gate[r], params.x.type, g);
    unpack_unit(up[r], params.up.type, u);
    unpack_unit(dy[r], params.dy.type, d);
    smoothing.divide(row, d);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      const SwiGluGradient gradient = SwiGluGradient::of(g[e], u[e], d[e]);
      g[e] = gradient.gate;
      u[e] = gradient.up;
    }
    store_unit(params.out, row, place.column, params.columns, g);
    store_unit(params.out_up, row, place.column, params.columns, u);
  }
}

template <typename Function>
EVENKEEL_DEVICE void forward(const ActivationParams& params) {
  const Place place = Place::of<kForwardRows>(params);
  if (place.column >= params.columns) return;
  RawUnit x[kForwardRows];
#pragma unroll
  for (int r = 0; r < kForwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row < params.rows) x[r] = fetch_unit(params.x, row, place.column, params.columns);
  }
#pragma unroll
  for (int r = 0; r < kForwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    float values[kUnit];
    unpack_unit(x[r], params.x.type, values);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) values[e] = Function::value(values[e]);
    store_unit(params.out, row, place.column, params.columns, values);
  }
}

template <typename Function>
EVENKEEL_DEVICE void backward(const ActivationParams& params) {
  const Place place = Place::of<kBackwardRows>(params);
  if (place.column >= params.columns) return;
  RawUnit x[kBackwardRows];
  RawUnit dy[kBackwardRows];
#pragma unroll
  for (int r = 0; r < kBackwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    x[r] = fetch_unit(params.x, row, place.column, params.columns);
    dy[r] = fetch_unit(params.dy, row, place.column, params.columns);
  }
#pragma unroll
  for (int r = 0; r < kBackwardRows; ++r) {
    const uint32_t row = place.row + r * place.step;
    if (row >= params.rows) continue;
    float values[kUnit];
    float d[kUnit];
    unpack_unit(x[r], params.x.type, values);
    unpack_unit(dy[r], params.dy.type, d);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) values[e] = d[e] * Function::curve(values[e]).slope;
    store_unit(params.out, row, place.column, params.columns, values);
  }
}

// ---- Scales.

// Units that are on their way at once.
inline constexpr int kScaleUnits = 8;
// Units of a block's columns of all rows, and its threads.
inline constexpr int kChannelUnits = 4;
inline constexpr int kChannelThreads = 512;

struct ChannelShared {
  float warps[kChannelThreads / 32][kChannelUnits * kUnit];
};

EVENKEEL_DEVICE void larger_finite(const RawUnit& unit, FloatType type, float (&amax)[kUnit]) {
  float values[kUnit];
  unpack_unit(unit, type, values);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (is_finite(values[e])) amax[e] = fmaxf(amax[e], fabsf(values[e]));
  }
}

EVENKEEL_DEVICE float scale_of(float amax) { return amax > 0.0f ? amax : 1.0f; }

EVENKEEL_DEVICE void channel_scales(const ActivationScalesParams& params) {
  ChannelShared& shared = *reinterpret_cast<ChannelShared*>(platform::dynamic_shared());
  const uint32_t first = blockIdx.x * (kChannelUnits * kUnit);
  const uint32_t column = first + threadIdx.x % kChannelUnits * kUnit;
  const uint32_t step = kChannelThreads / kChannelUnits;
  float amax[kUnit] = {};
  if (column < params.columns) {
    for (uint32_t row = threadIdx.x / kChannelUnits; row < params.rows; row += step * kScaleUnits) {
      RawUnit units[kScaleUnits];
#pragma unroll
      for (int i = 0; i < kScaleUnits; ++i) {
        const uint32_t at = row + i * step;
        if (at < params.rows) units[i] = fetch_unit(params.up, at, column, params.columns);
      }
#pragma unroll
      for (int i = 0; i < kScaleUnits; ++i) {
        if (row + i * step < params.rows) larger_finite(units[i], params.up.type, amax);
      }
    }
  }
  // Lanes of the same columns.
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
#pragma unroll
    for (int offset = kChannelUnits; offset < 32; offset *= 2) {
      amax[e] = fmaxf(amax[e], __shfl_xor_sync(0xffffffffu, amax[e], offset));
    }
  }
  const uint32_t lane = threadIdx.x % 32;
  if (lane < kChannelUnits) {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) shared.warps[threadIdx.x / 32][lane * kUnit + e] = amax[e];
  }
  // Publishes the warps' maxima.
  __syncthreads();
  if (threadIdx.x >= kChannelUnits * kUnit || first + threadIdx.x >= params.columns) return;
  float largest = 0.0f;
  for (int warp = 0; warp < kChannelThreads / 32; ++warp) {
    largest = fmaxf(largest, shared.warps[warp][threadIdx.x]);
  }
  params.scales[first + threadIdx.x] = scale_of(largest);
}

EVENKEEL_DEVICE void token_scales(const ActivationScalesParams& params) {
  const uint32_t row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= params.rows) return;
  const uint32_t lane = threadIdx.x % 32;
  float amax[kUnit] = {};
  for (uint32_t column = lane * kUnit; column < params.columns;
       column += 32 * kUnit * kScaleUnits) {
    RawUnit units[kScaleUnits];
#pragma unroll
    for (int i = 0; i < kScaleUnits; ++i) {
      const uint32_t at = column + i * 32 * kUnit;
      if (at < params.columns) units[i] = fetch_unit(params.up, row, at, params.columns);
    }
#pragma unroll
    for (int i = 0; i < kScaleUnits; ++i) {
      if (column + i * 32 * kUnit < params.columns) {
        larger_finite(units[i], params.up.type, amax);
      }
    }
  }
  float largest = 0.0f;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) largest = fmaxf(largest, amax[e]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  }
  if (lane == 0) params.scales[row] = scale_of(largest);
}

}  // namespace
}  // namespace evenkeel

// Registers for the units on their way of as many threads; no measurement chose these yet.
#define ACTIVATION_KERNELS(K)                                                                    \
  K(activation_swiglu_forward, evenkeel::ActivationParams, 256, 2, (evenkeel::swiglu_forward))   \
  K(activation_swiglu_backward, evenkeel::ActivationParams, 256, 2, (evenkeel::swiglu_backward)) \
  K(activation_gelu_exact_forward, evenkeel::ActivationParams, 256, 2,                           \
    (evenkeel::forward<evenkeel::GeluExact>))                                                    \
  K(activation_gelu_exact_backward, evenkeel::ActivationParams, 256, 2,                          \
    (evenkeel::backward<evenkeel::GeluExact>))                                                   \
  K(activation_gelu_tanh_forward, evenkeel::ActivationParams, 256, 2,                            \
    (evenkeel::forward<evenkeel::GeluTanh>))                                                     \
  K(activation_gelu_tanh_backward, evenkeel::ActivationParams, 256, 2,                           \
    (evenkeel::backward<evenkeel::GeluTanh>))                                                    \
  K(activation_channel_scales, evenkeel::ActivationScalesParams, 512, 1,                         \
    (evenkeel::channel_scales))                                                                  \
  K(activation_token_scales, evenkeel::ActivationScalesParams, 256, 2, (evenkeel::token_scales))

EVENKEEL_EXPORT(quant_activation, ACTIVATION_KERNELS)
