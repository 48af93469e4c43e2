// From the values of a tile to the scales of its blocks.
//
// Each thread writes the amax of its part of every row and column to shared memory; then one thread
// for four scales of a row or column takes them from there, makes the scales and their reciprocals,
// stores the scales, four bytes at a time, and leaves both for the threads that divide. Of a row, a
// tile has eight bytes of scales (NvFp4) or four (MX): whole sectors of 32 bytes would take four or
// eight tiles a block. The tiles beside it run at the same time, and L2 gathers their bytes.
#pragma once

#include "common/low_bit.cuh"
#include "quant/tile.cuh"

namespace evenkeel {

// The amax of a block of E2M1 that is not finite.
inline constexpr uint32_t kNotFinite = 0x7fffffffu;

// Floats that rotations along columns exchange (quant/hadamard.cuh).
inline constexpr uint32_t kRotationFloats = 16 * kTileThreads;

struct QuantizeShared {
  union {
    struct {
      uint32_t rows[kTile * 16];             // of eight columns each
      uint32_t columns[kTileWarps * kTile];  // of a warp's 16 rows each
    } amax;                                  // bits of fp32
    unsigned char bytes[kTile * kTile];      // of the transposed tile
    float exchange[kRotationFloats];
  };
  struct Divisors {
    float scale[8 * kTile];
    float reciprocal[8 * kTile];
  } rows, columns;
  uint32_t warp_amax[kTileWarps];
  uint32_t warp_block[kTileWarps];
  RandomKey key;
  TilePlace place;
};

static_assert(sizeof(QuantizeShared) == 16384 + 2 * 8192 + 136, "src/quant/launch.rs has it");

// Elements of a block along the inner dimension, in tiles; a whole tile where it has one scale.
EVENKEEL_DEVICE uint32_t block_size(ScaleOf of) {
  return of == ScaleOf::k16 ? 16 : of == ScaleOf::k32 ? 32 : kTile;
}
EVENKEEL_DEVICE bool has_blocks(ScaleOf of) {
  return of == ScaleOf::k16 || of == ScaleOf::k32 || of == ScaleOf::k128;
}

// Where things lie, so that no two lanes of an access meet in a bank.
//
// The amax of row r and eighth column group c: lines of 128 bytes have rows r and r + 8, the two of
// a warp's store; chunks of 16 bytes are permuted so that eight rows' equal chunks are in different
// banks.
EVENKEEL_DEVICE uint32_t row_chunk(uint32_t row, uint32_t chunk) {
  const uint32_t line = (row / 16) * 8 + row % 8;
  return line * 32 + ((((row / 8) % 2) * 4 + chunk) ^ (row % 8)) * 4;
}
// The divisor of row r and block b of `blocks` in a row.
EVENKEEL_DEVICE uint32_t row_entry(uint32_t row, uint32_t block, uint32_t blocks) {
  if (blocks == 1) return row;
  const uint32_t quad = block / 4;
  return quad * 512 + ((row * 4 + block % 4) ^ (quad * 4) ^ (((row / 8) % 2) * 8));
}
// Column c of 128: chunks of four columns, permuted so that eight lanes that read every other chunk
// are in different banks.
EVENKEEL_DEVICE uint32_t column_entry(uint32_t column) {
  const uint32_t chunk = column / 4;
  return (chunk ^ ((chunk / 8) % 2)) * 4 + column % 4;
}

// ---- Each thread's part.

// The amax of eight values, 0 for none; kNotFinite where FP4 has one that is not finite. `amax` is
// raised to the finite one.
template <int kBits>
EVENKEEL_DEVICE uint32_t amax_of(const float (&v)[8], float& amax) {
  float most = pairwise(v, larger);
  if (is_finite(most)) {
    amax = fmaxf(amax, fabsf(most));
    return __float_as_uint(most) & 0x7fffffffu;
  }
  most = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) most = larger_finite(most, v[i]);
  amax = fmaxf(amax, most);
  return kBits == 4 ? kNotFinite : __float_as_uint(most);
}

EVENKEEL_DEVICE uint32_t lane_max(uint32_t own, int lanes) {
  return max(own, __shfl_xor_sync(0xffffffffu, own, lanes));
}

// One amax for all the thread's values and those of the lanes it shares a block with: 16 x 16, or
// the warp's part of a tile.
EVENKEEL_DEVICE uint32_t square_max(const uint32_t (&words)[8], bool tile) {
  uint32_t most = words[0];
#pragma unroll
  for (int i = 1; i < 8; ++i) most = max(most, words[i]);
  most = lane_max(most, 16);
  most = lane_max(most, 1);
  if (tile) {
    most = lane_max(most, 2);
    most = lane_max(most, 4);
    most = lane_max(most, 8);
  }
  return most;
}

// Notes the amax of the thread's rows, and with `square` those of the square they are in.
template <int kBits, bool kWide>
EVENKEEL_DEVICE void note_rows(ScaleOf of, bool square, const MicroTile<kWide>& tile,
                               QuantizeShared& shared, float& amax) {
  uint32_t words[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float v[8];
    tile.row(i, v);
    words[i] = amax_of<kBits>(v, amax);
  }
  if (of == ScaleOf::kTile) {
    const uint32_t most = square_max(words, true);
    if (threadIdx.x % 32 == 0) shared.warp_block[MicroPlace::warp()] = most;
    return;
  }
  if (!has_blocks(of)) return;
  if (square) {
    const uint32_t most = square_max(words, false);
#pragma unroll
    for (int i = 0; i < 8; ++i) words[i] = most;
  }
  const uint32_t group = MicroPlace::column_group();
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i) {
    shared.amax.rows[row_chunk(MicroPlace::row() + i, group / 4) + group % 4] = words[i];
  }
}

// The same of its columns.
template <int kBits, bool kWide>
EVENKEEL_DEVICE void note_columns(ScaleOf of, bool square, const MicroTile<kWide>& tile,
                                  QuantizeShared& shared, float& amax) {
  uint32_t words[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float v[8];
    tile.column(j, v);
    words[j] = amax_of<kBits>(v, amax);
  }
  if (of == ScaleOf::kTile) {
    const uint32_t most = square_max(words, true);
    if (threadIdx.x % 32 == 0) shared.warp_block[MicroPlace::warp()] = most;
    return;
  }
  if (!has_blocks(of)) return;
  if (square) {
    const uint32_t most = square_max(words, false);
#pragma unroll
    for (int j = 0; j < 8; ++j) words[j] = most;
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j) words[j] = lane_max(words[j], 16);
  }
  if (MicroPlace::row_group() % 2 != 0) return;
  uint32_t* const line = shared.amax.columns + MicroPlace::warp() * kTile;
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    *reinterpret_cast<uint4*>(line + column_entry(MicroPlace::column() + 4 * half)) =
        make_uint4(words[4 * half], words[4 * half + 1], words[4 * half + 2], words[4 * half + 3]);
  }
}

// ---- Scales.

// A scale as it is stored, and what divides by it. Where E2M1 elements are 0 whatever the values,
// the reciprocal is NaN.
struct Scale {
  uint32_t stored;
  ScaleDivisor by;
};

template <int kBits>
EVENKEEL_DEVICE Scale make_scale(const QuantizeForm& form, uint32_t amax,
                                 const ScaleDivisor& tensor) {
  const ElementType element = static_cast<ElementType>(form.element);
  const ScaleRule rule = static_cast<ScaleRule>(form.rule);
  if (form.scale_type == ScaleType::kE8m0) {
    if (kBits == 4 && amax == kNotFinite) return {0xff, {quiet_nan(), quiet_nan()}};
    const uint32_t byte = power_scale(__uint_as_float(amax), element, rule);
    return {byte, ScaleDivisor::of_power(byte)};
  }
  if constexpr (kBits == 4) {
    if (amax == kNotFinite) return {0x7f, {quiet_nan(), quiet_nan()}};
    const uint32_t code = nvfp4_block_scale(__uint_as_float(amax), tensor);
    const float scale = e4m3_value(code) * tensor.scale;
    if (scale == 0.0f) return {code, {0.0f, quiet_nan()}};
    return {code, ScaleDivisor::of(scale)};
  } else {
    if (rule == ScaleRule::kCeil) {
      const ScaleDivisor by =
          ScaleDivisor::of_power(power_scale(__uint_as_float(amax), element, rule));
      return {__float_as_uint(by.scale), by};
    }
    const float scale = exact_scale(__uint_as_float(amax), largest_element(element));
    return {__float_as_uint(scale), ScaleDivisor::of(scale)};
  }
}

// The scale of a tensor or group: given, or that of its amax.
template <int kBits>
EVENKEEL_DEVICE float tensor_scale(const QuantizeForm& form, const QuantizeOutput& output,
                                   uint32_t group) {
  if (output.given != nullptr) return output.given[group];
  const float amax = __uint_as_float(output.amax[group]);
  if constexpr (kBits == 4) {
    return nvfp4_tensor_scale(amax);
  } else {
    return __uint_as_float(make_scale<kBits>(form, __float_as_uint(amax), {1.0f, 1.0f}).stored);
  }
}

template <int kBits>
EVENKEEL_DEVICE ScaleDivisor tensor_divisor(const QuantizeForm& form, const QuantizeOutput& output,
                                            uint32_t group) {
  if (form.scale_of != ScaleOf::kTensor && form.scale_type != ScaleType::kE4m3) return {1.0f, 1.0f};
  const float scale = tensor_scale<kBits>(form, output, group);
  // The reciprocal of a power of two is one, down to the subnormal ones.
  if (form.power != 0) return {scale, 1.0f / scale};
  return ScaleDivisor::of(scale);
}

// Stores up to four neighbouring scales: those of blocks from `block` on of outer row `outer`, the
// first `count` of which exist. `padding`: scales that do not exist have room, and become 0.
EVENKEEL_DEVICE void store_scales(const QuantizeForm& form, const QuantizeOutput& output,
                                  uint64_t outer, uint64_t block, uint32_t count, bool padding,
                                  const uint32_t (&stored)[4]) {
  if (form.scale_type == ScaleType::kFloat) {
    if (count == 0) return;
    static_cast<uint32_t*>(output.scales)[static_cast<int64_t>(outer) * output.scale_outer +
                                          static_cast<int64_t>(block) * output.scale_block] =
        stored[0];
    return;
  }
  uint8_t* const scales = static_cast<uint8_t*>(output.scales);
  uint32_t word = 0;
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) word |= k < count ? stored[k] << (8 * k) : 0;
  if (output.tiled != 0) {
    // Scale (r, c) of a tile of 128 x 4 is byte (r mod 32) 16 + floor(r / 32) 4 + c.
    const uint64_t tiles = (output.scale_blocks + 3) / 4;
    uint8_t* const row =
        scales + (outer / 128) * tiles * 512 + (outer % 32) * 16 + (outer % 128) / 32 * 4;
    // Without room of its own, what follows the last one belongs to another group.
    const uint32_t room = !padding ? count : block / 4 < tiles ? 4 : 0;
    if (block % 4 == 0 && room == 4 && reinterpret_cast<uint64_t>(scales) % 4 == 0) {
      *reinterpret_cast<uint32_t*>(row + block / 4 * 512) = word;
      return;
    }
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      if (k < room)
        row[(block + k) / 4 * 512 + (block + k) % 4] = static_cast<uint8_t>(word >> (8 * k));
    }
    return;
  }
  uint8_t* const at = scales + static_cast<int64_t>(outer) * output.scale_outer +
                      static_cast<int64_t>(block) * output.scale_block;
  if (count == 4 && output.scale_block == 1 && reinterpret_cast<uint64_t>(at) % 4 == 0) {
    *reinterpret_cast<uint32_t*>(at) = word;
    return;
  }
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    if (k < count) at[k * output.scale_block] = static_cast<uint8_t>(word >> (8 * k));
  }
}

// How many of the four blocks of `size` from block 4 quad on begin before `end`.
EVENKEEL_DEVICE uint32_t blocks_before(uint32_t end, uint32_t size, uint32_t quad) {
  const uint32_t blocks = (end + size - 1) / size;
  return blocks > 4 * quad ? min(blocks - 4 * quad, 4u) : 0;
}

// The scales of the row-wise output, four a thread; the first 128 or 256 threads have some.
template <int kBits>
EVENKEEL_DEVICE uint32_t scale_rows(const QuantizeForm& form, const QuantizeOutput& output,
                                    const TilePlace& place, bool grouped, QuantizeShared& shared) {
  const ScaleDivisor tensor = tensor_divisor<kBits>(form, output, place.group);
  const uint32_t size = block_size(form.scale_of);
  const uint32_t blocks = kTile / size;
  const uint32_t row = threadIdx.x % kTile;
  const uint32_t quad = threadIdx.x / kTile;
  if (quad > 0 && blocks <= 4) return 0;
  uint32_t amax[4] = {0, 0, 0, 0};
  uint64_t outer = place.row + row;
  uint64_t block = static_cast<uint64_t>(place.column_tile) * blocks + 4 * quad;
  uint32_t count = row < place.rows ? blocks_before(place.columns, size, quad) : 0;
  switch (form.scale_of) {
    case ScaleOf::kTensor: {
      shared.rows.scale[row] = tensor.scale;
      shared.rows.reciprocal[row] = tensor.reciprocal;
      return 0;
    }
    case ScaleOf::kRow:
      amax[0] = row < place.rows ? output.amax[place.row + row] : 0;
      if (place.column_tile != 0) count = 0;
      block = 0;
      break;
    case ScaleOf::kTile: {
#pragma unroll
      for (uint32_t w = 0; w < kTileWarps; ++w) amax[0] = max(amax[0], shared.warp_block[w]);
      if (row != 0) count = 0;
      outer = place.row_tile;
      break;
    }
    case ScaleOf::k128:
    case ScaleOf::k32:
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        const uint4 four = *reinterpret_cast<const uint4*>(shared.amax.rows + row_chunk(row, k));
        const uint32_t most = max(max(four.x, four.y), max(four.z, four.w));
        if (blocks == 1) {
          amax[0] = max(amax[0], most);
        } else {
          amax[k] = most;
        }
      }
      break;
    case ScaleOf::k16:
#pragma unroll
      for (uint32_t k = 0; k < 2; ++k) {
        const uint4 four =
            *reinterpret_cast<const uint4*>(shared.amax.rows + row_chunk(row, 2 * quad + k));
        amax[2 * k] = max(four.x, four.y);
        amax[2 * k + 1] = max(four.z, four.w);
      }
      break;
  }
  uint32_t stored[4] = {0, 0, 0, 0};
  uint32_t status = 0;
  float scales[4] = {};
  float reciprocals[4] = {};
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    if (k >= blocks) break;
    const Scale scale = make_scale<kBits>(form, amax[k], tensor);
    stored[k] = scale.stored;
    scales[k] = scale.by.scale;
    reciprocals[k] = scale.by.reciprocal;
    if (amax[k] == kNotFinite) status |= kNonFiniteBlock;
  }
  if (blocks == 1) {
    shared.rows.scale[row] = scales[0];
    shared.rows.reciprocal[row] = reciprocals[0];
  } else {
    const uint32_t at = row_entry(row, 4 * quad, blocks);
    *reinterpret_cast<float4*>(shared.rows.scale + at) =
        make_float4(scales[0], scales[1], scales[2], scales[3]);
    *reinterpret_cast<float4*>(shared.rows.reciprocal + at) =
        make_float4(reciprocals[0], reciprocals[1], reciprocals[2], reciprocals[3]);
  }
  store_scales(form, output, outer, block, count, !grouped, stored);
  return status;
}

// Those of the transposed output.
template <int kBits>
EVENKEEL_DEVICE uint32_t scale_columns(const QuantizeForm& form, const QuantizeOutput& output,
                                       const TilePlace& place, uint64_t columns, bool grouped,
                                       QuantizeShared& shared) {
  const ScaleDivisor tensor = tensor_divisor<kBits>(form, output, place.group);
  const uint32_t size = block_size(form.scale_of);
  const uint32_t blocks = kTile / size;
  const uint32_t column = threadIdx.x % kTile;
  const uint32_t quad = threadIdx.x / kTile;
  if (quad > 0 && blocks <= 4) return 0;
  uint32_t amax[4] = {0, 0, 0, 0};
  uint64_t outer = place.column + column;
  uint64_t block = place.slot(size) + 4 * quad;
  uint32_t count = column < place.columns ? blocks_before(place.rows, size, quad) : 0;
  const uint32_t entry = column_entry(column);
  switch (form.scale_of) {
    case ScaleOf::kTensor: {
      shared.columns.scale[entry] = tensor.scale;
      shared.columns.reciprocal[entry] = tensor.reciprocal;
      return 0;
    }
    case ScaleOf::kRow:
      if (column < place.columns) {
        amax[0] = output.amax[place.group * columns + place.column + column];
      }
      if (place.index != 0) count = 0;
      block = place.group;
      break;
    case ScaleOf::kTile: {
#pragma unroll
      for (uint32_t w = 0; w < kTileWarps; ++w) amax[0] = max(amax[0], shared.warp_block[w]);
      if (column != 0) count = 0;
      outer = place.column_tile;
      break;
    }
    case ScaleOf::k128:
    case ScaleOf::k32:
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        const uint32_t most = max(shared.amax.columns[2 * k * kTile + entry],
                                  shared.amax.columns[(2 * k + 1) * kTile + entry]);
        if (blocks == 1) {
          amax[0] = max(amax[0], most);
        } else {
          amax[k] = most;
        }
      }
      break;
    case ScaleOf::k16:
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        amax[k] = shared.amax.columns[(4 * quad + k) * kTile + entry];
      }
      break;
  }
  uint32_t stored[4] = {0, 0, 0, 0};
  uint32_t status = 0;
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    if (k >= blocks) break;
    const Scale scale = make_scale<kBits>(form, amax[k], tensor);
    stored[k] = scale.stored;
    const uint32_t at = (4 * quad + k) * kTile + entry;
    shared.columns.scale[at] = scale.by.scale;
    shared.columns.reciprocal[at] = scale.by.reciprocal;
    if (amax[k] == kNotFinite) status |= kNonFiniteBlock;
  }
  store_scales(form, output, outer, block, count, !grouped, stored);
  return status;
}

}  // namespace evenkeel
