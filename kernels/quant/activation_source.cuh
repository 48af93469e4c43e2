// Activations as sources of the tile kernel (quant/tile.cuh): what is quantised are their fp32
// values, which have the bits of those of activation.cu.
//
//   SwiGluSource    y of gate and up
//   GeluSource      y of x
//   GradientSource  dx of GELU; [dgate | dup] of SwiGLU, as one matrix
//
// Mapping: a thread's 8 x 8 values, which take half of its registers. They are computed two rows at
// a time, in a loop that is not unrolled, and wait in shared memory, in slots of their thread
// alone: two rows' loads are 32 KiB in flight a multiprocessor of two 16-bit tensors, and GELU's
// many instructions are there once. A tile of [dgate | dup] is of one of them, but where F is no
// multiple of 128; so gate and dy are loaded for two tiles, the second time from L2, as these are a
// row of tiles apart: both at once would take 64 more registers, half of the blocks of a
// multiprocessor.
#pragma once

#include "common/units.cuh"
#include "quant/activation.cuh"
#include "quant/quantize.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/activation.rs, with the functions.
enum class ActivationFunction : uint32_t { kSwiGlu, kGeluExact, kGeluTanh };

struct ActivationInput {
  UnitTensor x;  // or gate
  UnitTensor up;
  UnitTensor dy;
  const float* scales;  // of the smoothing, or null
  uint32_t per_token;   // whether scales are
  ActivationFunction function;
  uint64_t channels;  // of x; [dgate | dup] has twice as many
};
static_assert(sizeof(ActivationInput) == 96, "src/quant/kernels/activation.rs mirrors it");

struct ActivationQuantizeParams {
  QuantizeGrid grid;
  QuantizeForm form;
  QuantizeOutputs<1> outputs;
  ActivationInput input;
};
struct ActivationAmaxParams {
  QuantizeGrid grid;
  AmaxOutputs<1> outputs;
  ActivationInput input;
  uint32_t* status;
};
static_assert(sizeof(ActivationQuantizeParams) == 456,
              "src/quant/kernels/activation.rs mirrors it");
static_assert(sizeof(ActivationAmaxParams) == 240, "src/quant/kernels/activation.rs mirrors it");

// Divides a unit of a row by the smoothing's scales, where there are any.
EVENKEEL_DEVICE void divide(const ActivationInput& input, uint32_t row, uint32_t channel,
                            float (&values)[8]) {
  if (input.scales == nullptr) return;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (input.per_token != 0) {
      values[j] = values[j] / input.scales[row];
    } else if (channel + j < input.channels) {
      values[j] = values[j] / input.scales[channel + j];
    }
  }
}

// Beside QuantizeShared: a value of each of a thread's columns and rows, 16 bytes a slot, slots of
// neighbouring threads side by side. Only their own thread uses them.
struct ActivationShared {
  QuantizeShared quantize;
  float4 values[8][2][kTileThreads];

  EVENKEEL_DEVICE static ActivationShared& get() {
    return *reinterpret_cast<ActivationShared*>(platform::dynamic_shared());
  }
  EVENKEEL_DEVICE void put(int i, const float (&row)[8]) {
    values[i][0][threadIdx.x] = make_float4(row[0], row[1], row[2], row[3]);
    values[i][1][threadIdx.x] = make_float4(row[4], row[5], row[6], row[7]);
  }
  EVENKEEL_DEVICE void take(MicroTile<true>& tile) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float4 four = values[i][h][threadIdx.x];
        tile.x[i][4 * h] = four.x;
        tile.x[i][4 * h + 1] = four.y;
        tile.x[i][4 * h + 2] = four.z;
        tile.x[i][4 * h + 3] = four.w;
      }
    }
  }
};

static_assert(sizeof(ActivationShared) == 32928 + 65536,
              "src/quant/kernels/activation_store.rs has it");

// Rows of a thread whose loads are on their way at once. No measurement chose it yet.
inline constexpr int kRowsAtOnce = 2;

// A source of one matrix. Rows are computed in a loop that is not unrolled, and wait in shared
// memory: the values of a tile take half of a thread's registers, and unrolled loads the rest.
// A Formula's Row fetches what a row of 8 values is made of, and computes it: zeros beyond the
// tile's columns.
template <typename Formula>
struct ComputedSource {
  using Params = ActivationInput;
  static constexpr bool kWide = true;
  static constexpr int kTiles = 1;
  bool computed = false;

  EVENKEEL_DEVICE void load(const Params&, const TilePlace&) {}

  EVENKEEL_DEVICE void fill(int, const Params& input, const TilePlace& place,
                            MicroTile<true>& tile) {
    ActivationShared& shared = ActivationShared::get();
    if (!computed) {
      const bool inside = MicroPlace::column() < place.columns;
#pragma unroll 1
      for (int first = 0; first < 8; first += kRowsAtOnce) {
        typename Formula::Row rows[kRowsAtOnce];
#pragma unroll
        for (int i = 0; i < kRowsAtOnce; ++i) {
          const uint32_t row = MicroPlace::row() + first + i;
          if (inside && row < place.rows) rows[i].fetch(input, place, row);
        }
#pragma unroll
        for (int i = 0; i < kRowsAtOnce; ++i) {
          const uint32_t row = MicroPlace::row() + first + i;
          float values[8] = {};
          if (inside && row < place.rows) rows[i].compute(input, place, row, values);
          shared.put(first + i, values);
        }
      }
      computed = true;
    }
    shared.take(tile);
  }
};

// The column of a thread's first value, and the row of one in the input.
EVENKEEL_DEVICE uint32_t column_of(const TilePlace& place) {
  return static_cast<uint32_t>(place.column) + MicroPlace::column();
}
EVENKEEL_DEVICE uint32_t row_of(const TilePlace& place, uint32_t row) {
  return static_cast<uint32_t>(place.row) + row;
}

struct SwiGluFormula {
  struct Row {
    RawUnit gate;
    RawUnit up;

    EVENKEEL_DEVICE void fetch(const ActivationInput& input, const TilePlace& place, uint32_t row) {
      const uint32_t columns = static_cast<uint32_t>(input.channels);
      gate = fetch_unit(input.x, row_of(place, row), column_of(place), columns);
      up = fetch_unit(input.up, row_of(place, row), column_of(place), columns);
    }
    EVENKEEL_DEVICE void compute(const ActivationInput& input, const TilePlace& place, uint32_t row,
                                 float (&values)[8]) const {
      float g[8];
      unpack_unit(gate, input.x.type, g);
      unpack_unit(up, input.up.type, values);
      divide(input, row_of(place, row), column_of(place), values);
#pragma unroll
      for (int j = 0; j < 8; ++j) values[j] = swiglu(g[j], values[j]);
    }
  };
};

// gelu(0) = 0: columns beyond the tile stay 0.
struct GeluFormula {
  struct Row {
    RawUnit x;

    EVENKEEL_DEVICE void fetch(const ActivationInput& input, const TilePlace& place, uint32_t row) {
      const uint32_t columns = static_cast<uint32_t>(input.channels);
      x = fetch_unit(input.x, row_of(place, row), column_of(place), columns);
    }
    EVENKEEL_DEVICE void compute(const ActivationInput& input, const TilePlace&, uint32_t,
                                 float (&values)[8]) const {
      unpack_unit(x, input.x.type, values);
      const bool exact = input.function == ActivationFunction::kGeluExact;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        values[j] = exact ? GeluExact::value(values[j]) : GeluTanh::value(values[j]);
      }
    }
  };
};

// dx of GELU, and [dgate | dup] of SwiGLU as one matrix of twice the channels.
struct GradientFormula {
  struct Row {
    RawUnit x;
    RawUnit up;
    RawUnit dy;

    EVENKEEL_DEVICE void fetch(const ActivationInput& input, const TilePlace& place, uint32_t row) {
      const uint32_t columns = static_cast<uint32_t>(input.channels);
      uint32_t channel = column_of(place);
      if (input.function == ActivationFunction::kSwiGlu) {
        if (columns % kUnit != 0) return;
        if (channel < columns) {
          up = fetch_unit(input.up, row_of(place, row), channel, columns);
        } else {
          channel -= columns;
        }
      }
      x = fetch_unit(input.x, row_of(place, row), channel, columns);
      dy = fetch_unit(input.dy, row_of(place, row), channel, columns);
    }

    EVENKEEL_DEVICE void compute(const ActivationInput& input, const TilePlace& place, uint32_t row,
                                 float (&values)[8]) const {
      const uint32_t columns = static_cast<uint32_t>(input.channels);
      const bool gated = input.function == ActivationFunction::kSwiGlu;
      if (gated && columns % kUnit != 0) return apart(input, place, row_of(place, row), values);
      const uint32_t column = column_of(place);
      const bool first = column < columns;
      float d[8];
      unpack_unit(x, input.x.type, values);
      unpack_unit(dy, input.dy.type, d);
      if (gated) {
        float u[8];
        unpack_unit(up, input.up.type, u);
        divide(input, row_of(place, row), first ? column : column - columns, d);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const SwiGluGradient gradient = SwiGluGradient::of(values[j], u[j], d[j]);
          values[j] = first ? gradient.gate : gradient.up;
        }
        return;
      }
      const bool exact = input.function == ActivationFunction::kGeluExact;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float slope =
            exact ? GeluExact::curve(values[j]).slope : GeluTanh::curve(values[j]).slope;
        values[j] = d[j] * slope;
      }
    }

    // Element by element, where a unit may begin in dgate and end in dup.
    EVENKEEL_DEVICE static void apart(const ActivationInput& input, const TilePlace& place,
                                      uint32_t row, float (&values)[8]) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (MicroPlace::column() + j >= place.columns) continue;
        const uint64_t at = column_of(place) + j;
        const bool first = at < input.channels;
        const uint64_t channel = first ? at : at - input.channels;
        float d = load_element(input.dy, row, channel);
        if (input.scales != nullptr) d = d / input.scales[input.per_token != 0 ? row : channel];
        const float g = load_element(input.x, row, channel);
        const float u = first ? load_element(input.up, row, channel) : 0.0f;
        const SwiGluGradient gradient = SwiGluGradient::of(g, u, d);
        values[j] = first ? gradient.gate : gradient.up;
      }
    }
  };
};

using SwiGluSource = ComputedSource<SwiGluFormula>;
using GeluSource = ComputedSource<GeluFormula>;
using GradientSource = ComputedSource<GradientFormula>;

}  // namespace evenkeel
