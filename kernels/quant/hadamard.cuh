// Random Hadamard rotations of a tile, along its rows or its columns, in place:
// v becomes H (sigma v) / sqrt(n) for each block of n = 16, 32 or 128. Stages of distance 1, 2, ..,
// n / 2 in this order, each (a, b) -> (a + b, a - b) in fp32, as src/reference/quant/hadamard.rs
// has them.
//
// Distances 1, 2 and 4 are within a thread. Along rows, the others are shuffles among 16 lanes.
// Along columns, distance 8 is a shuffle between the halves of a warp, and 16, 32 and 64 are
// between warps: they go through shared memory, two rows a thread at a time, transposed so that a
// thread has the same element of all eight warps.
#pragma once

#include "quant/tile.cuh"

namespace evenkeel {

struct Rotation {
  uint32_t size;          // 0 for none
  float factor;           // 1 / sqrt(size)
  const uint32_t* signs;  // [4]: bit i for element i, set for minus

  // The signs of eight elements from one whose place in its block is `at`, a multiple of eight.
  EVENKEEL_DEVICE uint32_t signs_of(uint32_t at) const { return signs[at / 32] >> (at % 32); }
};

EVENKEEL_DEVICE float flip(float x, uint32_t signs, int bit) {
  return __uint_as_float(__float_as_uint(x) ^ ((signs >> bit) << 31));
}

// Distances 1, 2, 4 of eight values.
EVENKEEL_DEVICE void butterflies(float (&v)[8]) {
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if ((i & distance) != 0) continue;
      const float a = v[i];
      const float b = v[i + distance];
      v[i] = a + b;
      v[i + distance] = a - b;
    }
  }
}

// One distance between lanes, of which `high` has b.
EVENKEEL_DEVICE float lane_butterfly(float own, int lanes, bool high) {
  const float other = __shfl_xor_sync(0xffffffffu, own, lanes);
  return high ? other - own : own + other;
}

EVENKEEL_DEVICE void rotate_rows(const Rotation& rotation, MicroTile<true>& tile) {
  const uint32_t group = MicroPlace::column_group();
  const uint32_t signs = rotation.signs_of(8 * group % rotation.size);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) tile.x[i][j] = flip(tile.x[i][j], signs, j);
    butterflies(tile.x[i]);
  }
#pragma unroll 1
  for (uint32_t lanes = 1; 8 * lanes < rotation.size; lanes *= 2) {
    const bool high = (group & lanes) != 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        tile.x[i][j] = lane_butterfly(tile.x[i][j], static_cast<int>(lanes), high);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) tile.x[i][j] *= rotation.factor;
  }
}

// A block that has rows from `rows` on is cut off and becomes 0. `exchange` is kRotationFloats. All
// threads of the block call it; the exchange is free before and after.
EVENKEEL_DEVICE void rotate_columns(const Rotation& rotation, uint32_t rows, float* exchange,
                                    MicroTile<true>& tile) {
  const uint32_t group = MicroPlace::row_group();
  const uint32_t signs = rotation.signs_of(8 * group % rotation.size);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = flip(tile.x[i][j], signs, i);
    butterflies(v);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      tile.x[i][j] = lane_butterfly(v[i], 16, group % 2 != 0);
    }
  }
  if (rotation.size > 16) {
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t lane = threadIdx.x % 32;
    float* const own = exchange + warp * 512 + lane;    // 16 elements, 32 apart
    float* const across = exchange + warp * 32 + lane;  // elements of this number of all warps
#pragma unroll
    for (int piece = 0; piece < 4; ++piece) {
#pragma unroll
      for (int e = 0; e < 16; ++e) own[e * 32] = tile.x[2 * piece + e / 8][e % 8];
      __syncthreads();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float v[8];
#pragma unroll
        for (int w = 0; w < 8; ++w) v[w] = across[w * 512 + half * 256];
        if (rotation.size == 128) {
          butterflies(v);
        } else {
#pragma unroll
          for (int w = 0; w < 8; w += 2) {
            const float a = v[w];
            const float b = v[w + 1];
            v[w] = a + b;
            v[w + 1] = a - b;
          }
        }
#pragma unroll
        for (int w = 0; w < 8; ++w) across[w * 512 + half * 256] = v[w];
      }
      __syncthreads();
#pragma unroll
      for (int e = 0; e < 16; ++e) tile.x[2 * piece + e / 8][e % 8] = own[e * 32];
    }
    // Elements a thread has read are written by itself alone in the next piece; what comes after
    // writes others.
    __syncthreads();
  }
  const uint32_t whole = rows - rows % rotation.size;
  const uint32_t first = MicroPlace::row();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const bool inside = first + static_cast<uint32_t>(i) < whole;
#pragma unroll
    for (int j = 0; j < 8; ++j) tile.x[i][j] = inside ? tile.x[i][j] * rotation.factor : 0.0f;
  }
}

}  // namespace evenkeel
