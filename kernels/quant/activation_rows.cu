// SwiGLU, Smooth-SwiGLU, GELU and their gradients in FP8 with a scale for each row, from one read.
//
//   scale = amax / largest, or the power of two above      element = y / scale, rounded
//
// y, or dx, or [dgate | dup], whose two halves have one scale. Never materialised: these values and
// the rows' largest magnitudes. The values are those of activation.cu, the elements those of
// quant/rows.cu, whose transposed outputs and groups go by tiles instead.
//
// Traffic: each input is read once, in rows that the registers of a block hold (16384 columns of 16
// bits, 8192 of fp32); longer rows are read a second time, from L2 where that holds the rows in
// flight. One byte an element and a scale a row are written. At 4.3 TB/s, as quant/rows.cu has it,
// SwiGLU of 16384 x 14336 in bf16 is 1.17 GB and 273 us, its backward 1.88 GB and 437 us:
// predictions, nothing of this has been measured yet. Values are computed twice, for the amax and
// for the elements, which takes fewer registers than they do in fp32.
//
// Mapping: a team of threads a row (common/team.cuh), blocks persistent; the elements leave by
// common/quantized_rows.cuh.

#include "common/quantized_rows.cuh"
#include "common/team.cuh"
#include "quant/activation.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/activation_rows.rs, with the functions.
enum class RowFunction : uint32_t { kSwiGlu, kGeluExact, kGeluTanh };

struct ActivationRowsParams {
  RowGrid grid;         // columns of a half
  RowTensor inputs[3];  // x; x, dy; gate, up; gate, up, dy
  RowTensor y;          // its heads are dgate and dup
  QuantizedRows to;
  const float* scales;  // of the smoothing, or null
  uint32_t per_token;   // whether scales are
  RowFunction function;
  uint32_t* status;
};
static_assert(sizeof(ActivationRowsParams) == 288, "src/quant/kernels/activation_rows.rs mirrors");

namespace {

// What results are made of: kInputs tensors, of which smoothing divides kSmoothed (none: -1); they
// have kHalves halves.
struct SwiGluForward {
  static constexpr int kInputs = 2;
  static constexpr int kSmoothed = 1;
  static constexpr int kHalves = 1;

  EVENKEEL_DEVICE static float of(RowFunction, int, const float (&in)[2]) {
    return swiglu(in[0], in[1]);
  }
};
struct SwiGluBackward {
  static constexpr int kInputs = 3;
  static constexpr int kSmoothed = 2;
  static constexpr int kHalves = 2;

  EVENKEEL_DEVICE static float of(RowFunction, int half, const float (&in)[3]) {
    const SwiGluGradient gradient = SwiGluGradient::of(in[0], in[1], in[2]);
    return half == 0 ? gradient.gate : gradient.up;
  }
};
struct GeluForward {
  static constexpr int kInputs = 1;
  static constexpr int kSmoothed = -1;
  static constexpr int kHalves = 1;

  EVENKEEL_DEVICE static float of(RowFunction function, int, const float (&in)[1]) {
    return function == RowFunction::kGeluExact ? GeluExact::value(in[0]) : GeluTanh::value(in[0]);
  }
};
struct GeluBackward {
  static constexpr int kInputs = 2;
  static constexpr int kSmoothed = -1;
  static constexpr int kHalves = 1;

  EVENKEEL_DEVICE static float of(RowFunction function, int, const float (&in)[2]) {
    return in[1] * (function == RowFunction::kGeluExact ? GeluExact::curve(in[0]).slope
                                                        : GeluTanh::curve(in[0]).slope);
  }
};

// A thread's part of a row's inputs, and the values made of it.
template <typename Layout, typename Formula>
struct RowValues {
  typename Layout::Units units[Formula::kInputs];

  EVENKEEL_DEVICE void fetch(const ActivationRowsParams& params, const RowPlace& place,
                             const Columns<Layout>& columns) {
#pragma unroll
    for (int i = 0; i < Formula::kInputs; ++i) {
      evenkeel::fetch(params.inputs[i], place, columns, units[i]);
    }
  }

  EVENKEEL_DEVICE void compute(const ActivationRowsParams& params, const RowPlace& place,
                               const Columns<Layout>& columns, int half, int unit,
                               typename Layout::Unit& y) const {
    typename Layout::Unit in[Formula::kInputs];
#pragma unroll
    for (int i = 0; i < Formula::kInputs; ++i) {
      unpack_unit(unit_of<Layout>(units[i], unit), params.inputs[i].type, in[i]);
    }
    if (Formula::kSmoothed >= 0 && params.scales != nullptr) {
      constexpr int kAt = Formula::kSmoothed >= 0 ? Formula::kSmoothed : 0;
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) {
        const uint32_t column = columns.at(unit, e);
        if (column >= columns.end) continue;
        in[kAt][e] = in[kAt][e] / params.scales[params.per_token != 0 ? place.token : column];
      }
    }
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      float one[Formula::kInputs];
#pragma unroll
      for (int i = 0; i < Formula::kInputs; ++i) one[i] = in[i][e];
      y[e] = Formula::of(params.function, half, one);
    }
  }
};

template <typename Layout, typename Formula>
EVENKEEL_DEVICE void quantize_rows(const ActivationRowsParams& params) {
  const RowGrid& grid = params.grid;
  LocalTeam team(grid, *reinterpret_cast<TeamShared*>(platform::dynamic_shared()));
  StoreQuantized<Layout> store(params.to, grid, nullptr);
  const Columns<Layout> all = team.columns<Layout>(grid);
  for (uint32_t first = team.worker() * team.count(); first < grid.rows;
       first += team.workers() * team.count()) {
    const uint32_t index = first + team.index();
    const RowPlace place = row_place(grid, index);
    Columns<Layout> columns = all;
    if (index >= grid.rows) columns.end = 0;
    RowValues<Layout, Formula> row;
    for (uint32_t s = 0; s < grid.segments; ++s) {
      row.fetch(params, place, columns.segment(s));
#pragma unroll 1
      for (int half = 0; half < Formula::kHalves; ++half) {
        store.look(columns.segment(s), [&](int unit, typename Layout::Unit& y) {
          row.compute(params, place, columns.segment(s), half, unit, y);
        });
      }
    }
    store.settle(team);
    for (uint32_t s = 0; s < grid.segments; ++s) {
      if (grid.segments > 1) row.fetch(params, place, columns.segment(s));
#pragma unroll 1
      for (int half = 0; half < Formula::kHalves; ++half) {
        const RowPlace to = {place.row * Formula::kHalves + half, place.token,
                             static_cast<uint32_t>(half)};
        store.row(params.y, to, columns.segment(s), team, [&](int unit, typename Layout::Unit& y) {
          row.compute(params, place, columns.segment(s), half, unit, y);
        });
      }
    }
  }
  store.finish(params.status);
}

}  // namespace
}  // namespace evenkeel

// Most threads and least blocks a multiprocessor, for the registers of the inputs that a thread
// holds; no measurement chose these yet.
#define ACTIVATION_ROWS(K, name, Formula, chunk, units, spread, threads, blocks) \
  K(activation_rows_##name, evenkeel::ActivationRowsParams, threads, blocks,     \
    (evenkeel::quantize_rows<evenkeel::RowLayout<chunk, units, spread>, evenkeel::Formula>))
#define ACTIVATION_ROWS_OF(K, name, Formula, few, many)            \
  ACTIVATION_ROWS(K, name##_c8u4, Formula, 8, 4, false, 256, few)  \
  ACTIVATION_ROWS(K, name##_c8u8, Formula, 8, 8, false, 256, many) \
  ACTIVATION_ROWS(K, name##_c4u8, Formula, 4, 8, false, 256, many) \
  ACTIVATION_ROWS(K, name##_s4u4, Formula, 4, 4, true, 512, 1)
#define ACTIVATION_ROWS_KERNELS(K)                             \
  ACTIVATION_ROWS_OF(K, swiglu_forward, SwiGluForward, 2, 1)   \
  ACTIVATION_ROWS_OF(K, swiglu_backward, SwiGluBackward, 1, 1) \
  ACTIVATION_ROWS_OF(K, gelu_forward, GeluForward, 2, 2)       \
  ACTIVATION_ROWS_OF(K, gelu_backward, GeluBackward, 2, 1)

EVENKEEL_EXPORT(quant_activation_rows, ACTIVATION_ROWS_KERNELS)
