// What becomes of a tile's sums. Each warp has 16 rows of a wave and stages them in 4 KiB of shared
// memory of its own, so that no warp waits for another; while the last of it is on its way, the
// producer has filled the ring for the next tile.
//
// By tiles: results are rounded in registers, laid out as the copy engine swizzles, and stored (or
// added) by it, two buffers of 16 rows x 128 bytes in turn. By elements: sums are staged as fp32,
// 64 columns at a time, so that a thread gets eight neighbours for the epilogue that every kernel
// of the family shares.
#pragma once

#include "matmul/epilogue.cuh"
#include "matmul/hopper_multiply.cuh"
#include "ptx/matrix.cuh"

namespace evenkeel {

// The scale of an operand's row (or of its tensor, where scale_row is 0); 1 of operands whose
// scales belong to blocks and are in the sums already.
EVENKEEL_DEVICE bool scales_results(const MatmulOperand& operand) {
  return operand.scale == OperandScale::kTensor || operand.scale == OperandScale::kRow;
}
EVENKEEL_DEVICE float result_scale(const MatmulOperand& operand, int64_t row, int32_t group) {
  return static_cast<const float*>(
      operand.scales)[row * operand.scale_row + group * operand.scale_group];
}

// What all of a tile's results share.
struct HopperTileScales {
  float tensor;    // the product of the scales of tensors
  bool by_row;     // A's rows have their own
  bool by_column;  // B's have

  EVENKEEL_DEVICE HopperTileScales(const HopperParams& params, const HopperTile& tile)
      : tensor(1.0f),
        by_row(params.operand_a.scale == OperandScale::kRow),
        by_column(params.operand_b.scale == OperandScale::kRow) {
    if (scales_results(params.operand_a) && !by_row) {
      tensor = result_scale(params.operand_a, 0, tile.group);
    }
    if (scales_results(params.operand_b) && !by_column) {
      tensor *= result_scale(params.operand_b, 0, tile.group);
    }
  }

  EVENKEEL_DEVICE float of_row(const HopperParams& params, const HopperTile& tile,
                               int32_t row) const {
    return by_row && row < tile.row_end ? tensor * result_scale(params.operand_a, row, tile.group)
                                        : tensor;
  }
};

EVENKEEL_DEVICE uint32_t pack_pair(OutputType type, float low, float high) {
  return type == OutputType::kBf16 ? ptx::cvt_rn_bf16x2(low, high) : ptx::cvt_rn_f16x2(low, high);
}

// Scales of columns on sixteen registers, 32 columns from `first` of the tile on.
EVENKEEL_DEVICE void scale_columns(const HopperParams& params, const HopperTile& tile,
                                   int32_t first, float (&x)[16]) {
  const int64_t row = row_of_b(params.shape, tile) + first;
#pragma unroll
  for (int j = 0; j < 16; j += 4) {
    const int32_t column = 2 * j + 2 * static_cast<int32_t>(threadIdx.x % 4);
    const int32_t left = static_cast<int32_t>(params.shape.n) - tile.column - first - column;
    const float even = left > 0 ? result_scale(params.operand_b, row + column, tile.group) : 0.0f;
    const float odd =
        left > 1 ? result_scale(params.operand_b, row + column + 1, tile.group) : 0.0f;
    x[j] *= even, x[j + 1] *= odd, x[j + 2] *= even, x[j + 3] *= odd;
  }
}

// 16 rows of a wave by the copy engine: all of them are the tile's.
template <class Config>
EVENKEEL_DEVICE void store_tiles(const HopperParams& params, const HopperTile& tile,
                                 const HopperTileScales& scales, unsigned char* staging,
                                 const float (&v)[Config::kTileN / 2], int32_t row) {
  const uint32_t lane = threadIdx.x % 32;
  const float above = scales.of_row(params, tile, row + static_cast<int32_t>(lane / 4));
  const float below = scales.of_row(params, tile, row + static_cast<int32_t>(lane / 4) + 8);
  const OutputType type = params.epilogue.out.type;
  const bool wide = type == OutputType::kF32;
  const int32_t result_row = static_cast<int32_t>(result_base(params.shape, tile)) + row;
  // Sixteen registers are 32 columns: all of a buffer in fp32, half of one in 16 bits.
  uint32_t buffer = 0;
#pragma unroll
  for (int i = 0; i < Config::kTileN / 2; i += 16) {
    const bool first_half = i % 32 == 0;
    const int32_t column = tile.column + (wide || first_half ? 2 * i : 2 * i - 32);
    if (column >= static_cast<int32_t>(params.shape.n)) continue;
    unsigned char* const half = staging + buffer * 2048;
    if (wide || first_half) {
      // The store before the last has left its buffer.
      if (lane == 0) ptx::bulk_wait_group_read<1>();
      __syncwarp();
    }
    float x[16];
#pragma unroll
    for (int j = 0; j < 16; ++j) x[j] = v[i + j] * (j / 2 % 2 == 0 ? above : below);
    if (scales.by_column) scale_columns(params, tile, 2 * i, x);
    if (params.epilogue.alpha != nullptr) {
      const float alpha = *params.epilogue.alpha;
#pragma unroll
      for (int j = 0; j < 16; ++j) x[j] *= alpha;
    }
    if (wide) {
#pragma unroll
      for (int j = 0; j < 16; j += 2) {
        const uint32_t at = (lane / 4 + j / 2 % 2 * 8) * 128 + (j / 4 * 8 + lane % 4 * 2) * 4;
        *reinterpret_cast<float2*>(half + ptx::swizzled<ptx::Swizzle::k128>(at)) =
            make_float2(x[j], x[j + 1]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 16; j += 8) {
        uint32_t words[4];
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          words[pair] = pack_pair(type, x[j + 2 * pair], x[j + 2 * pair + 1]);
        }
        // Matrices of 8 rows x 16 bytes: lanes 0-7 and 16-23 name rows 0-7, the others rows 8-15.
        const uint32_t at = (lane % 16) * 128 + ((i % 32 + j) / 4 + lane / 16) * 16;
        ptx::stmatrix(half + ptx::swizzled<ptx::Swizzle::k128>(at), words);
      }
    }
    if (wide || !first_half) {
      ptx::fence_proxy_async();
      __syncwarp();
      if (lane == 0) {
        if (params.store == HopperStore::kTilesAdded) {
          ptx::tensor_reduce_add_2d(params.out, half, column, result_row);
        } else {
          ptx::tensor_store_2d(params.out, half, column, result_row);
        }
        ptx::bulk_commit_group();
      }
      buffer ^= 1;
    }
  }
  // The next rows begin with the first buffer, and wait for all stores but the last.
  if (buffer != 0 && lane == 0) ptx::bulk_wait_group_read<0>();
}

// A float of the staged 16 rows x 64 columns: the 32-byte units of a row are exchanged, so that the
// eight rows that a warp writes at once are in different banks.
EVENKEEL_DEVICE float* staged(unsigned char* staging, uint32_t row, uint32_t column) {
  return reinterpret_cast<float*>(staging) + row * 64 + (((column / 8) ^ (row % 8)) * 8) +
         column % 8;
}

// Stages 64 columns of a wave's sums: those that registers kFirst on hold.
template <int kFirst, int kCount>
EVENKEEL_DEVICE void stage_columns(unsigned char* staging, const float (&v)[kCount]) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < 32; j += 2) {
    *reinterpret_cast<float2*>(
        staged(staging, lane / 4 + j / 2 % 2 * 8, j / 4 * 8 + lane % 4 * 2)) =
        make_float2(v[kFirst + j], v[kFirst + j + 1]);
  }
}

template <class Config, int kPiece>
EVENKEEL_DEVICE void stage_piece(unsigned char* staging, const HopperSumsOf<Config>& sums,
                                 int piece) {
  constexpr int kPieces = Config::kTileN / 64;
  if constexpr (kPiece < Config::kWaves * kPieces) {
    if (piece == kPiece) {
      stage_columns<kPiece % kPieces * 32>(staging, sums[kPiece / kPieces]);
    } else {
      stage_piece<Config, kPiece + 1>(staging, sums, piece);
    }
  }
}

// The family's epilogue on what is staged: rows from `row` of A, columns from `column` of the
// product on.
EVENKEEL_DEVICE void store_staged(const HopperParams& params, const HopperTile& tile,
                                  const HopperTileScales& scales, Epilogue& epilogue,
                                  unsigned char* staging, int32_t row, int32_t column) {
  const uint32_t lane = threadIdx.x % 32;
  const int32_t columns = static_cast<int32_t>(params.shape.n);
  column += static_cast<int32_t>(lane % 8) * 8;
  if (column >= columns) return;
#pragma unroll 1
  for (uint32_t staged_row = lane / 8; staged_row < 16; staged_row += 4) {
    const int32_t a_row = row + static_cast<int32_t>(staged_row);
    if (a_row >= tile.row_end) break;
    const float4* const eight =
        reinterpret_cast<const float4*>(staged(staging, staged_row, lane % 8 * 8));
    const float4 low = eight[0];
    const float4 high = eight[1];
    float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    const float factor = scales.of_row(params, tile, a_row);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] *= factor;
    if (scales.by_column) {
      const int64_t first = row_of_b(params.shape, tile) + column - tile.column;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (column + i < columns) x[i] *= result_scale(params.operand_b, first + i, tile.group);
      }
    }
    epilogue.store(static_cast<uint64_t>(result_base(params.shape, tile) + a_row),
                   static_cast<uint64_t>(column), x);
  }
}

// Whether the copy engine may store a warp's 16 rows: rows of the next group, or of the next
// product, are not this tile's to write.
EVENKEEL_DEVICE bool leaves_by_tiles(const HopperParams& params, const HopperTile& tile,
                                     int32_t row) {
  return params.store != HopperStore::kElements && row + 16 <= tile.row_end;
}

// All of a tile's sums that this warp has.
template <class Config>
EVENKEEL_DEVICE void store_sums(const HopperParams& params, const HopperTile& tile,
                                const HopperConsumer& self, unsigned char* staging,
                                const HopperSumsOf<Config>& sums) {
  const uint32_t lane = threadIdx.x % 32;
  const HopperTileScales scales(params, tile);
  const int32_t row = tile.row + self.first_row - static_cast<int32_t>(lane / 4);
#pragma unroll
  for (int wave = 0; wave < Config::kWaves; ++wave) {
    if (leaves_by_tiles(params, tile, row + 64 * wave)) {
      store_tiles<Config>(params, tile, scales, staging, sums[wave], row + 64 * wave);
    }
  }
  Epilogue epilogue(params.epilogue, params.shape.n,
                    params.shape.grouping == Grouping::kRows ? tile.group : 0);
  // One copy of the epilogue, whatever registers a piece of 64 columns comes from.
  constexpr int kPieces = Config::kTileN / 64;
#pragma unroll 1
  for (int piece = 0; piece < Config::kWaves * kPieces; ++piece) {
    const int32_t piece_row = row + piece / kPieces * 64;
    const int32_t column = tile.column + piece % kPieces * 64;
    if (piece_row >= tile.row_end || column >= static_cast<int32_t>(params.shape.n)) continue;
    if (leaves_by_tiles(params, tile, piece_row)) continue;
    // A store by tiles may still be reading.
    if (lane == 0) ptx::bulk_wait_group_read<0>();
    __syncwarp();
    stage_piece<Config, 0>(staging, sums, piece);
    __syncwarp();
    store_staged(params, tile, scales, epilogue, staging, piece_row, column);
  }
  epilogue.finish();
}

}  // namespace evenkeel
