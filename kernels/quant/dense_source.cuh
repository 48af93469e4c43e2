// A matrix in memory as a source of tiles (quant/tile.cuh).
#pragma once

#include "quant/scales.cuh"

namespace evenkeel {

// Beside QuantizeShared: 256 bytes for each thread, which its thread alone uses, 16 bytes a slot,
// slots of neighbouring threads side by side. A tile of fp32 fills them, one of 16 bits the first
// half.
struct KeptShared {
  QuantizeShared quantize;
  uint4 slots[16][kTileThreads];

  EVENKEEL_DEVICE static KeptShared& get() {
    return *reinterpret_cast<KeptShared*>(platform::dynamic_shared());
  }
  EVENKEEL_DEVICE void put(int i, const float (&row)[8]) {
    slots[2 * i][threadIdx.x] = pack(row, 0.0f);
    slots[2 * i + 1][threadIdx.x] = pack(row + 4, 0.0f);
  }
  EVENKEEL_DEVICE void take(int i, float (&row)[8]) const {
    unpack_halves(slots[2 * i][threadIdx.x], slots[2 * i + 1][threadIdx.x], row);
  }
  EVENKEEL_DEVICE void take(MicroTile<true>& tile) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) take(i, tile.x[i]);
  }

  EVENKEEL_DEVICE static void unpack_halves(uint4 low, uint4 high, float (&row)[8]) {
    const uint4 halves[2] = {low, high};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row[4 * h] = __uint_as_float(halves[h].x);
      row[4 * h + 1] = __uint_as_float(halves[h].y);
      row[4 * h + 2] = __uint_as_float(halves[h].z);
      row[4 * h + 3] = __uint_as_float(halves[h].w);
    }
  }
};

static_assert(sizeof(KeptShared) == 32912 + 65536, "src/quant/launch.rs has it");

// Eight 16-bit elements of a row of the tile, zeros outside it.
EVENKEEL_DEVICE uint4 load_halves(const DenseInput& input, const TilePlace& place, uint32_t row) {
  const uint32_t column = MicroPlace::column();
  if (row >= place.rows || column >= place.columns) return make_uint4(0, 0, 0, 0);
  const uint16_t* const from = static_cast<const uint16_t*>(input.data) +
                               static_cast<int64_t>(place.row + row) * input.stride +
                               static_cast<int64_t>(place.column + column);
  if (input.aligned != 0) return ptx::load_global<uint4>(from);
  uint32_t words[4];
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    const uint32_t low = column + 2 * k < place.columns ? from[2 * k] : 0;
    const uint32_t high = column + 2 * k + 1 < place.columns ? from[2 * k + 1] : 0;
    words[k] = low | high << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The same of fp32.
EVENKEEL_DEVICE void load_floats(const DenseInput& input, const TilePlace& place, uint32_t row,
                                 float (&x)[8]) {
  const uint32_t column = MicroPlace::column();
#pragma unroll
  for (int j = 0; j < 8; ++j) x[j] = 0.0f;
  if (row >= place.rows || column >= place.columns) return;
  const float* const from = static_cast<const float*>(input.data) +
                            static_cast<int64_t>(place.row + row) * input.stride +
                            static_cast<int64_t>(place.column + column);
  if (input.aligned != 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // The halves of a sector: the second finds it in L1.
      const uint4 four = ptx::load_cached<uint4>(from + 4 * half);
      x[4 * half] = __uint_as_float(four.x);
      x[4 * half + 1] = __uint_as_float(four.y);
      x[4 * half + 2] = __uint_as_float(four.z);
      x[4 * half + 3] = __uint_as_float(four.w);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (column + static_cast<uint32_t>(j) < place.columns) x[j] = from[j];
  }
}

// Narrow: of 16-bit elements; wide: of any. Kept values wait in shared memory as they came: beside
// 64 of fp32 they would take half of a multiprocessor's blocks in registers.
template <bool kWide_>
struct DenseSource {
  using Params = DenseInput;
  static constexpr bool kWide = kWide_;

  EVENKEEL_DEVICE static uint32_t tiles(const Params&) { return 1; }
  EVENKEEL_DEVICE static void second(MicroTile<kWide>&) {}

  EVENKEEL_DEVICE static void fill(const DenseInput& input, const TilePlace& place, bool keep,
                                   MicroTile<kWide>& tile) {
    const uint32_t row = MicroPlace::row();
    if constexpr (!kWide) {
      tile.type = input.type;
#pragma unroll
      for (uint32_t i = 0; i < 8; ++i) tile.rows[i] = load_halves(input, place, row + i);
    } else if (input.type == FloatType::kF32) {
#pragma unroll
      for (uint32_t i = 0; i < 8; ++i) load_floats(input, place, row + i, tile.x[i]);
      if (!keep) return;
#pragma unroll
      for (int i = 0; i < 8; ++i) KeptShared::get().put(i, tile.x[i]);
    } else {
      uint4 packed[8];
#pragma unroll
      for (uint32_t i = 0; i < 8; ++i) packed[i] = load_halves(input, place, row + i);
      if (keep) {
#pragma unroll
        for (int i = 0; i < 8; ++i) KeptShared::get().slots[i][threadIdx.x] = packed[i];
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) unpack_unit(packed[i], input.type, tile.x[i]);
    }
  }

  EVENKEEL_DEVICE static void refill(const DenseInput& input, const TilePlace&,
                                     MicroTile<true>& tile) {
    const KeptShared& kept = KeptShared::get();
    if (input.type == FloatType::kF32) return kept.take(tile);
#pragma unroll
    for (int i = 0; i < 8; ++i) unpack_unit(kept.slots[i][threadIdx.x], input.type, tile.x[i]);
  }
};

}  // namespace evenkeel
