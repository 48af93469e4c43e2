// Tiles of 128 x 128 values: which values a thread has, and how it gets them.
//
// 256 threads; warp w has rows 16 w to 16 w + 15, its lanes 0 to 15 the first eight of them, 16 to
// 31 the others; lane l has columns 8 (l mod 16) to 8 (l mod 16) + 7. A thread's 8 x 8 values are
// its micro-tile: eight loads of 16 bytes in flight, neighbouring lanes side by side, and both the
// blocks of rows and those of columns are reduced within a thread first.
//
// The seam: a source says where values come from. It has
// - Params, its part of the kernel's parameters;
// - kWide: whether micro-tiles hold fp32, else 16-bit elements as they came;
// - tiles(params): how many tiles of the matrix it makes of one read: 1, or 2, which are as far
//   apart as the grid is wide;
// - fill(params, place, keep, micro_tile): the values of the first; all threads of the block call
//   it. `keep`: they are asked for once more, and are the only tile's. One that makes two leaves
//   the place in QuantizeShared;
// - refill(params, place, micro_tile): the values that were kept;
// - second(micro_tile): those of the second tile.
//
// Values outside the place's rows and columns are 0.
#pragma once

#include "common/columns.cuh"
#include "common/status.h"
#include "quant/params.h"

namespace evenkeel {

inline constexpr uint32_t kTile = 128;
inline constexpr uint32_t kTileThreads = 256;
inline constexpr uint32_t kTileWarps = kTileThreads / 32;

// Where a tile lies. Rows are those of its group alone.
struct TilePlace {
  uint64_t row;     // its first
  uint64_t column;  // its first
  uint32_t rows;    // up to 128
  uint32_t columns;
  uint32_t group;
  uint32_t index;  // of the tile among those of its group and columns
  uint64_t group_row;
  uint64_t group_rows;
  uint32_t row_tile;
  uint32_t column_tile;

  // The slot of the tile's first block of `size` rows, which divides 128: blocks begin where groups
  // do, and none belongs to two.
  EVENKEEL_DEVICE uint64_t slot(uint32_t size) const {
    return group_row / size + group + static_cast<uint64_t>(index) * (kTile / size);
  }
};

// Whether the offsets of groups do not descend and are within the rows; in `begun` how many groups
// begin in tile `row_tile` or before. All threads of the block call it.
EVENKEEL_DEVICE bool check_groups(const QuantizeGrid& grid, uint32_t row_tile, uint32_t& begun) {
  begun = 0;
  bool wrong = false;
  for (uint32_t first = 0; first < grid.groups; first += kTileThreads) {
    const uint32_t g = first + threadIdx.x;
    bool begins = false;
    bool fits = true;
    if (g < grid.groups) {
      const int64_t start = load_integer(grid.offsets, grid.offset_type, g);
      const int64_t end = load_integer(grid.offsets, grid.offset_type, g + 1);
      fits = start >= 0 && start <= end && end <= static_cast<int64_t>(grid.rows);
      begins = fits && static_cast<uint64_t>(start) / kTile + g <= row_tile;
    }
    begun += static_cast<uint32_t>(__syncthreads_count(begins));
    wrong = __syncthreads_or(!fits) || wrong;
  }
  return !wrong;
}

// The block's tile; false where it has none. All threads of the block call it.
EVENKEEL_DEVICE bool find_tile(const QuantizeGrid& grid, uint32_t* status, TilePlace& place) {
  place.row_tile = blockIdx.x / grid.column_tiles;
  place.column_tile = blockIdx.x - place.row_tile * grid.column_tiles;
  place.column = static_cast<uint64_t>(place.column_tile) * kTile;
  place.columns =
      static_cast<uint32_t>(min(grid.columns - place.column, static_cast<uint64_t>(kTile)));
  place.group = 0;
  place.group_row = 0;
  place.group_rows = grid.rows;
  place.index = place.row_tile;
  if (grid.offsets != nullptr) {
    // Tile b of the group that begins at row s has slot floor(s / 128) + g + b: the group is the
    // last one whose first slot is not beyond this one.
    uint32_t begun;
    if (!check_groups(grid, place.row_tile, begun)) {
      if (blockIdx.x == 0 && threadIdx.x == 0) atomicOr(status, kBadGroupOffsets);
      return false;
    }
    if (begun == 0) return false;
    place.group = begun - 1;
    place.group_row =
        static_cast<uint64_t>(load_integer(grid.offsets, grid.offset_type, place.group));
    place.group_rows =
        static_cast<uint64_t>(load_integer(grid.offsets, grid.offset_type, place.group + 1)) -
        place.group_row;
    place.index = place.row_tile - static_cast<uint32_t>(place.group_row / kTile) - place.group;
  }
  const uint64_t before = static_cast<uint64_t>(place.index) * kTile;
  if (before >= place.group_rows || place.column >= grid.columns) return false;
  place.row = place.group_row + before;
  place.rows = static_cast<uint32_t>(min(place.group_rows - before, static_cast<uint64_t>(kTile)));
  return true;
}

// A thread's rows and columns, within its tile.
struct MicroPlace {
  EVENKEEL_DEVICE static uint32_t warp() { return threadIdx.x / 32; }
  // Eights of rows and of columns, 0 to 15.
  EVENKEEL_DEVICE static uint32_t row_group() {
    return 2 * (threadIdx.x / 32) + (threadIdx.x / 16) % 2;
  }
  EVENKEEL_DEVICE static uint32_t column_group() { return threadIdx.x % 16; }
  EVENKEEL_DEVICE static uint32_t row() { return 8 * row_group(); }
  EVENKEEL_DEVICE static uint32_t column() { return 8 * column_group(); }
};

// A thread's 8 x 8 values.
template <bool kWide>
struct MicroTile;

// As they came, 16 bits each.
template <>
struct MicroTile<false> {
  uint4 rows[8];
  FloatType type;

  EVENKEEL_DEVICE void row(int i, float (&x)[8]) const { unpack_unit(rows[i], type, x); }
  EVENKEEL_DEVICE void column(int j, float (&x)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t words[4] = {rows[i].x, rows[i].y, rows[i].z, rows[i].w};
      const uint32_t pair = words[j / 2];
      if (type == FloatType::kF16) {
        x[i] = ptx::cvt_f32_f16(static_cast<uint16_t>(j % 2 == 0 ? pair : pair >> 16));
      } else {
        x[i] = __uint_as_float(j % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
      }
    }
  }
};

template <>
struct MicroTile<true> {
  float x[8][8];

  EVENKEEL_DEVICE void row(int i, float (&values)[8]) const {
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] = x[i][j];
  }
  EVENKEEL_DEVICE void column(int j, float (&values)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = x[i][j];
  }
};

}  // namespace evenkeel
