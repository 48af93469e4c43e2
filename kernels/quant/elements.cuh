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

// Where a thread's elements of its rows go.
template <int kBits>
struct RowStore {
  const QuantizeOutput& output;
  const TilePlace& place;
  uint32_t valid;  // elements of each row
  uint8_t* data;

  EVENKEEL_DEVICE RowStore(const QuantizeOutput& output, const TilePlace& place)
      : output(output), place(place) {
    const uint32_t column = MicroPlace::column();
    valid = column < place.columns ? min(place.columns - column, 8u) : 0;
    data = output.data + static_cast<int64_t>(place.row + MicroPlace::row()) * output.stride +
           static_cast<int64_t>((place.column + column) * kBits / 8);
  }

  EVENKEEL_DEVICE void put(int i, uint2 codes) const {
    if (MicroPlace::row() + static_cast<uint32_t>(i) >= place.rows || valid == 0) return;
    uint8_t* const to = data + i * output.stride;
    if (valid == 8 && output.aligned != 0) {
      if constexpr (kBits == 4) {
        *reinterpret_cast<uint32_t*>(to) = codes.x;
      } else {
        ptx::store_global(to, codes);
      }
      return;
    }
    constexpr uint32_t kBytes = static_cast<uint32_t>(kBits);
#pragma unroll
    for (uint32_t b = 0; b < kBytes; ++b) {
      // The upper half of a last odd byte is 0: x is 0 beyond the row.
      if (b * 8 / kBits < valid)
        to[b] = static_cast<uint8_t>((b < 4 ? codes.x : codes.y) >> (8 * (b % 4)));
    }
  }
};

// Elements of the rows, to nearest.
template <int kBits, bool kWide>
EVENKEEL_DEVICE void quantize_rows(const QuantizeForm& form, const QuantizeOutput& output,
                                   const TilePlace& place, const MicroTile<kWide>& tile,
                                   const QuantizeShared& shared, QuantCounts& counts) {
  const ElementType element = static_cast<ElementType>(form.element);
  const float largest = largest_element(element);
  const uint32_t blocks = kTile / block_size(form.scale_of);
  const uint32_t block = MicroPlace::column() * blocks / kTile;
  const RowStore<kBits> to(output, place);
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
    float u[8];
    divide_by(x, by, form.power != 0, u);
    codes = encode_nearest<kBits>(u, element);
    if (zero) codes.x = 0;
    if (counted) counts.add<kBits>(x, u, codes, largest);
    to.put(i, codes);
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

// The divisors of four neighbouring columns.
EVENKEEL_DEVICE void column_divisors(const QuantizeShared& shared, uint32_t block, uint32_t column,
                                     ScaleDivisor (&by)[4]) {
  const uint32_t at = block * kTile + column_entry(column);
  const float4 scales = *reinterpret_cast<const float4*>(shared.columns.scale + at);
  const float4 reciprocals = *reinterpret_cast<const float4*>(shared.columns.reciprocal + at);
  by[0] = {scales.x, reciprocals.x};
  by[1] = {scales.y, reciprocals.y};
  by[2] = {scales.z, reciprocals.z};
  by[3] = {scales.w, reciprocals.w};
}

// Elements of a column of the thread's eight rows, to its place in the transposed tile.
template <int kBits>
EVENKEEL_DEVICE void put_column(QuantizeShared& shared, uint32_t column, uint2 codes) {
  unsigned char* const to = shared.bytes + transposed_at<kBits>(column, MicroPlace::row_group());
  if constexpr (kBits == 4) {
    *reinterpret_cast<uint32_t*>(to) = codes.x;
  } else {
    *reinterpret_cast<uint2*>(to) = codes;
  }
}

// Elements of the columns, to nearest, into shared memory.
template <int kBits, bool kWide>
EVENKEEL_DEVICE void quantize_columns(const QuantizeForm& form, const QuantizeOutput& output,
                                      const MicroTile<kWide>& tile, QuantizeShared& shared,
                                      QuantCounts& counts) {
  const ElementType element = static_cast<ElementType>(form.element);
  const float largest = largest_element(element);
  const uint32_t blocks = kTile / block_size(form.scale_of);
  const uint32_t block = MicroPlace::row() * blocks / kTile;
#pragma unroll
  for (int quad = 0; quad < 2; ++quad) {
    const uint32_t column = MicroPlace::column() + 4 * static_cast<uint32_t>(quad);
    ScaleDivisor by[4];
    column_divisors(shared, block, column, by);
    uint2 codes[4];
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
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) put_column<kBits>(shared, column + k, codes[k]);
  }
}

// Bytes of four elements of a row, each under a divisor of its own or all under one, at random.
template <int kBits>
EVENKEEL_DEVICE uint32_t random_bytes(const QuantizeForm& form, const QuantizeOutput& output,
                                      bool exists, const float (&x)[4], const float (&u)[4],
                                      const ScaleDivisor (&by)[4], const uint32_t (&words)[4],
                                      QuantCounts& counts) {
  const ElementType element = static_cast<ElementType>(form.element);
  uint32_t bytes = encode4_stochastic<kBits>(u, words, element);
  if constexpr (kBits == 4) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (by[k].reciprocal != by[k].reciprocal) bytes &= ~(0xffu << (8 * k));
    }
  }
  if (output.counts == nullptr || !exists) return bytes;
  const float largest = largest_element(element);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    // Not those of a block that is not finite; those of a scale of 0 have become 0.
    const bool counted = kBits == 8 || by[k].reciprocal == by[k].reciprocal || by[k].scale == 0.0f;
    const uint32_t magnitude = (bytes >> (8 * k)) & (kBits == 4 ? 7u : 0x7fu);
    if (counted) counts.add_one(x[k], u[k], magnitude, largest);
  }
  return bytes;
}

// Elements of the rows, of the columns into shared memory, or of both, at random: the words of four
// neighbours of a row are drawn once for both.
template <int kBits, bool kWide>
EVENKEEL_DEVICE void quantize_random(const QuantizeForm& form, const QuantizeOutput& rowwise,
                                     const QuantizeOutput& transposed, bool rows, bool columns,
                                     const TilePlace& place, const Rounding& rounding,
                                     const MicroTile<kWide>& tile, QuantizeShared& shared,
                                     QuantCounts& of_rows, QuantCounts& of_columns) {
  const bool power = form.power != 0;
  const uint32_t blocks = kTile / block_size(form.scale_of);
  const uint32_t row_block = MicroPlace::column() * blocks / kTile;
  const uint32_t column_block = MicroPlace::row() * blocks / kTile;
  const RowStore<kBits> to(rowwise, place);
  uint32_t transposing[2][8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t row = MicroPlace::row() + static_cast<uint32_t>(i);
    float all[8];
    tile.row(i, all);
    uint32_t bytes[2] = {0, 0};
#pragma unroll
    for (int quad = 0; quad < 2; ++quad) {
      const uint32_t column = MicroPlace::column() + 4 * static_cast<uint32_t>(quad);
      const float x[4] = {all[4 * quad], all[4 * quad + 1], all[4 * quad + 2], all[4 * quad + 3]};
      // Read after a barrier, the key holds the draws back until it is their turn: they would fill
      // the registers.
      __syncwarp();
      uint32_t words[4];
      random_quad(rounding.element(row, column), *rounding.again, words);
      float u[4];
      if (rows) {
        const uint32_t at = row_entry(row, row_block, blocks);
        const ScaleDivisor by = {shared.rows.scale[at], shared.rows.reciprocal[at]};
        divide_by(x, by, power, u);
        bytes[quad] = random_bytes<kBits>(form, rowwise, row < place.rows, x, u, {by, by, by, by},
                                          words, of_rows);
      }
      if (columns) {
        ScaleDivisor by[4];
        column_divisors(shared, column_block, column, by);
        divide_each(x, by, power, u);
        transposing[quad][i] =
            random_bytes<kBits>(form, transposed, true, x, u, by, words, of_columns);
      }
    }
    if (rows) {
      to.put(i, kBits == 4 ? make_uint2(pack_nibbles(bytes[0], bytes[1]), 0)
                           : make_uint2(bytes[0], bytes[1]));
    }
  }
  if (!columns) return;
    // Bytes of a column from eight rows, the rest of the transposition.
#pragma unroll
  for (int quad = 0; quad < 2; ++quad) {
    const uint32_t(&b)[8] = transposing[quad];
    const uint32_t column = MicroPlace::column() + 4 * static_cast<uint32_t>(quad);
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      const uint32_t selector = k | (k + 4) << 4;
      const uint32_t low =
          __byte_perm(__byte_perm(b[0], b[1], selector), __byte_perm(b[2], b[3], selector), 0x5410);
      const uint32_t high =
          __byte_perm(__byte_perm(b[4], b[5], selector), __byte_perm(b[6], b[7], selector), 0x5410);
      put_column<kBits>(
          shared, column + k,
          kBits == 4 ? make_uint2(pack_nibbles(low, high), 0) : make_uint2(low, high));
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
