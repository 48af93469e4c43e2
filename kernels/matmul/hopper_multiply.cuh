// The consumers' main loops: slices out of the ring, through the tensor cores, into sums in
// registers.
//
// Register i of thread t of a consumer warpgroup belongs to row 64 wave + 16 (t / 32) + t % 32 / 4
// + 8 (i / 2 % 2) of its 64 x kWaves rows, and column 8 (i / 4) + 2 (t % 4) + i % 2 of the tile.
#pragma once

#include "matmul/hopper_ring.cuh"
#include "ptx/barrier.cuh"
#include "ptx/wgmma.cuh"

namespace evenkeel {

// One thread's sums of a tile.
template <class Config>
using HopperSumsOf = float[Config::kWaves][Config::kTileN / 2];

// Where a consumer thread is.
struct HopperConsumer {
  int32_t warpgroup;  // 0 or 1
  int32_t first_row;  // of the tile: this thread's in wave 0, the first of its two
};

// One slice's products for 64 rows: d (+)= a b^T, asked for and not waited for. The fence orders
// what wrote d before, the scales read by then included.
template <ptx::MmaType kA, ptx::MmaType kB, class Config>
EVENKEEL_DEVICE void multiply_types(float (&d)[Config::kTileN / 2], uint64_t a, uint64_t b,
                                    bool accumulate) {
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < Config::kSteps; ++step) {
    ptx::wgmma<kA, kB, Config::kTileN>(d, ptx::wgmma_advance(a, 32 * step),
                                       ptx::wgmma_advance(b, 32 * step), accumulate || step > 0);
  }
  ptx::wgmma_commit_group();
}

// The 8-bit mixes are different instructions behind one uniform branch a slice: one copy of the
// rest of the kernel serves them all.
template <class Config>
EVENKEEL_DEVICE void multiply(const HopperParams& params, float (&d)[Config::kTileN / 2],
                              uint64_t a, uint64_t b, bool accumulate) {
  using ptx::MmaType;
  if constexpr (Config::kElements == HopperElements::kBf16) {
    multiply_types<MmaType::kBf16, MmaType::kBf16, Config>(d, a, b, accumulate);
  } else if constexpr (Config::kElements == HopperElements::kF16) {
    multiply_types<MmaType::kF16, MmaType::kF16, Config>(d, a, b, accumulate);
  } else if (params.operand_a.type == OperandType::kE5m2) {
    multiply_types<MmaType::kE5m2, MmaType::kE4m3, Config>(d, a, b, accumulate);
  } else if (params.operand_b.type == OperandType::kE5m2) {
    multiply_types<MmaType::kE4m3, MmaType::kE5m2, Config>(d, a, b, accumulate);
  } else {
    multiply_types<MmaType::kE4m3, MmaType::kE4m3, Config>(d, a, b, accumulate);
  }
}

// Zeroes what a group's last slice holds of the next group, in both operands: zero times what may
// be infinite there would be NaN. The writers' fences and the barrier of all consumers stand
// between these stores and the tensor cores.
template <class Config>
EVENKEEL_DEVICE void zero_tail(HopperShared<Config>& shared, uint32_t slot, int32_t elements) {
  const int32_t tail = elements * Config::kElementBytes;
  constexpr int32_t kPieces = (Config::kTileM + Config::kTileN) * 8;
  for (int32_t piece = static_cast<int32_t>(threadIdx.x) - Config::kProducers; piece < kPieces;
       piece += Config::kConsumers) {
    const int32_t row = piece / 8;
    const int32_t begin = piece % 8 * 16;
    if (begin + 16 <= tail) continue;
    unsigned char* const operand = row < Config::kTileM
                                       ? shared.a[slot] + row * 128
                                       : shared.b[slot] + (row - Config::kTileM) * 128;
    unsigned char* const at = operand + (begin ^ (row % 8 * 16));
    if (begin >= tail) {
      *reinterpret_cast<uint4*>(at) = make_uint4(0, 0, 0, 0);
    } else {
      for (int32_t byte = tail - begin; byte < 16; ++byte) at[byte] = 0;
    }
  }
  ptx::fence_proxy_async();
  ptx::bar_sync(1, Config::kConsumers);
}

// Waits for the next slice, and gives the descriptors of its operands' first rows.
template <class Config>
struct SliceReader {
  uint64_t a;
  uint64_t b;

  EVENKEEL_DEVICE SliceReader(HopperShared<Config>& shared, int32_t warpgroup)
      : a(ptx::wgmma_descriptor(shared.a[0] + warpgroup * Config::kWaves * 64 * 128,
                                ptx::Swizzle::k128, 0, 1024)),
        b(ptx::wgmma_descriptor(shared.b[0], ptx::Swizzle::k128, 0, 1024)) {}

  EVENKEEL_DEVICE uint64_t a_of(uint32_t slot, int wave) const {
    return ptx::wgmma_advance(a, slot * Config::kBytesA + wave * 64 * 128);
  }
  EVENKEEL_DEVICE uint64_t b_of(uint32_t slot) const {
    return ptx::wgmma_advance(b, slot * Config::kBytesB);
  }
};

// `left`: elements of K from this slice on.
template <class Config>
EVENKEEL_DEVICE void wait_slice(HopperShared<Config>& shared, const RingPlace<Config>& place,
                                int32_t left, bool ragged) {
  ptx::mbarrier_wait(&shared.full[place.slot()], place.parity());
  if (ragged && left < Config::kSlice) zero_tail(shared, place.slot(), left);
}

// Whether more follows a tile's end along K: at the tensor's own end the copy engine has written
// zeros.
EVENKEEL_DEVICE bool ends_early(const MatmulShape& shape, const HopperTile& tile) {
  return tile.k_end < static_cast<int32_t>(shape.k);
}

// Zeroes, and not a first product that does not add: the registers are the same before and after,
// and a group without any K has its sums.
template <class Config>
EVENKEEL_DEVICE void clear(HopperSumsOf<Config>& sums) {
#pragma unroll
  for (int wave = 0; wave < Config::kWaves; ++wave) {
#pragma unroll
    for (int i = 0; i < Config::kTileN / 2; ++i) sums[wave][i] = 0.0f;
    ptx::wgmma_hold(sums[wave]);
  }
}

// All of K in the tensor core's accumulators. One slice's products run while the next is waited
// for; a slot is released when the products after its own have begun.
template <class Config>
EVENKEEL_DEVICE void sum_in_tensor_core(const HopperParams& params, HopperShared<Config>& shared,
                                        const HopperConsumer& self,
                                        const SliceReader<Config>& reader, RingPlace<Config>& place,
                                        const HopperTile& tile, HopperSumsOf<Config>& sums) {
  const int32_t length = tile.k_end - tile.k_begin;
  const bool ragged = ends_early(params.shape, tile);
  uint32_t previous = Config::kStages;
  clear<Config>(sums);
  for (int32_t left = length; left > 0; left -= Config::kSlice) {
    wait_slice(shared, place, left, ragged);
#pragma unroll
    for (int wave = 0; wave < Config::kWaves; ++wave) {
      multiply<Config>(params, sums[wave], reader.a_of(place.slot(), wave),
                       reader.b_of(place.slot()), true);
    }
    if (previous != Config::kStages) {
      ptx::wgmma_wait_group<Config::kWaves>();
      release(shared, previous);
    }
    previous = place.slot();
    place.advance();
  }
  ptx::wgmma_wait_group<0>();
#pragma unroll
  for (int wave = 0; wave < Config::kWaves; ++wave) ptx::wgmma_hold(sums[wave]);
  if (length > 0) release(shared, previous);
}

// Reads the scales that a thread needs slice after slice, of its rows of A and of the tile's block
// of B, by plain loads, which need no alignment.
template <class Config>
struct ScaleReader {
  const HopperParams& params;
  const float* rows;  // of this thread's first row, of the slice that comes
  const float* b;     // of the tile's block of 128 x 128; null where scales are the epilogue's
  int32_t rows_left;  // of A, from this thread's first on

  EVENKEEL_DEVICE ScaleReader(const HopperParams& params, const HopperConsumer& self,
                              const HopperTile& tile)
      : params(params), rows(nullptr), b(nullptr), rows_left(0) {
    const MatmulOperand& of_a = params.operand_a;
    const MatmulOperand& of_b = params.operand_b;
    if (of_a.scale != OperandScale::k1x128) return;
    const int64_t block = first_block(params.shape, tile);
    const int32_t row = tile.row + self.first_row;
    rows_left = tile.row_end - row;
    rows = static_cast<const float*>(of_a.scales) + row * of_a.scale_row +
           block * of_a.scale_block + tile.group * of_a.scale_group;
    // The tile is a multiple of 128 of B's rows from the first: one block of 128 x 128. A pair's
    // second tile may lie beyond the product.
    if (Config::kSums == HopperSums::kPromoted &&
        tile.column < static_cast<int32_t>(params.shape.n)) {
      b = static_cast<const float*>(of_b.scales) +
          row_of_b(params.shape, tile) / 128 * of_b.scale_row + block * of_b.scale_block +
          tile.group * of_b.scale_group;
    }
  }

  // In 32 bits: a row's scales, one of 128 of K, are fewer than 2^24.
  EVENKEEL_DEVICE float of_row(int row) const {
    return row < rows_left ? rows[row * static_cast<int32_t>(params.operand_a.scale_row)] : 1.0f;
  }
  EVENKEEL_DEVICE float of_b() const { return b != nullptr ? *b : 1.0f; }
  EVENKEEL_DEVICE void advance() {
    if (params.operand_a.scale == OperandScale::k1x128) rows += params.operand_a.scale_block;
    if (b != nullptr) b += params.operand_b.scale_block;
  }
};

// 128 of K at a time: the tensor core's partial sums, which FP8 keeps to 13 fraction bits, leave it
// for fp32 sums. While one warpgroup adds, the other's products run. The next slice's scales are on
// their way meanwhile, and are read before the fence that starts its products.
template <class Config>
EVENKEEL_DEVICE void sum_promoted(const HopperParams& params, HopperShared<Config>& shared,
                                  const HopperConsumer& self, const SliceReader<Config>& reader,
                                  RingPlace<Config>& place, const HopperTile& tile,
                                  HopperSumsOf<Config>& sums) {
  const bool ragged = ends_early(params.shape, tile);
  float partial[Config::kTileN / 2];
  ScaleReader<Config> scales(params, self, tile);
  float rows[Config::kWaves][2] = {};
  float b = 0.0f;
  clear<Config>(sums);
  int32_t left = tile.k_end - tile.k_begin;
  if (left > 0) {
    b = scales.of_b();
#pragma unroll
    for (int wave = 0; wave < Config::kWaves; ++wave) {
      rows[wave][0] = scales.of_row(64 * wave);
      rows[wave][1] = scales.of_row(64 * wave + 8);
    }
  }
  for (; left > 0; left -= Config::kSlice) {
    const bool more = left > Config::kSlice;
    if (more) scales.advance();
    wait_slice(shared, place, left, ragged);
#pragma unroll
    for (int wave = 0; wave < Config::kWaves; ++wave) {
      const float above = rows[wave][0] * b;
      const float below = rows[wave][1] * b;
      ptx::wgmma_hold(partial);
      multiply<Config>(params, partial, reader.a_of(place.slot(), wave), reader.b_of(place.slot()),
                       false);
      // For the next slice, on their way while products run.
      if (more) {
        if (wave + 1 == Config::kWaves) b = scales.of_b();
        rows[wave][0] = scales.of_row(64 * wave);
        rows[wave][1] = scales.of_row(64 * wave + 8);
      }
      ptx::wgmma_wait_group<0>();
      ptx::wgmma_hold(partial);
      if constexpr (Config::kSums == HopperSums::kPromoted) {
        if (wave + 1 == Config::kWaves) release(shared, place.slot());
#pragma unroll
        for (int i = 0; i < Config::kTileN / 2; ++i) {
          sums[wave][i] = fmaf(i / 2 % 2 == 0 ? above : below, partial[i], sums[wave][i]);
        }
      } else {
        const float2* const columns = reinterpret_cast<const float2*>(
            shared.column_scales[place.slot()] + 2 * (threadIdx.x % 4));
#pragma unroll
        for (int i = 0; i < Config::kTileN / 2; i += 4) {
          const float2 pair = columns[i];
          sums[wave][i] = fmaf(above * pair.x, partial[i], sums[wave][i]);
          sums[wave][i + 1] = fmaf(above * pair.y, partial[i + 1], sums[wave][i + 1]);
          sums[wave][i + 2] = fmaf(below * pair.x, partial[i + 2], sums[wave][i + 2]);
          sums[wave][i + 3] = fmaf(below * pair.y, partial[i + 3], sums[wave][i + 3]);
        }
        if (wave + 1 == Config::kWaves) {
          __syncwarp();
          release(shared, place.slot());
        }
      }
    }
    place.advance();
  }
}

}  // namespace evenkeel
