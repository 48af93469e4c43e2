// Which elements of a row a thread has, and how they travel between memory and registers.
//
// A thread holds `kUnits` units of `kChunk` elements. Where every row of every tensor begins on the
// boundary of a unit and ends with one, a unit is kChunk neighbours and moves as one access of up
// to 16 bytes: kChunk is 8 for tensors of 16 bits and 4 as soon as one of them is f32, so that both
// fill 16 bytes where they can and neighbouring threads always touch neighbouring bytes. Elsewhere
// (odd widths, slices) units are spread: their elements lie `threads` columns apart and move one by
// one, neighbouring threads again side by side.
//
// Units stay packed in their type until they are used, twice: a row takes half the registers.
#pragma once

#include "common/element.cuh"
#include "common/rows.h"
#include "platform/platform.h"
#include "ptx/global.cuh"

namespace evenkeel {

// Combines a power of two of values in a tree: short chains of dependent instructions, and fewer
// roundings in a row than one by one.
template <int kCount, typename Combine>
EVENKEEL_DEVICE float pairwise(const float (&values)[kCount], Combine combine) {
  if constexpr (kCount == 1) {
    return values[0];
  } else {
    float half[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) half[i] = combine(values[i], values[i + kCount / 2]);
    return pairwise<kCount / 2>(half, combine);
  }
}

EVENKEEL_DEVICE uint32_t divide(uint32_t n, Divisor by) {
  return (__umulhi(n, by.magic) + n) >> by.shift;
}

// A row of a tensor of heads.
struct RowPlace {
  uint32_t row;
  uint32_t token;
  uint32_t head;
};

EVENKEEL_DEVICE RowPlace row_place(const RowGrid& grid, uint32_t row) {
  if (grid.heads == 1) return {row, row, 0};
  const uint32_t token = divide(row, grid.by_heads);
  return {row, token, row - token * grid.heads};
}

// How a thread holds its part of a row.
template <int kChunk_, int kUnits_, bool kSpread_>
struct RowLayout {
  static constexpr int kChunk = kChunk_;
  static constexpr int kUnits = kUnits_;
  static constexpr bool kSpread = kSpread_;
  static constexpr int kQuads = kChunk / 4;
  // Columns that a thread has in a segment of a row.
  static constexpr uint32_t kColumns = kChunk * kUnits;
  static_assert(kChunk == 4 || (kChunk == 8 && !kSpread));
  using Unit = float[kChunk];
  using Units = uint4[kUnits];
};

// A thread's columns, unit by unit; those from `end` on are not in the row.
template <typename Layout>
struct Columns {
  uint32_t first;
  uint32_t threads;
  uint32_t end;

  // `rank` of `threads` over columns [begin, end) of a row.
  EVENKEEL_DEVICE static Columns of(uint32_t rank, uint32_t threads, uint32_t begin, uint32_t end) {
    return {begin + (Layout::kSpread ? rank : rank * Layout::kChunk), threads, end};
  }

  EVENKEEL_DEVICE uint32_t at(int unit, int element) const {
    return first + static_cast<uint32_t>(unit) * (threads * Layout::kChunk) +
           static_cast<uint32_t>(element) * (Layout::kSpread ? threads : 1);
  }

  // Whether the unit has an element in the row.
  EVENKEEL_DEVICE bool has(int unit) const { return at(unit, 0) < end; }

  // How many of the unit's elements are in the row: its first ones.
  EVENKEEL_DEVICE int count(int unit) const {
    if constexpr (!Layout::kSpread) {
      return has(unit) ? Layout::kChunk : 0;
    } else {
      int count = 0;
#pragma unroll
      for (int e = 0; e < Layout::kChunk; ++e) count += at(unit, e) < end ? 1 : 0;
      return count;
    }
  }

  // The columns of a later segment.
  EVENKEEL_DEVICE Columns segment(uint32_t index) const {
    Columns later = *this;
    later.first += index * threads * Layout::kColumns;
    return later;
  }
};

// A unit of a thread's by a number that need not be known before: registers have no addresses.
template <typename Layout>
EVENKEEL_DEVICE uint4 unit_of(const typename Layout::Units& units, int unit) {
  uint4 packed = units[0];
#pragma unroll
  for (int u = 1; u < Layout::kUnits; ++u) {
    if (u == unit) packed = units[u];
  }
  return packed;
}

// Whether elements take 4 bytes. Units of 8 are of 16-bit types.
template <typename Layout>
EVENKEEL_DEVICE bool is_wide(FloatType type) {
  return Layout::kChunk != 8 && type == FloatType::kF32;
}

template <typename Layout>
EVENKEEL_DEVICE unsigned char* row_address(const RowTensor& tensor, const RowPlace& place) {
  const int64_t element = static_cast<int64_t>(place.token) * tensor.token_stride +
                          static_cast<int64_t>(place.head) * tensor.head_stride;
  return static_cast<unsigned char*>(tensor.data) +
         element * (is_wide<Layout>(tensor.type) ? 4 : 2);
}

// One unit, in its type; zeros outside the row.
template <typename Layout>
EVENKEEL_DEVICE uint4 fetch_unit(const unsigned char* row, FloatType type,
                                 const Columns<Layout>& columns, int unit) {
  const bool wide = is_wide<Layout>(type);
  if constexpr (!Layout::kSpread) {
    if (!columns.has(unit)) return make_uint4(0, 0, 0, 0);
    const unsigned char* const address =
        row + static_cast<uint64_t>(columns.at(unit, 0)) * (wide ? 4 : 2);
    if (Layout::kChunk == 8 || wide) return ptx::load_global<uint4>(address);
    const uint2 half = ptx::load_global<uint2>(address);
    return make_uint4(half.x, half.y, 0, 0);
  } else {
    uint32_t words[4] = {};
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      const uint64_t at = columns.at(unit, e);
      if (at >= columns.end) continue;
      if (wide) {
        words[e] = reinterpret_cast<const uint32_t*>(row)[at];
      } else {
        const uint32_t bits = reinterpret_cast<const uint16_t*>(row)[at];
        words[e / 2] |= e % 2 == 0 ? bits : bits << 16;
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// A thread's units, all of them on their way before the first is used.
template <typename Layout>
EVENKEEL_DEVICE void fetch(const RowTensor& tensor, const RowPlace& place,
                           const Columns<Layout>& columns, typename Layout::Units& units) {
  const unsigned char* const row = row_address<Layout>(tensor, place);
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) units[u] = fetch_unit(row, tensor.type, columns, u);
}

template <typename Layout>
EVENKEEL_DEVICE void store_unit(unsigned char* row, FloatType type, const Columns<Layout>& columns,
                                int unit, uint4 packed) {
  const bool wide = is_wide<Layout>(type);
  if constexpr (!Layout::kSpread) {
    if (!columns.has(unit)) return;
    unsigned char* const address =
        row + static_cast<uint64_t>(columns.at(unit, 0)) * (wide ? 4 : 2);
    if (Layout::kChunk == 8 || wide) {
      ptx::store_global(address, packed);
    } else {
      ptx::store_global(address, make_uint2(packed.x, packed.y));
    }
  } else {
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      const uint64_t at = columns.at(unit, e);
      if (at >= columns.end) continue;
      if (wide) {
        reinterpret_cast<uint32_t*>(row)[at] = words[e];
      } else {
        reinterpret_cast<uint16_t*>(row)[at] =
            static_cast<uint16_t>(e % 2 == 0 ? words[e / 2] : words[e / 2] >> 16);
      }
    }
  }
}

EVENKEEL_DEVICE void unpack_unit(uint4 packed, FloatType type, float (&x)[8]) {
  if (type == FloatType::kF16) {
    unpack(packed, x, f16{});
  } else {
    unpack(packed, x, bf16{});
  }
}
EVENKEEL_DEVICE void unpack_unit(uint4 packed, FloatType type, float (&x)[4]) {
  if (type == FloatType::kF32) {
    unpack(packed, x, float{});
  } else if (type == FloatType::kF16) {
    unpack(make_uint2(packed.x, packed.y), x, f16{});
  } else {
    unpack(make_uint2(packed.x, packed.y), x, bf16{});
  }
}

// Elements 4q to 4q + 3 of a unit of kChunk: few registers at a time.
template <typename Layout>
EVENKEEL_DEVICE void unpack_quad(uint4 packed, FloatType type, int q, float (&x)[4]) {
  if constexpr (Layout::kChunk == 4) {
    unpack_unit(packed, type, x);
  } else {
    const uint2 half = q == 0 ? make_uint2(packed.x, packed.y) : make_uint2(packed.z, packed.w);
    if (type == FloatType::kF16) {
      unpack(half, x, f16{});
    } else {
      unpack(half, x, bf16{});
    }
  }
}

// Each value rounded once.
EVENKEEL_DEVICE uint4 pack_unit(const float (&x)[8], FloatType type) {
  return type == FloatType::kF16 ? pack(x, f16{}) : pack(x, bf16{});
}
EVENKEEL_DEVICE uint4 pack_unit(const float (&x)[4], FloatType type) {
  if (type == FloatType::kF32) return pack(x, float{});
  if (type == FloatType::kF16) {
    return make_uint4(ptx::cvt_rn_f16x2(x[0], x[1]), ptx::cvt_rn_f16x2(x[2], x[3]), 0, 0);
  }
  return make_uint4(ptx::cvt_rn_bf16x2(x[0], x[1]), ptx::cvt_rn_bf16x2(x[2], x[3]), 0, 0);
}

template <typename Layout>
EVENKEEL_DEVICE void pack_quad(const float (&x)[4], FloatType type, int q, uint4& packed) {
  if constexpr (Layout::kChunk == 4) {
    packed = pack_unit(x, type);
  } else {
    const bool half = type == FloatType::kF16;
    const uint32_t low = half ? ptx::cvt_rn_f16x2(x[0], x[1]) : ptx::cvt_rn_bf16x2(x[0], x[1]);
    const uint32_t high = half ? ptx::cvt_rn_f16x2(x[2], x[3]) : ptx::cvt_rn_bf16x2(x[2], x[3]);
    if (q == 0) {
      packed.x = low;
      packed.y = high;
    } else {
      packed.z = low;
      packed.w = high;
    }
  }
}

// kCount neighbours of a vector that is read again and again and stays in L1. The address is a
// multiple of 16 bytes, or of the run's where that is shorter.
template <int kCount>
EVENKEEL_DEVICE void load_run(const void* data, FloatType type, uint64_t first,
                              float (&x)[kCount]) {
  static_assert(kCount == 4 || kCount == 8);
  if (type == FloatType::kF32) {
    const float* const address = static_cast<const float*>(data) + first;
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const uint4 four = ptx::load_cached<uint4>(address + i);
      x[i] = __uint_as_float(four.x);
      x[i + 1] = __uint_as_float(four.y);
      x[i + 2] = __uint_as_float(four.z);
      x[i + 3] = __uint_as_float(four.w);
    }
    return;
  }
  const uint16_t* const address = static_cast<const uint16_t*>(data) + first;
  if constexpr (kCount == 8) {
    unpack_unit(ptx::load_cached<uint4>(address), type, x);
  } else {
    const uint2 half = ptx::load_cached<uint2>(address);
    unpack_unit(make_uint4(half.x, half.y, 0, 0), type, x);
  }
}

// One element of a vector.
EVENKEEL_DEVICE float load_element(const void* data, FloatType type, uint64_t index) {
  if (type == FloatType::kF32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return type == FloatType::kF16 ? to_float(f16{bits}) : to_float(bf16{bits});
}

// A unit of a vector of columns; `absent` where there is none, and outside the row. Where units are
// neighbours the host saw to it that the vector's are aligned too.
template <typename Layout>
EVENKEEL_DEVICE void load_columns(const ColumnVector& vector, uint32_t head,
                                  const Columns<Layout>& columns, int unit, float absent,
                                  typename Layout::Unit& x) {
#pragma unroll
  for (int e = 0; e < Layout::kChunk; ++e) x[e] = absent;
  if (vector.data == nullptr || !columns.has(unit)) return;
  if (vector.scalar != 0) {
    const float value = load_element(vector.data, vector.type, 0);
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) x[e] = value;
    return;
  }
  const uint64_t first = static_cast<uint64_t>(head) * static_cast<uint64_t>(vector.head_stride);
  if constexpr (!Layout::kSpread) {
    load_run(vector.data, vector.type, first + columns.at(unit, 0), x);
  } else {
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      const uint32_t at = columns.at(unit, e);
      if (at < columns.end) x[e] = load_element(vector.data, vector.type, first + at);
    }
  }
}

// The same of elements 4q to 4q + 3 of the unit.
template <typename Layout>
EVENKEEL_DEVICE void load_quad(const ColumnVector& vector, uint32_t head,
                               const Columns<Layout>& columns, int unit, int q, float absent,
                               float (&x)[4]) {
  if constexpr (Layout::kChunk == 4) {
    load_columns(vector, head, columns, unit, absent, x);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = absent;
    if (vector.data == nullptr || !columns.has(unit)) return;
    if (vector.scalar != 0) {
      const float value = load_element(vector.data, vector.type, 0);
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = value;
      return;
    }
    const uint64_t first = static_cast<uint64_t>(head) * static_cast<uint64_t>(vector.head_stride);
    load_run(vector.data, vector.type, first + columns.at(unit, 4 * q), x);
  }
}

EVENKEEL_DEVICE int64_t load_integer(const void* values, IntegerType type, int64_t index) {
  switch (type) {
    case IntegerType::kI32:
      return static_cast<const int32_t*>(values)[index];
    case IntegerType::kU32:
      return static_cast<const uint32_t*>(values)[index];
    case IntegerType::kI64:
    default:
      return static_cast<const int64_t*>(values)[index];
  }
}

}  // namespace evenkeel
