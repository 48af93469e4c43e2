// Products by mma.sync, on every GPU from sm_80 on: out[M, N] = epilogue(sum_k a[m, k] b[n, k]).
//
// Never materialised: fp32 sums (but where K is split), dequantised operands, the pre-activation
// unless it is asked for.
//
// FLOPs 2 M N K. Global memory: a tile of 128 x 128 reads its 128 rows of A and of B once, M N K /
// 64 elements in all, most of them from L2, as eight row tiles follow one another for a column
// tile; C once; results are written once, in whole sectors. Shared memory: of a stage, 128 bytes of
// K, 32 KiB are written and 96 KiB read, A four times (by the warps of its rows) and B twice, free
// of bank conflicts (stage.cuh): 1024 clocks at 128 bytes a clock.
//
// Predictions; nothing of this has been measured yet. A stage is 2^20 multiplications and additions
// of 16 bits, or 2^21 of 8.
// - A100, 1024 of them a clock and multiprocessor: 1024 clocks, as many as shared memory takes: 60%
//   of 312 TFLOP/s, 190. FP8 is expanded: 338 instructions for 32 bytes of K in a warp (counted in
//   the SASS for sm_80), 676 clocks, 775 a clock: bound by issue, 60% of 236 TFLOP/s, 140.
// - L40S, 512 of them (1024 of FP8): 2048 clocks, and 1024 of shared memory beside them: 80% of 362
//   TFLOP/s, 290; FP8 with its promotion, 128 to 256 clocks of issue, 70% of 733, 510.
// - H200, to which comes what the kernels for Hopper do not take: bound by shared memory, 75% of
//   460 TFLOP/s, 340; FP8 60% of 348, 210.
//
// Mapping: 256 threads, a block a tile of 128 x 128 x 128 bytes, three stages; warp w has rows
// 64 (w / 4) and columns 32 (w mod 4) of the tile, 4 x 4 instructions of 16 x 8 for 32 bytes of K.
// One barrier a stage: it says both that the stage has come and that the one before, whose place
// the next copies take, is done with.
//
// FP8 sums leave the tensor core for fp32 registers every 128 of K, where scales of 1 x 128 and 128
// x 128 are applied, and every 32 with scales of 1 x 32.
#pragma once

#include "matmul/epilogue.cuh"
#include "matmul/stage.cuh"
#include "ptx/matrix.cuh"
#include "ptx/mma.cuh"

namespace evenkeel {

// A thread's sums, [m][t][2 h + i]: row 16 m + 8 h + lane / 4 of its warp's, and of the warp's 32
// columns 8 (lane mod 4) + 2 t + i.
struct WarpSums {
  float of[4][4][4];

  EVENKEEL_DEVICE void clear() {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) of[m][t][e] = 0.0f;
      }
    }
  }
};

// A warp's part of a stage.
struct WarpTile {
  EVENKEEL_DEVICE static uint32_t row() { return threadIdx.x / 128 * 64; }
  EVENKEEL_DEVICE static uint32_t column() { return threadIdx.x / 32 % 4 * 32; }
  // Of a thread: its first row, and the first of its eight columns.
  EVENKEEL_DEVICE static uint32_t thread_row() { return row() + threadIdx.x % 32 / 4; }
  EVENKEEL_DEVICE static uint32_t thread_column() { return column() + threadIdx.x % 4 * 8; }
};

// 32 bytes of K of a warp's operands, as mma takes them.
struct Fragments {
  uint32_t a[4][4];
  uint32_t b[4][2];

  EVENKEEL_DEVICE void load(const unsigned char* stage_a, const unsigned char* stage_b, int step) {
    const uint32_t lane = threadIdx.x % 32;
    // The eight rows of a matrix have turns 0 to 7 in both operands.
    const uint32_t turn = lane % 8;
    const uint32_t row_a = WarpTile::row() + lane % 16;
    const uint32_t piece_a = 2 * step + lane / 16;
#pragma unroll
    for (uint32_t m = 0; m < 4; ++m) {
      ptx::ldmatrix(a[m], stage_a + (row_a + 16 * m) * kStageBytes + (piece_a ^ turn) * 16);
    }
    // Lanes 0 to 7: the first 16 bytes of tile 2 h, 8 to 15 the second, 16 to 31 of tile 2 h + 1.
    const uint32_t row_b = WarpTile::column() + lane % 8 / 2 * 8 + lane % 2 + lane / 16 * 2;
    const uint32_t piece_b = 2 * step + lane / 8 % 2;
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      uint32_t four[4];
      ptx::ldmatrix(four, stage_b + (row_b + 4 * h) * kStageBytes + (piece_b ^ turn) * 16);
      b[2 * h][0] = four[0];
      b[2 * h][1] = four[1];
      b[2 * h + 1][0] = four[2];
      b[2 * h + 1][1] = four[3];
    }
  }
};

// Elements as the tensor core takes them.
template <ptx::MmaType kA, ptx::MmaType kB>
struct DirectProduct {
  static constexpr int kElementBytes = ptx::kMmaElementBytes<kA>;
  // 16-bit products are summed in the tensor core's fp32 to the end.
  static constexpr bool kPromotes = kElementBytes == 1;
  static constexpr bool kOf32 = false;

  EVENKEEL_DEVICE explicit DirectProduct(const PortableParams&) {}
  EVENKEEL_DEVICE float factor() const { return 1.0f; }

  EVENKEEL_DEVICE void multiply(const Fragments& of, WarpSums& sums) const {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int t = 0; t < 4; ++t) ptx::mma_m16n8<kA, kB>(sums.of[m][t], of.a[m], of.b[t]);
    }
  }
};

// FP8 as f16, exactly, in registers: for GPUs without FP8 tensor cores, and for sums of 24 bits on
// all. E5M2 is the upper half of an f16. E4M3's magnitude, shifted to f16's place, reads as 2^-8
// times the number, subnormal or not; what is lacking multiplies the sums. Its NaN, all ones below
// the sign, gets f16's largest exponent by an addition that carries from it alone.
struct ExpandedProduct {
  static constexpr int kElementBytes = 1;
  static constexpr bool kPromotes = true;
  static constexpr bool kOf32 = true;

  struct Expansion {
    uint32_t shift;
    uint32_t nan_bit;

    EVENKEEL_DEVICE explicit Expansion(OperandType type)
        : shift(type == OperandType::kE4m3 ? 1 : 0),
          nan_bit(type == OperandType::kE4m3 ? 0x40004000u : 0) {}

    // Elements in the upper bytes of both halves.
    EVENKEEL_DEVICE uint32_t halves(uint32_t elements) const {
      const uint32_t magnitude = (elements & 0x7f007f00u) >> shift;
      return (elements & 0x80008000u) | magnitude | ((magnitude + 0x00800080u) & nan_bit);
    }
    EVENKEEL_DEVICE void expand(uint32_t four, uint32_t& low, uint32_t& high) const {
      low = halves(__byte_perm(four, 0, 0x1404));
      high = halves(__byte_perm(four, 0, 0x3424));
    }
  };

  Expansion a;
  Expansion b;

  EVENKEEL_DEVICE explicit ExpandedProduct(const PortableParams& params)
      : a(params.a.type), b(params.b.type) {}
  EVENKEEL_DEVICE float factor() const {
    return (a.shift != 0 ? 256.0f : 1.0f) * (b.shift != 0 ? 256.0f : 1.0f);
  }

  // Which 16 of K an instruction takes, and in which order, is free, as long as both operands
  // agree: a lane's four neighbours in a piece of 16 bytes serve as its four elements.
  EVENKEEL_DEVICE void multiply(const Fragments& of, WarpSums& sums) const {
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
      uint32_t right[4][2];
#pragma unroll
      for (int t = 0; t < 4; ++t) b.expand(of.b[t][piece], right[t][0], right[t][1]);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        uint32_t left[4];
        a.expand(of.a[m][2 * piece], left[0], left[2]);
        a.expand(of.a[m][2 * piece + 1], left[1], left[3]);
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          ptx::mma_m16n8<ptx::MmaType::kF16>(sums.of[m][t], left, right[t]);
        }
      }
    }
  }
};

// The scales of a stage's blocks.
struct BlockScales {
  const uint32_t* words;
  bool blocks;  // there are any
  bool of_32;

  EVENKEEL_DEVICE float value(uint32_t index, int step) const {
    const uint32_t word = words[index];
    if (!of_32) return __uint_as_float(word);
    const uint32_t byte = (word >> (8 * step)) & 0xffu;
    return byte == 0xffu ? quiet_nan() : e8m0_value(byte);
  }
};

// sums += part x scales, part = 0. The smaller of the two scales multiplies first: what it makes
// neither overflows where the product does not, nor are bits lost below the subnormal numbers but
// with scales of 2^-115 and less.
EVENKEEL_DEVICE void promote(const BlockScales& scales, int step, float factor, WarpSums& part,
                             WarpSums& sums) {
  float of_columns[8];
  if (scales.blocks) {
#pragma unroll
    for (uint32_t j = 0; j < 8; ++j) {
      of_columns[j] = scales.value(kProductTile + WarpTile::thread_column() + j, step);
    }
  }
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float of_row = 1.0f;
      if (scales.blocks) {
        of_row =
            scales.value(WarpTile::thread_row() + static_cast<uint32_t>(16 * m + 8 * half), step);
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        float& from = part.of[m][j / 2][2 * half + j % 2];
        float& to = sums.of[m][j / 2][2 * half + j % 2];
        const float term = from * factor;
        if (scales.blocks) {
          const bool row_first = of_row < of_columns[j];
          const float first = row_first ? of_row : of_columns[j];
          const float second = row_first ? of_columns[j] : of_row;
          to = __fmaf_rn(term * first, second, to);
        } else {
          to += term;
        }
        from = 0.0f;
      }
    }
  }
}

// Sums in a thread's own slots of shared memory, which neighbouring threads' lie beside: the
// epilogue, which is long, goes through them in a loop that is not unrolled.
struct SumSlots {
  float4 of[16][kProductThreads];

  EVENKEEL_DEVICE void put(const WarpSums& sums) {
#pragma unroll
    for (int row = 0; row < 8; ++row) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float(&low)[4] = sums.of[row / 2][2 * h];
        const float(&high)[4] = sums.of[row / 2][2 * h + 1];
        const int e = 2 * (row % 2);
        of[2 * row + h][threadIdx.x] = make_float4(low[e], low[e + 1], high[e], high[e + 1]);
      }
    }
  }
  EVENKEEL_DEVICE void take(int row, float (&v)[8]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float4 four = of[2 * row + h][threadIdx.x];
      v[4 * h] = four.x;
      v[4 * h + 1] = four.y;
      v[4 * h + 2] = four.z;
      v[4 * h + 3] = four.w;
    }
  }
};
static_assert(sizeof(SumSlots) <= 2 * kStages * kOperandStage);

// The scale of a tensor or of a row: 1 of blocks, which are in the sums already, and of an empty
// contraction, whose sums are 0 whatever its scales.
EVENKEEL_DEVICE float row_scale(const MatmulOperand& operand, uint64_t row,
                                const ProductTile& tile) {
  const float* const scales = static_cast<const float*>(operand.scales);
  const int64_t of_group = static_cast<int64_t>(tile.group) * operand.scale_group;
  if (tile.k_size == 0) return 1.0f;
  switch (operand.scale) {
    case OperandScale::kTensor:
      return scales[of_group];
    case OperandScale::kRow:
      return scales[static_cast<int64_t>(row) * operand.scale_row + of_group];
    default:
      return 1.0f;
  }
}

// Sums become results, or the partial sums of a split.
EVENKEEL_DEVICE void store_tile(const PortableParams& params, const ProductTile& tile,
                                const SumSlots& slots) {
  const uint32_t column = WarpTile::thread_column();
  const bool split = params.grid.splits > 1;
  Epilogue epilogue(params.epilogue, params.shape.n,
                    params.shape.grouping == Grouping::kRows ? tile.group : 0);
  const uint64_t padded = (params.shape.n + 7) / 8 * 8;
  const MatmulMatrix partials = {params.partials + tile.split * params.shape.m * padded,
                                 static_cast<int64_t>(padded), OutputType::kF32, 1};
  if (column < tile.columns) {
    float of_columns[8];
#pragma unroll
    for (uint32_t j = 0; j < 8; ++j) {
      of_columns[j] =
          column + j < tile.columns ? row_scale(params.b, tile.b_row + column + j, tile) : 1.0f;
    }
#pragma unroll 1
    for (int slot = 0; slot < 8; ++slot) {
      const uint32_t row = WarpTile::thread_row() + static_cast<uint32_t>(8 * slot);
      if (row >= tile.rows) break;
      float v[8];
      slots.take(slot, v);
      const float of_row = row_scale(params.a, tile.a_row + row, tile);
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] = v[j] * of_row * of_columns[j];
      if (split) {
        store_columns(partials, tile.out_row + row, tile.column + column, padded, v);
      } else {
        epilogue.store(tile.out_row + row, tile.column + column, v);
      }
    }
  }
  if (!split) epilogue.finish();
}

template <typename Product>
EVENKEEL_DEVICE void product_tile(const PortableParams& params) {
  PortableShared& shared = PortableShared::get();
  ProductTile tile;
  if (!find_product_tile(params, tile)) return;
  const uint64_t stages = (tile.k_size * Product::kElementBytes + kStageBytes - 1) / kStageBytes;
  const uint64_t first = static_cast<uint64_t>(tile.split) * params.grid.split_stages;
  const uint64_t last =
      params.grid.splits > 1 ? min(stages, first + params.grid.split_stages) : stages;
  const auto of_a = OperandCopy<Product::kElementBytes>::of(params.a, tile.a_row, tile.rows, tile.k,
                                                            tile.k_size, false);
  const auto of_b = OperandCopy<Product::kElementBytes>::of(params.b, tile.b_row, tile.columns,
                                                            tile.k, tile.k_size, true);
  const bool blocks = Product::kPromotes && ScaleCopy::is_of_blocks(params.a.scale);
  const bool of_32 = Product::kOf32 && params.a.scale == OperandScale::k1x32;
  const bool promotes = Product::kPromotes && (params.promotion != 0 || blocks);
  ScaleCopy of_scales = {};
  if (blocks) of_scales = ScaleCopy::of(params, tile);
  const Product product(params);
  WarpSums sums;
  WarpSums part;
  sums.clear();
  part.clear();
  // Warps of rows or columns that are not there only copy.
  const bool active = WarpTile::row() < tile.rows && WarpTile::column() < tile.columns;

#pragma unroll 1
  for (uint32_t s = 0; s < kStages - 1; ++s) {
    if (first + s < last) {
      of_a.fetch(first + s, shared.a[s]);
      of_b.fetch(first + s, shared.b[s]);
      if (blocks) shared.scales[s][threadIdx.x] = of_scales.fetch(first + s);
    }
    ptx::cp_async_commit_group();
  }
  uint32_t at = 0;
#pragma unroll 1
  for (uint64_t stage = first; stage < last; ++stage) {
    ptx::cp_async_wait_group<kStages - 2>();
    __syncthreads();
    const uint32_t next = at == 0 ? kStages - 1 : at - 1;
    const uint64_t ahead = stage + kStages - 1;
    uint32_t scale = 0;
    if (ahead < last) {
      of_a.fetch(ahead, shared.a[next]);
      of_b.fetch(ahead, shared.b[next]);
      if (blocks) scale = of_scales.fetch(ahead);
    }
    ptx::cp_async_commit_group();
    if (active) {
      const BlockScales scales = {shared.scales[at], blocks, of_32};
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        Fragments fragments;
        fragments.load(shared.a[at], shared.b[at], step);
        if constexpr (Product::kPromotes) {
          product.multiply(fragments, part);
          if (of_32) promote(scales, step, product.factor(), part, sums);
        } else {
          product.multiply(fragments, sums);
        }
      }
      if constexpr (Product::kPromotes) {
        if (promotes && !of_32) promote(scales, 0, product.factor(), part, sums);
      }
    }
    // After the multiplication, that its load has arrived meanwhile.
    if (blocks && ahead < last) shared.scales[next][threadIdx.x] = scale;
    at = at == kStages - 1 ? 0 : at + 1;
  }
  if constexpr (Product::kPromotes) {
    if (!promotes) promote({nullptr, false, false}, 0, product.factor(), part, sums);
  }
  // Other warps may still read stages.
  __syncthreads();
  SumSlots& slots = *reinterpret_cast<SumSlots*>(platform::dynamic_shared());
  slots.put(sums);
  store_tile(params, tile, slots);
}

}  // namespace evenkeel
