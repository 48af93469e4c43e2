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
// many instructions are there once. Where F is a multiple of 128, a block makes a tile of dgate and
// the one of dup that is made of the same gate and dy, from one read of all three. Elsewhere tiles
// of the two are of different columns: gate and dy are loaded for both, the second time from L2, as
// these are a row of tiles apart. So are they where both outputs are rotated, for which dgate's
// values would have to be kept beside dup's.
#pragma once

#include <cstddef>

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
  uint32_t channels;  // of x; [dgate | dup] has twice as many
  uint32_t paired;    // a tile of dgate and its counterpart of dup are one block's
};
static_assert(sizeof(ActivationInput) == 96, "src/quant/kernels/activation.rs mirrors it");

struct ActivationQuantizeParams {
  QuantizeGrid grid;
  QuantizeForm form;
  QuantizeOutputs outputs;
  ActivationInput input;
};
struct ActivationAmaxParams {
  QuantizeGrid grid;
  AmaxOutputs outputs;
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

// Rows of a thread whose loads are on their way at once. No measurement chose it yet.
inline constexpr int kRowsAtOnce = 2;

// A source of values that are computed row by row: a Formula's Row fetches what 8 values are made
// of, and computes them, zeros beyond the tile's columns.
template <typename Formula>
struct ComputedSource {
  using Params = ActivationInput;
  static constexpr bool kWide = true;

  EVENKEEL_DEVICE static uint32_t tiles(const Params&) { return 1; }
  EVENKEEL_DEVICE static void second(MicroTile<true>&) {}

  EVENKEEL_DEVICE static void fill(const ActivationInput& input, const TilePlace& place, bool,
                                   MicroTile<true>& tile) {
    KeptShared& kept = KeptShared::get();
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
        kept.put(first + i, values);
      }
    }
    kept.take(tile);
  }

  EVENKEEL_DEVICE static void refill(const ActivationInput&, const TilePlace&,
                                     MicroTile<true>& tile) {
    KeptShared::get().take(tile);
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
      gate = fetch_unit(input.x, row_of(place, row), column_of(place), input.channels);
      up = fetch_unit(input.up, row_of(place, row), column_of(place), input.channels);
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
      x = fetch_unit(input.x, row_of(place, row), column_of(place), input.channels);
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

// dx of GELU, or [dgate | dup] of SwiGLU as one matrix of twice the channels.
struct GradientRow {
  RawUnit x;
  RawUnit up;
  RawUnit dy;

  EVENKEEL_DEVICE void fetch(const ActivationInput& input, const TilePlace& place, uint32_t row) {
    uint32_t channel = column_of(place);
    if (input.function == ActivationFunction::kSwiGlu) {
      if (input.channels % kUnit != 0) return;
      if (channel < input.channels) {
        up = fetch_unit(input.up, row_of(place, row), channel, input.channels);
      } else {
        channel -= input.channels;
      }
    }
    x = fetch_unit(input.x, row_of(place, row), channel, input.channels);
    dy = fetch_unit(input.dy, row_of(place, row), channel, input.channels);
  }

  // `values`: those of the tile; `up_values`: of its counterpart in dup, where tiles are paired.
  EVENKEEL_DEVICE void compute(const ActivationInput& input, const TilePlace& place, uint32_t row,
                               float (&values)[8], float (&up_values)[8]) const {
    const bool gated = input.function == ActivationFunction::kSwiGlu;
    if (gated && input.channels % kUnit != 0) {
      return apart(input, place, row_of(place, row), values);
    }
    const uint32_t column = column_of(place);
    const bool first = column < input.channels;
    float d[8];
    unpack_unit(x, input.x.type, values);
    unpack_unit(dy, input.dy.type, d);
    if (gated) {
      float u[8];
      unpack_unit(up, input.up.type, u);
      divide(input, row_of(place, row), first ? column : column - input.channels, d);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const SwiGluGradient gradient = SwiGluGradient::of(values[j], u[j], d[j]);
        values[j] = first ? gradient.gate : gradient.up;
        up_values[j] = gradient.up;
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
      const uint32_t at = column_of(place) + j;
      const bool first = at < input.channels;
      const uint32_t channel = first ? at : at - input.channels;
      float d = load_element(input.dy, row, channel);
      if (input.scales != nullptr) d = d / input.scales[input.per_token != 0 ? row : channel];
      const float g = load_element(input.x, row, channel);
      const float u = first ? load_element(input.up, row, channel) : 0.0f;
      const SwiGluGradient gradient = SwiGluGradient::of(g, u, d);
      values[j] = first ? gradient.gate : gradient.up;
    }
  }
};

// Paired, dup's tile waits in the thread's slots while dgate's is quantised. The slots are as much
// memory as a block may have on GPUs of 99 KiB, and what a loop computes has to go through memory
// on its way to registers. So dgate's rows wait where there is room yet: rows 0 to 3 where amaxes
// and divisors will be, 4 and 5 in the slots of dup's last two, and of the last two rows each finds
// the place of two that have moved to registers.
struct GradientSource {
  using Params = ActivationInput;
  static constexpr bool kWide = true;

  EVENKEEL_DEVICE static uint32_t tiles(const ActivationInput& input) {
    return input.paired != 0 ? 2 : 1;
  }

  EVENKEEL_DEVICE static void fill(const ActivationInput& input, const TilePlace& place, bool keep,
                                   MicroTile<true>& tile) {
    KeptShared& kept = KeptShared::get();
    // Of the second tile, published by the barrier below.
    if (threadIdx.x == 0) kept.quantize.place = place;
    const bool inside = MicroPlace::column() < place.columns;
    float values[8];
    float up_values[8];
#pragma unroll 1
    for (int i = 0;; ++i) {
      const uint32_t row = MicroPlace::row() + static_cast<uint32_t>(i);
#pragma unroll
      for (int j = 0; j < 8; ++j) values[j] = up_values[j] = 0.0f;
      if (inside && row < place.rows) {
        GradientRow of;
        of.fetch(input, place, row);
        of.compute(input, place, row, values, up_values);
      }
      if (i == 7) break;
      if (i == 6) {
        take_early(0, tile.x[0]);
        kept.take(6, tile.x[4]);
      }
      if (i == 4 || i == 5) {
        kept.put(i + 2, values);
      } else {
        put_early(i % 6, values);
      }
      // What is kept of a single tile is put where it belongs once it is whole.
      if (input.paired != 0) kept.put(i, up_values);
    }
    take_early(0, tile.x[6]);
#pragma unroll
    for (int i = 1; i < 4; ++i) take_early(i, tile.x[i]);
    kept.take(7, tile.x[5]);
#pragma unroll
    for (int j = 0; j < 8; ++j) tile.x[7][j] = values[j];
    if (input.paired != 0) kept.put(7, up_values);
    if (keep) {
#pragma unroll
      for (int i = 0; i < 8; ++i) kept.put(i, tile.x[i]);
    }
    // Others' early places are where amaxes go next.
    __syncthreads();
  }

  EVENKEEL_DEVICE static void second(MicroTile<true>& tile) { KeptShared::get().take(tile); }
  EVENKEEL_DEVICE static void refill(const ActivationInput&, const TilePlace&,
                                     MicroTile<true>& tile) {
    KeptShared::get().take(tile);
  }

 private:
  // A row of this thread in memory that quantisation has not begun to use: 16 bytes a place, as the
  // slots.
  EVENKEEL_DEVICE static uint4* early(int row) {
    static_assert(offsetof(QuantizeShared, warp_amax) >= 8 * kTileThreads * sizeof(uint4));
    return reinterpret_cast<uint4*>(&KeptShared::get().quantize) + 2 * row * kTileThreads +
           threadIdx.x;
  }
  EVENKEEL_DEVICE static void put_early(int row, const float (&values)[8]) {
    early(row)[0] = pack(values, 0.0f);
    early(row)[kTileThreads] = pack(values + 4, 0.0f);
  }
  EVENKEEL_DEVICE static void take_early(int row, float (&values)[8]) {
    KeptShared::unpack_halves(early(row)[0], early(row)[kTileThreads], values);
  }
};

using SwiGluSource = ComputedSource<SwiGluFormula>;
using GeluSource = ComputedSource<GeluFormula>;

}  // namespace evenkeel
