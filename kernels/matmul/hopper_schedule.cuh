// Which tiles a block computes, and in what order: tile after tile by index, block + i x grid, so
// that the same call always adds the same numbers in the same order.
#pragma once

#include "matmul/params.h"
#include "ptx/cluster.cuh"

namespace evenkeel {

// One tile of the product.
struct HopperTile {
  int32_t group;
  int32_t row;      // of A
  int32_t row_end;  // of A; later rows are another group's or do not exist
  int32_t column;   // of the product
  int32_t k_begin;
  int32_t k_end;
};

EVENKEEL_DEVICE int64_t group_offset(const MatmulShape& shape, int32_t index) {
  return shape.offset_type == IntegerType::kI64 ? static_cast<const int64_t*>(shape.offsets)[index]
                                                : static_cast<const int32_t*>(shape.offsets)[index];
}

// Whether groups are ranges of what they divide, in order. All lanes of a warp call it.
EVENKEEL_DEVICE bool offsets_ascend(const MatmulShape& shape) {
  if (shape.grouping == Grouping::kNone) return true;
  const int64_t end = static_cast<int64_t>(shape.grouping == Grouping::kRows ? shape.m : shape.k);
  bool wrong = false;
  for (uint32_t group = threadIdx.x % 32; group < shape.groups; group += 32) {
    const int64_t begin = group_offset(shape, static_cast<int32_t>(group));
    const int64_t next = group_offset(shape, static_cast<int32_t>(group) + 1);
    wrong |= begin < 0 || next < begin || next > end;
  }
  return !__any_sync(0xffffffffu, wrong);
}

// The tiles of one block. A cluster takes as many neighbouring tiles as it has blocks, one each,
// along columns or rows; where the number of tiles is no multiple, the last has nothing to store.
// Within a group, `raster` rows of tiles are walked column by column, so that what is read again
// soon is in L2.
//
// What it keeps between tiles is little, since registers are the consumers' sums: a group's bounds
// are read again for each tile.
template <class Config>
struct HopperSchedule {
  const MatmulShape& shape;
  uint32_t raster;
  uint32_t unit;  // the cluster's next, counted from the group's first
  int32_t group = 0;

  EVENKEEL_DEVICE HopperSchedule(const MatmulShape& shape, uint32_t raster)
      : shape(shape), raster(raster), unit(blockIdx.x / ptx::cluster_nctarank()) {}

  // Of the group; row and column are its first.
  EVENKEEL_DEVICE HopperTile bounds() const {
    HopperTile tile = {group, 0, static_cast<int32_t>(shape.m),
                       0,     0, static_cast<int32_t>(shape.k)};
    if (shape.grouping != Grouping::kNone) {
      const int32_t begin = static_cast<int32_t>(group_offset(shape, group));
      const int32_t end = static_cast<int32_t>(group_offset(shape, group + 1));
      if (shape.grouping == Grouping::kRows) {
        tile.row = begin;
        tile.row_end = end;
      } else {
        tile.k_begin = begin;
        tile.k_end = end;
      }
    }
    return tile;
  }

  EVENKEEL_DEVICE bool next(HopperTile& tile) {
    const uint32_t blocks = ptx::cluster_nctarank();
    const uint32_t rank = ptx::cluster_ctarank();
    const uint32_t tile_columns = ceiling(static_cast<uint32_t>(shape.n), Config::kTileN);
    const uint32_t columns = Config::kSharesB ? tile_columns : ceiling(tile_columns, blocks);
    uint32_t rows;
    for (;; ++group) {
      if (group >= static_cast<int32_t>(shape.groups)) return false;
      tile = bounds();
      const uint32_t tile_rows = ceiling(tile.row_end - tile.row, Config::kTileM);
      rows = Config::kSharesB ? ceiling(tile_rows, blocks) : tile_rows;
      if (unit < rows * columns) break;
      unit -= rows * columns;
    }
    const uint32_t band = unit / (raster * columns);
    const uint32_t in_band = unit - band * raster * columns;
    const uint32_t band_rows = min(raster, rows - band * raster);
    const uint32_t column = in_band / band_rows;
    const uint32_t row = band * raster + in_band - column * band_rows;
    tile.row += static_cast<int32_t>(Config::kSharesB ? row * blocks + rank : row) * Config::kTileM;
    tile.column =
        static_cast<int32_t>(Config::kSharesB ? column : column * blocks + rank) * Config::kTileN;
    unit += gridDim.x / blocks;
    return true;
  }

  static EVENKEEL_DEVICE uint32_t ceiling(uint32_t length, uint32_t size) {
    return (length + size - 1) / size;
  }
};

// Slices of a tile's contraction.
template <class Config>
EVENKEEL_DEVICE int32_t slices(const HopperTile& tile) {
  return (tile.k_end - tile.k_begin + Config::kSlice - 1) / Config::kSlice;
}

// The first row of B that a tile multiplies.
EVENKEEL_DEVICE int32_t row_of_b(const MatmulShape& shape, const HopperTile& tile) {
  return (shape.grouping == Grouping::kRows ? tile.group * static_cast<int32_t>(shape.n) : 0) +
         tile.column;
}

// The row of the result that row 0 of A has.
EVENKEEL_DEVICE int64_t result_base(const MatmulShape& shape, const HopperTile& tile) {
  return shape.grouping == Grouping::kContraction
             ? static_cast<int64_t>(tile.group) * static_cast<int64_t>(shape.m)
             : 0;
}

// The place of a tile's first block of 128 along K among scales.
EVENKEEL_DEVICE int64_t first_block(const MatmulShape& shape, const HopperTile& tile) {
  return shape.grouping == Grouping::kContraction ? tile.k_begin / 128 + tile.group : 0;
}

}  // namespace evenkeel
