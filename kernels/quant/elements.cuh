// From the values of a tile and its scales to the elements of both outputs.
//
// Row-wise, a thread stores the eight elements of each of its rows; sixteen lanes write 128 bytes
// (64 of 4-bit elements) of a row side by side. Transposed, it puts the eight elements of each of
// its columns into shared memory, whence rows of X^T leave as 16 bytes a thread, 128 (or 64) a row.
#pragma once

#include "quant/scales.cuh"

namespace evenkeel {

struct Rounding {
  RandomKey key;           // once a tile
  const RandomKey* again;  // the same, in shared memory
  uint64_t first_element;  // of the tile's first row and column
  uint64_t row_elements;

  EVENKEEL_DEVICE uint64_t element(uint32_t row, uint32_t column) const {
    return first_element + row * row_elements + column;
  }
};

// Words of elements `first` to `first` + 3: one draw where rows begin at multiples of four.
EVENKEEL_DEVICE void random_quad(uint64_t first, const RandomKey& key, uint32_t (&words)[4]) {
  philox4x32_10(first / 4, key, words);
  const uint32_t skip = static_cast<uint32_t>(first % 4);
  if (skip == 0) return;
  uint32_t next[4];
  philox4x32_10(first / 4 + 1, key, next);
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t at = i + skip;
    words[i] = at == 1   ? words[1]
               : at == 2 ? words[2]
               : at == 3 ? words[3]
               : at == 4 ? next[0]
               : at == 5 ? next[1]
                         : next[2];
  }
}

// Elements of one row.
template <int kBits, bool kStochastic, bool kWide>
EVENKEEL_DEVICE void quantize_rows(const QuantizeForm& form, const QuantizeOutput& output,
                                   const TilePlace& place, const Rounding& rounding,
                                   const MicroTile<kWide>& tile, const QuantizeShared& shared,
                                   QuantCounts& counts) {
  const ElementType element = static_cast<ElementType>(form.element);
  const float largest = largest_element(element);
  const uint32_t blocks = kTile / block_size(form.scale_of);
  const uint32_t block = MicroPlace::column() * blocks / kTile;
  const uint32_t column = MicroPlace::column();
  const uint32_t valid = column < place.columns ? min(place.columns - column, 8u) : 0;
  uint8_t* const data = output.data +
                        static_cast<int64_t>(place.row + MicroPlace::row()) * output.stride +
                        static_cast<int64_t>((place.column + column) * kBits / 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t row = MicroPlace::row() + static_cast<uint32_t>(i);
    const uint32_t at = row_entry(row, block, blocks);
    const ScaleDivisor by = {shared.rows.scale[at], shared.rows.reciprocal[at]};
    float x[8];
    tile.row(i, x);
    uint2 codes;
    bool zero = false;
    if constexpr (kBits == 4) zero = by.reciprocal != by.reciprocal;
    // Not those of a block that is not finite; those of a scale of 0 have become 0.
    const bool counted =
        output.counts != nullptr && row < place.rows && (!zero || by.scale == 0.0f);
    if constexpr (kStochastic) {
      uint32_t bytes[2];
#pragma unroll
      for (uint32_t quad = 0; quad < 2; ++quad) {
        const float part[4] = {x[4 * quad], x[4 * quad + 1], x[4 * quad + 2], x[4 * quad + 3]};
        float u[4];
        divide_by(part, by, form.power != 0, u);
        // Read after a barrier, the key holds the draws back until it is their turn: they would
        // fill the registers.
        __syncwarp();
        uint32_t words[4];
        random_quad(rounding.element(row, column + 4 * quad), *rounding.again, words);
        bytes[quad] = zero ? 0 : encode4_stochastic<kBits>(u, words, element);
        if (!counted) continue;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const uint32_t magnitude = (bytes[quad] >> (8 * k)) & (kBits == 4 ? 7u : 0x7fu);
          counts.add_one(part[k], u[k], magnitude, largest);
        }
      }
      codes = kBits == 4 ? make_uint2(pack_nibbles(bytes[0], bytes[1]), 0)
                         : make_uint2(bytes[0], bytes[1]);
    } else {
      float u[8];
      divide_by(x, by, form.power != 0, u);
      codes = encode_nearest<kBits>(u, element);
      if (zero) codes.x = 0;
      if (counted) counts.add<kBits>(x, u, codes, largest);
    }
    if (row >= place.rows || valid == 0) continue;
    uint8_t* const to = data + i * output.stride;
    if (valid == 8 && output.aligned != 0) {
      if constexpr (kBits == 4) {
        *reinterpret_cast<uint32_t*>(to) = codes.x;
      } else {
        ptx::store_global(to, codes);
      }
      continue;
    }
    constexpr uint32_t kBytes = static_cast<uint32_t>(kBits);
#pragma unroll
    for (uint32_t b = 0; b < kBytes; ++b) {
      // The upper half of a last odd byte is 0: x is 0 beyond the row.
      if (b * 8 / kBits < valid)
        to[b] = static_cast<uint8_t>((b < 4 ? codes.x : codes.y) >> (8 * (b % 4)));
    }
  }
}

// Where the eight elements of column c and rows 8 g to 8 g + 7 lie in the transposed tile.
//
// 8 bits: a line of 128 bytes for each column; its 16 chunks of 8 bytes are permuted by g xor the
// column's eight, so that a warp's 32 chunks fill two lines' worth of banks. 4 bits: two columns
// share a line; its 32 words are permuted by g xor the column's eight within a half, and the halves
// by c + g, so that a warp's words are in 32 banks.
template <int kBits>
EVENKEEL_DEVICE uint32_t transposed_at(uint32_t column, uint32_t group) {
  const uint32_t permuted = group ^ (column / 8);
  if constexpr (kBits == 8) return column * 128 + permuted * 8;
  return (column / 2) * 128 + ((column ^ group) & 1) * 64 + permuted * 4;
}

// Elements of the columns, into shared memory.
template <int kBits, bool kStochastic, bool kWide>
EVENKEEL_DEVICE void quantize_columns(const QuantizeForm& form, const QuantizeOutput& output,
                                      const Rounding& rounding, const MicroTile<kWide>& tile,
                                      QuantizeShared& shared, QuantCounts& counts) {
  const ElementType element = static_cast<ElementType>(form.element);
  const float largest = largest_element(element);
  const uint32_t blocks = kTile / block_size(form.scale_of);
  const uint32_t group = MicroPlace::row_group();
  const uint32_t block = MicroPlace::row() * blocks / kTile;
#pragma unroll
  for (int quad = 0; quad < 2; ++quad) {
    const uint32_t column = MicroPlace::column() + 4 * static_cast<uint32_t>(quad);
    const uint32_t at = block * kTile + column_entry(column);
    const float4 scales = *reinterpret_cast<const float4*>(shared.columns.scale + at);
    const float4 reciprocals = *reinterpret_cast<const float4*>(shared.columns.reciprocal + at);
    const ScaleDivisor by[4] = {{scales.x, reciprocals.x},
                                {scales.y, reciprocals.y},
                                {scales.z, reciprocals.z},
                                {scales.w, reciprocals.w}};
    uint2 codes[4];
    if constexpr (kStochastic) {
      // Row by row, as random words come for four neighbours of a row.
      uint32_t rows[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t row = MicroPlace::row() + static_cast<uint32_t>(i);
        float all[8];
        tile.row(i, all);
        const float x[4] = {all[4 * quad], all[4 * quad + 1], all[4 * quad + 2], all[4 * quad + 3]};
        float u[4];
        divide_each(x, by, form.power != 0, u);
        uint32_t words[4];
        __syncwarp();
        random_quad(rounding.element(row, column), *rounding.again, words);
        rows[i] = encode4_stochastic<kBits>(u, words, element);
        if constexpr (kBits == 4) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            if (by[k].reciprocal != by[k].reciprocal) rows[i] &= ~(0xffu << (8 * k));
          }
        }
        if (output.counts != nullptr) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const bool counted =
                kBits == 8 || by[k].reciprocal == by[k].reciprocal || by[k].scale == 0.0f;
            const uint32_t magnitude = (rows[i] >> (8 * k)) & (kBits == 4 ? 7u : 0x7fu);
            if (counted) counts.add_one(x[k], u[k], magnitude, largest);
          }
        }
      }
      // Bytes of a column from eight rows, the rest of the transposition.
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        const uint32_t selector = k | (k + 4) << 4;
        const uint32_t low = __byte_perm(__byte_perm(rows[0], rows[1], selector),
                                         __byte_perm(rows[2], rows[3], selector), 0x5410);
        const uint32_t high = __byte_perm(__byte_perm(rows[4], rows[5], selector),
                                          __byte_perm(rows[6], rows[7], selector), 0x5410);
        codes[k] = kBits == 4 ? make_uint2(pack_nibbles(low, high), 0) : make_uint2(low, high);
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float x[8];
        tile.column(4 * quad + k, x);
        float u[8];
        divide_by(x, by[k], form.power != 0, u);
        codes[k] = encode_nearest<kBits>(u, element);
        bool zero = false;
        if constexpr (kBits == 4) {
          zero = by[k].reciprocal != by[k].reciprocal;
          if (zero) codes[k].x = 0;
        }
        if (output.counts != nullptr && (!zero || by[k].scale == 0.0f)) {
          counts.add<kBits>(x, u, codes[k], largest);
        }
      }
    }
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      unsigned char* const to = shared.bytes + transposed_at<kBits>(column + k, group);
      if constexpr (kBits == 4) {
        *reinterpret_cast<uint32_t*>(to) = codes[k].x;
      } else {
        *reinterpret_cast<uint2*>(to) = codes[k];
      }
    }
  }
}

// 16 bytes of a row of X^T, from byte `at` of the `bytes` that the tile has of the row.
EVENKEEL_DEVICE void store_row_part(uint8_t* row, uint32_t at, uint32_t bytes, bool aligned,
                                    const uint32_t (&words)[4]) {
  if (at >= bytes) return;
  if (aligned && at + 16 <= bytes) {
    ptx::store_global(row + at, make_uint4(words[0], words[1], words[2], words[3]));
    return;
  }
#pragma unroll
  for (uint32_t b = 0; b < 16; ++b) {
    if (at + b < bytes) row[at + b] = static_cast<uint8_t>(words[b / 4] >> (8 * (b % 4)));
  }
}

// From shared memory to rows of X^T.
template <int kBits>
EVENKEEL_DEVICE void store_transposed(const QuantizeOutput& output, const TilePlace& place,
                                      const QuantizeShared& shared) {
  uint8_t* const data = output.data + static_cast<int64_t>(place.column) * output.stride +
                        static_cast<int64_t>(place.row * kBits / 8);
  const uint32_t bytes = (place.rows * kBits + 7) / 8;
  const bool aligned = output.aligned != 0 && place.row * kBits / 8 % 16 == 0;
  if constexpr (kBits == 8) {
#pragma unroll
    for (uint32_t round = 0; round < 4; ++round) {
      const uint32_t column = round * 32 + threadIdx.x / 8;
      const uint32_t pair = threadIdx.x % 8;  // of chunks, as they lie
      const uint32_t eight = column / 8;
      const uint4 four = *reinterpret_cast<const uint4*>(shared.bytes + column * 128 + pair * 16);
      const bool swapped = eight % 2 != 0;
      const uint32_t words[4] = {swapped ? four.z : four.x, swapped ? four.w : four.y,
                                 swapped ? four.x : four.z, swapped ? four.y : four.w};
      if (column >= place.columns) continue;
      store_row_part(data + static_cast<int64_t>(column) * output.stride, (pair ^ (eight / 2)) * 16,
                     bytes, aligned, words);
    }
  } else {
    // Both columns of a line, words 4 q to 4 q + 3 of either half.
    const uint32_t line = threadIdx.x / 4;
    const uint32_t quad = threadIdx.x % 4;
    const uint32_t eight = line / 4;
    // Neighbouring lines read their halves in opposite order: they would meet in the banks.
    uint4 halves[2];
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t half = h ^ (line & 1);
      halves[h] =
          *reinterpret_cast<const uint4*>(shared.bytes + line * 128 + half * 64 + quad * 16);
    }
    const bool crossed = (line & 1) != 0;
    const uint4 first = crossed ? halves[1] : halves[0];
    const uint4 second = crossed ? halves[0] : halves[1];
    const uint32_t a[4] = {first.x, first.y, first.z, first.w};
    const uint32_t b[4] = {second.x, second.y, second.z, second.w};
    // Word p of a half is of row group g = p xor eight, of the even column where g's parity is the
    // half's: sort by parity, then by g.
    uint32_t even[4];
    uint32_t odd[4];
#pragma unroll
    for (uint32_t p = 0; p < 4; ++p) {
      const bool other = ((p ^ eight) & 1) != 0;
      even[p] = other ? b[p] : a[p];
      odd[p] = other ? a[p] : b[p];
    }
    const auto sort = [&](uint32_t(&w)[4]) {
      if ((eight & 1) != 0) {
        const uint32_t t[4] = {w[1], w[0], w[3], w[2]};
#pragma unroll
        for (int p = 0; p < 4; ++p) w[p] = t[p];
      }
      if ((eight & 2) != 0) {
        const uint32_t t[4] = {w[2], w[3], w[0], w[1]};
#pragma unroll
        for (int p = 0; p < 4; ++p) w[p] = t[p];
      }
    };
    sort(even);
    sort(odd);
    const uint32_t at = (quad ^ (eight / 4)) * 16;
    const uint32_t column = 2 * line;
    uint8_t* const row = data + static_cast<int64_t>(column) * output.stride;
    if (column < place.columns) store_row_part(row, at, bytes, aligned, even);
    if (column + 1 < place.columns) {
      store_row_part(row + output.stride, at, bytes, aligned, odd);
    }
  }
}

}  // namespace evenkeel
