// GaussWS: weights with the noise of a quantisation that is yet to come, and the gradient of the
// number of bits that the noise stands for.
//
//   w^ = w + R amax 2^(1-b)              R = round(N(0, 1) / 2), drawn anew for every element
//   db = -ln(2) amax 2^(1-b) sum R dw^   amax, b and db one number for each block of 32 x 32
//   dw = dw^
//
// Never materialised: R. Both passes draw it from the counter of the element: |R| is the number of
// thresholds that 31 bits of a Philox word reach, the other bit is its sign. The mathematics is
// src/reference/quant/gauss.rs; every operation is exact or rounded once and sums have one order,
// so that all devices have the same bits.
//
// Traffic: forward one read of w and one write of w^, backward one read of dw^ (and one write of
// dw, where another type is asked for); 12 bytes a block beside. At 4.3 TB/s, as norm/forward.cuh
// has it, 16384 x 4096 in bf16 are 268 MB and 62 us forward, 31 us backward. A Philox call for four
// elements is 40 multiplications and exclusive ors beside its keys, and a draw seven instructions:
// about 20 an element, of which a multiprocessor issues 128 a clock: 45 us forward and backward
// at 1.75 GHz, if nothing stalls. So the backward is expected to be bound by these, at about 50 us.
// Predictions, nothing of this has been measured yet.
//
// Mapping: a warp a block of weights, its 1024 elements in registers between amax and noise, so
// that no barrier is needed; eight neighbouring blocks of a row of blocks share a block of threads,
// and with it their lines. Lanes have chunks of 8 or 4 columns (quant/chunk.cuh), every 8th or
// 4th row.

#include "common/block_reduce.cuh"
#include "common/philox.cuh"
#include "quant/chunk.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/gauss.rs.
struct GaussParams {
  RowTensor from;         // w; backward: dw^
  RowTensor to;           // w^; backward: dw, or null
  const float* bits;      // b, [block rows, block columns]
  float* amax;            // of the same shape; read in the backward
  float* dbits;           // db, of the same shape
  const int64_t* replay;  // added to offset, or null
  uint64_t offset;
  uint64_t seed;
  uint32_t rows;
  uint32_t columns;
  uint32_t tiles;  // of 8 blocks, in a row of blocks
  uint32_t accumulate;
};
static_assert(sizeof(GaussParams) == 128, "src/quant/kernels/gauss.rs mirrors it");

namespace {

inline constexpr uint32_t kBlock = 32;
// Blocks of weights that a block of threads has, one a warp.
inline constexpr uint32_t kWarps = 8;

// 2^31 times the probabilities that |N(0, 1)| is below 1, 3 and 5; below 7 is 1 in these digits.
inline constexpr uint32_t kBelow1 = 1466064521;
inline constexpr uint32_t kBelow3 = 2141685880;
inline constexpr uint32_t kBelow5 = 2147482417;

// R; a 0 has a sign too, which w + R step does not show.
EVENKEEL_DEVICE float rounded_normal(uint32_t word) {
  const uint32_t size = word & 0x7fffffffu;
  float r = size < kBelow1 ? 0.0f : 1.0f;
  r = size < kBelow3 ? r : 2.0f;
  r = size < kBelow5 ? r : 3.0f;
  return __uint_as_float(__float_as_uint(r) | (word & 0x80000000u));
}

// 2^x for x from -126 to 127: exact for integers, within one unit of the last place elsewhere, and
// the same bits everywhere, which ex2 would not have.
EVENKEEL_DEVICE float exp2_exactly_alike(float x) {
  const float whole = rintf(x);
  const float f = x - whole;
  float p = 0x1.444004p-13f;
  p = fmaf(p, f, 0x1.5f0896p-10f);
  p = fmaf(p, f, 0x1.3b2a1cp-7f);
  p = fmaf(p, f, 0x1.c6af6cp-5f);
  p = fmaf(p, f, 0x1.ebfbep-3f);
  p = fmaf(p, f, 0x1.62e43p-1f);
  p = fmaf(p, f, 1.0f);
  const int n = static_cast<int>(whole);
  return p * __uint_as_float(static_cast<uint32_t>(n + 127) << 23);
}

// amax 2^(1-b), which is finite where b is no NaN.
EVENKEEL_DEVICE float noise_step(float amax, float bits) {
  float exponent = 1.0f - bits;
  if (exponent != exponent) return quiet_nan();
  exponent = exponent < -126.0f ? -126.0f : exponent > 127.0f ? 127.0f : exponent;
  const float step = amax * exp2_exactly_alike(exponent);
  return step > kFloatMax ? kFloatMax : step;
}

// A warp's block of weights, and its lane's part of it.
template <typename Chunk>
struct Part {
  // Lanes beside each other in a row, and rows that all lanes have at once.
  static constexpr uint32_t kAcross = kBlock / Chunk::kCount;
  static constexpr uint32_t kDown = 32 / kAcross;
  static constexpr uint32_t kUnits = kBlock / kDown;

  uint32_t row;      // of the first unit
  uint32_t column;   // of all units
  uint32_t present;  // elements of a chunk that are there
  uint64_t block;    // of [block rows, block columns]

  EVENKEEL_DEVICE static bool of(const GaussParams& params, Part& part) {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t block_row = blockIdx.x / params.tiles;
    const uint32_t block_column =
        (blockIdx.x - block_row * params.tiles) * kWarps + threadIdx.x / 32;
    const uint32_t block_columns = (params.columns + kBlock - 1) / kBlock;
    part.row = block_row * kBlock + lane / kAcross;
    part.column = block_column * kBlock + lane % kAcross * Chunk::kCount;
    const uint32_t left = part.column < params.columns ? params.columns - part.column : 0;
    part.present = min(left, static_cast<uint32_t>(Chunk::kCount));
    part.block = static_cast<uint64_t>(block_row) * block_columns + block_column;
    return block_column < block_columns;
  }

  EVENKEEL_DEVICE uint32_t row_of(uint32_t unit) const { return row + unit * kDown; }
  EVENKEEL_DEVICE uint32_t present_in(const GaussParams& params, uint32_t unit) const {
    return row_of(unit) < params.rows ? present : 0;
  }
  EVENKEEL_DEVICE uint64_t element(const RowTensor& matrix, uint32_t unit) const {
    return row_of(unit) * static_cast<uint64_t>(matrix.token_stride) + column;
  }

  EVENKEEL_DEVICE void fetch(const GaussParams& params, uint4 (&units)[kUnits]) const {
#pragma unroll
    for (uint32_t u = 0; u < kUnits; ++u) {
      units[u] = Chunk::fetch(params.from, element(params.from, u), present_in(params, u));
    }
  }

  // R of a unit's elements: word e % 4 of the counter e / 4, where e counts the matrix's elements.
  EVENKEEL_DEVICE void noise(const GaussParams& params, const RandomKey& key, uint32_t unit,
                             float (&r)[Chunk::kCount]) const {
    const uint64_t first = static_cast<uint64_t>(row_of(unit)) * params.columns + column;
#pragma unroll
    for (int quad = 0; quad < Chunk::kCount / 4; ++quad) {
      const uint64_t counter = first / 4 + quad;
      uint32_t words[4];
      philox4x32_10(counter, key, words);
      if constexpr (Chunk::kSpread) {
        // Rows of any length: a chunk may begin within one call's words and end within the next's.
        const uint32_t skipped = static_cast<uint32_t>(first % 4);
        if (skipped != 0) {
          uint32_t next[4];
          philox4x32_10(counter + 1, key, next);
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const uint32_t one = e < 3 ? words[(e + 1) % 4] : next[0];
            const uint32_t two = e < 2 ? words[(e + 2) % 4] : next[(e + 2) % 4];
            const uint32_t three = e < 1 ? words[3] : next[(e + 3) % 4];
            words[e] = skipped == 1 ? one : skipped == 2 ? two : three;
          }
        }
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) r[4 * quad + e] = rounded_normal(words[e]);
    }
  }
};

EVENKEEL_DEVICE float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

EVENKEEL_DEVICE RandomKey random_key(const GaussParams& params) {
  const int64_t replay = params.replay != nullptr ? warp_load(params.replay) : 0;
  return {params.seed, params.offset + static_cast<uint64_t>(replay)};
}

// The largest finite element, in every lane.
template <typename Chunk>
EVENKEEL_DEVICE float block_amax(const GaussParams& params,
                                 const uint4 (&units)[Part<Chunk>::kUnits]) {
  float amax = 0.0f;
  float x[Chunk::kCount];
#pragma unroll
  for (uint32_t u = 0; u < Part<Chunk>::kUnits; ++u) {
    Chunk::unpack(units[u], params.from.type, x);
#pragma unroll
    for (int e = 0; e < Chunk::kCount; ++e) amax = fmaxf(amax, fabsf(x[e]));
  }
  amax = warp_max(amax);
  if (amax <= kFloatMax) return amax;
  // Rare: fmaxf passes over NaN, but not over infinities.
  amax = 0.0f;
#pragma unroll
  for (uint32_t u = 0; u < Part<Chunk>::kUnits; ++u) {
    Chunk::unpack(units[u], params.from.type, x);
#pragma unroll
    for (int e = 0; e < Chunk::kCount; ++e) {
      const float size = fabsf(x[e]);
      amax = fmaxf(amax, size <= kFloatMax ? size : 0.0f);
    }
  }
  return warp_max(amax);
}

template <typename Chunk>
EVENKEEL_DEVICE void forward(const GaussParams& params) {
  Part<Chunk> part;
  if (!Part<Chunk>::of(params, part)) return;
  uint4 units[Part<Chunk>::kUnits];
  part.fetch(params, units);
  const float bits = warp_load(params.bits + part.block);
  const RandomKey key = random_key(params);
  const float amax = block_amax<Chunk>(params, units);
  if (threadIdx.x % 32 == 0) params.amax[part.block] = amax;
  const float step = noise_step(amax, bits);
#pragma unroll
  for (uint32_t u = 0; u < Part<Chunk>::kUnits; ++u) {
    float x[Chunk::kCount];
    float r[Chunk::kCount];
    Chunk::unpack(units[u], params.from.type, x);
    part.noise(params, key, u, r);
#pragma unroll
    for (int e = 0; e < Chunk::kCount; ++e) x[e] = fmaf(r[e], step, x[e]);
    Chunk::store(params.to, part.element(params.to, u), part.present_in(params, u), x);
  }
}

EVENKEEL_DEVICE float add_across(float value, int lanes) {
  return value + __shfl_xor_sync(0xffffffffu, value, lanes);
}

// The sum over a block of what each lane has for its quads of four columns, in an order that is the
// same for every kind of chunk: rows 8 apart, rows 16 apart, quads beside each other, rows 4 apart,
// quads 2 and 4 apart, rows 1 and 2 apart.
template <typename Chunk>
EVENKEEL_DEVICE float block_sum_of(const float (&quads)[Part<Chunk>::kUnits][Chunk::kCount / 4]) {
  if constexpr (Chunk::kCount == 8) {
    float half[2];
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      half[q] = (quads[0][q] + quads[1][q]) + (quads[2][q] + quads[3][q]);
    }
    float sum = half[0] + half[1];
    sum = add_across(sum, 16);
    sum = add_across(sum, 1);
    sum = add_across(sum, 2);
    sum = add_across(sum, 4);
    return add_across(sum, 8);
  } else {
    float rows[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      rows[i] = (quads[i][0] + quads[i + 2][0]) + (quads[i + 4][0] + quads[i + 6][0]);
      rows[i] = add_across(rows[i], 1);
    }
    float sum = rows[0] + rows[1];
    sum = add_across(sum, 2);
    sum = add_across(sum, 4);
    sum = add_across(sum, 8);
    return add_across(sum, 16);
  }
}

template <typename Chunk>
EVENKEEL_DEVICE void backward(const GaussParams& params) {
  Part<Chunk> part;
  if (!Part<Chunk>::of(params, part)) return;
  uint4 units[Part<Chunk>::kUnits];
  part.fetch(params, units);
  const float bits = warp_load(params.bits + part.block);
  const float amax = warp_load(params.amax + part.block);
  const RandomKey key = random_key(params);
  float quads[Part<Chunk>::kUnits][Chunk::kCount / 4];
#pragma unroll
  for (uint32_t u = 0; u < Part<Chunk>::kUnits; ++u) {
    float g[Chunk::kCount];
    float r[Chunk::kCount];
    Chunk::unpack(units[u], params.from.type, g);
    if (params.to.data != nullptr) {
      Chunk::store(params.to, part.element(params.to, u), part.present_in(params, u), g);
    }
    part.noise(params, key, u, r);
    // What is not there is 0 x 0, so that zeros have one sign.
    const uint32_t present = part.present_in(params, u);
    if constexpr (Chunk::kSpread) {
#pragma unroll
      for (uint32_t e = 0; e < Chunk::kCount; ++e) r[e] = e < present ? r[e] : 0.0f;
    }
#pragma unroll
    for (int q = 0; q < Chunk::kCount / 4; ++q) {
      float sum = r[4 * q] * g[4 * q];
#pragma unroll
      for (int e = 1; e < 4; ++e) sum = fmaf(r[4 * q + e], g[4 * q + e], sum);
      quads[u][q] = Chunk::kSpread || present != 0 ? sum : 0.0f;
    }
  }
  const float sum = block_sum_of<Chunk>(quads);
  if (threadIdx.x % 32 != 0) return;
  const float gradient = sum * noise_step(amax, bits) * -0x1.62e43p-1f;
  float& db = params.dbits[part.block];
  db = params.accumulate != 0 ? db + gradient : gradient;
}

}  // namespace
}  // namespace evenkeel

#define GAUSS(K, name, chunk, spread, blocks)                        \
  K(quant_gauss_forward_##name, evenkeel::GaussParams, 256, blocks,  \
    (evenkeel::forward<evenkeel::Chunk<chunk, spread>>))             \
  K(quant_gauss_backward_##name, evenkeel::GaussParams, 256, blocks, \
    (evenkeel::backward<evenkeel::Chunk<chunk, spread>>))
#define GAUSS_KERNELS(K)    \
  GAUSS(K, c8, 8, false, 4) \
  GAUSS(K, c4, 4, false, 4) \
  GAUSS(K, s4, 4, true, 2)

EVENKEEL_EXPORT(quant_gauss, GAUSS_KERNELS)
