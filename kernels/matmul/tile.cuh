// Which part of which product a block of the portable kernels computes: 128 x 128 of a result, over
// all of its contraction or a part of it.
#pragma once

#include "common/columns.cuh"
#include "common/status.h"
#include "matmul/params.h"

namespace evenkeel {

inline constexpr uint32_t kProductTile = 128;
inline constexpr uint32_t kProductThreads = 256;
// Bytes of K that a stage of the pipeline holds of each row.
inline constexpr uint32_t kStageBytes = 128;
// Row tiles whose blocks follow one another for a column tile before the next column tile's: what
// they share of A and B is in L2 then. 8 x 8 tiles of K = 4096 in 16 bits are 16 MB. No measurement
// chose it yet.
inline constexpr uint32_t kRasterRows = 8;

// Blocks: row_tiles x column_tiles, of K-groups `groups` times that; `splits` times all of it.
struct PortableGrid {
  uint32_t row_tiles;     // ceil(M / 128), of groups of rows floor(M / 128) + groups
  uint32_t column_tiles;  // ceil(N / 128)
  uint32_t splits;        // 1 with groups
  uint32_t split_stages;  // stages of K in a split, but for the last
};

struct PortableParams {
  MatmulOperand a;
  MatmulOperand b;
  MatmulShape shape;
  MatmulEpilogue epilogue;
  PortableGrid grid;
  float* partials;     // [splits, M, N rounded up to 8] where splits > 1
  uint32_t promotion;  // non-zero: sums leave the tensor core every 128 of K
  uint32_t unused;
  uint32_t* status;
};
static_assert(sizeof(PortableParams) == 320, "src/matmul/params.rs mirrors it");

struct ProductTile {
  uint64_t a_row;    // the first of its rows of A
  uint64_t b_row;    // and of B
  uint64_t out_row;  // the result's row of a_row
  uint64_t column;   // the result's column of b_row
  uint64_t k;        // where its group's contraction begins
  uint64_t k_size;
  uint32_t rows;  // up to 128
  uint32_t columns;
  uint32_t group;
  uint32_t split;
};

// Whether the offsets of groups do not descend and are within what they divide; in `begun` how many
// groups' row tiles begin at tile `row_tile` or before. All threads of the block call it.
EVENKEEL_DEVICE bool check_product_groups(const MatmulShape& shape, uint32_t row_tile,
                                          uint32_t& begun) {
  const uint64_t end_of_all = shape.grouping == Grouping::kRows ? shape.m : shape.k;
  begun = 0;
  bool wrong = false;
  for (uint32_t first = 0; first < shape.groups; first += kProductThreads) {
    const uint32_t g = first + threadIdx.x;
    bool begins = false;
    bool fits = true;
    if (g < shape.groups) {
      const int64_t start = load_integer(shape.offsets, shape.offset_type, g);
      const int64_t end = load_integer(shape.offsets, shape.offset_type, g + 1);
      fits = start >= 0 && start <= end && end <= static_cast<int64_t>(end_of_all);
      begins = fits && static_cast<uint64_t>(start) / kProductTile + g <= row_tile;
    }
    begun += static_cast<uint32_t>(__syncthreads_count(begins));
    wrong = wrong || !fits;
  }
  return !__syncthreads_or(wrong);
}

// The block's tile; false where it has none. All threads of the block call it.
EVENKEEL_DEVICE bool find_product_tile(const PortableParams& params, ProductTile& tile) {
  const MatmulShape& shape = params.shape;
  const PortableGrid& grid = params.grid;
  const uint32_t tiles = grid.row_tiles * grid.column_tiles;
  const uint32_t layer = blockIdx.x / tiles;
  const uint32_t index = blockIdx.x - layer * tiles;
  const uint32_t band = index / (kRasterRows * grid.column_tiles);
  const uint32_t in_band = index - band * kRasterRows * grid.column_tiles;
  const uint32_t band_rows = min(grid.row_tiles - band * kRasterRows, kRasterRows);
  const uint32_t column_tile = in_band / band_rows;
  const uint32_t row_tile = band * kRasterRows + in_band - column_tile * band_rows;

  tile.group = 0;
  tile.split = 0;
  tile.k = 0;
  tile.k_size = shape.k;
  tile.column = static_cast<uint64_t>(column_tile) * kProductTile;
  tile.b_row = tile.column;
  uint64_t first_row = 0;  // of the group
  uint64_t rows = shape.m;
  uint64_t row = static_cast<uint64_t>(row_tile) * kProductTile;
  uint64_t out_offset = 0;
  if (shape.grouping == Grouping::kNone) {
    tile.split = layer;
  } else {
    uint32_t begun;
    if (!check_product_groups(shape, row_tile, begun)) {
      if (blockIdx.x == 0 && threadIdx.x == 0) atomicOr(params.status, kBadGroupOffsets);
      return false;
    }
    const bool of_rows = shape.grouping == Grouping::kRows;
    if (of_rows && begun == 0) return false;
    tile.group = of_rows ? begun - 1 : layer;
    const uint64_t start =
        static_cast<uint64_t>(load_integer(shape.offsets, shape.offset_type, tile.group));
    const uint64_t size =
        static_cast<uint64_t>(load_integer(shape.offsets, shape.offset_type, tile.group + 1)) -
        start;
    if (of_rows) {
      // Tile i of the group that begins at row s has place floor(s / 128) + g + i.
      first_row = start;
      rows = size;
      row = (row_tile - start / kProductTile - tile.group) * kProductTile;
      tile.b_row += tile.group * shape.n;
    } else {
      tile.k = start;
      tile.k_size = size;
      out_offset = tile.group * shape.m;
    }
  }
  if (row >= rows) return false;
  tile.a_row = first_row + row;
  tile.out_row = out_offset + tile.a_row;
  tile.rows = static_cast<uint32_t>(min(rows - row, static_cast<uint64_t>(kProductTile)));
  tile.columns =
      static_cast<uint32_t>(min(shape.n - tile.column, static_cast<uint64_t>(kProductTile)));
  return true;
}

}  // namespace evenkeel
