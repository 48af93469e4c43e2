// Units of 8 neighbouring columns, in registers as they lie in memory: what element-wise kernels
// move. Where a tensor's rows and their length lie on the unit's boundary, a unit of 16-bit
// elements is one access of 16 bytes and one of f32 two; elsewhere its elements move one by one,
// and those beyond the row are zeros.
#pragma once

#include "common/element.cuh"
#include "common/rows.h"
#include "ptx/global.cuh"

namespace evenkeel {

inline constexpr int kUnit = 8;

// Mirrored in src/quant/kernels/activation.rs.
struct UnitTensor {
  void* data;
  FloatType type;
  uint32_t aligned;  // whether units move as vectors
  uint64_t stride;   // from row to row, in elements
};
static_assert(sizeof(UnitTensor) == 24, "src/quant/kernels/activation.rs mirrors it");

// The second half is of f32 alone.
struct RawUnit {
  uint4 low;
  uint4 high;
};

EVENKEEL_DEVICE unsigned char* unit_address(const UnitTensor& tensor, uint32_t row,
                                            uint32_t column) {
  const uint64_t element = static_cast<uint64_t>(row) * tensor.stride + column;
  return static_cast<unsigned char*>(tensor.data) +
         element * (tensor.type == FloatType::kF32 ? 4 : 2);
}

// One element of any type.
EVENKEEL_DEVICE float load_element(const UnitTensor& tensor, uint64_t row, uint64_t column) {
  const uint64_t at = row * tensor.stride + column;
  switch (tensor.type) {
    case FloatType::kBf16:
      return to_float(static_cast<const bf16*>(tensor.data)[at]);
    case FloatType::kF16:
      return to_float(static_cast<const f16*>(tensor.data)[at]);
    default:
      return static_cast<const float*>(tensor.data)[at];
  }
}

// The unit at a row and column that are within.
EVENKEEL_DEVICE RawUnit fetch_unit(const UnitTensor& tensor, uint32_t row, uint32_t column,
                                   uint32_t columns) {
  const unsigned char* const address = unit_address(tensor, row, column);
  const bool wide = tensor.type == FloatType::kF32;
  RawUnit unit = {};
  if (tensor.aligned != 0) {
    unit.low = ptx::load_global<uint4>(address);
    if (wide) unit.high = ptx::load_global<uint4>(address + 16);
    return unit;
  }
  uint32_t words[kUnit] = {};
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (column + e >= columns) continue;
    if (wide) {
      words[e] = reinterpret_cast<const uint32_t*>(address)[e];
    } else {
      const uint32_t bits = reinterpret_cast<const uint16_t*>(address)[e];
      words[e / 2] |= e % 2 == 0 ? bits : bits << 16;
    }
  }
  unit.low = make_uint4(words[0], words[1], words[2], words[3]);
  unit.high = make_uint4(words[4], words[5], words[6], words[7]);
  return unit;
}

EVENKEEL_DEVICE void unpack_unit(const RawUnit& unit, FloatType type, float (&values)[kUnit]) {
  switch (type) {
    case FloatType::kBf16:
      unpack(unit.low, values, bf16{});
      break;
    case FloatType::kF16:
      unpack(unit.low, values, f16{});
      break;
    default: {
      const uint4 halves[2] = {unit.low, unit.high};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float four[4];
        unpack(halves[h], four, 0.0f);
#pragma unroll
        for (int e = 0; e < 4; ++e) values[4 * h + e] = four[e];
      }
    }
  }
}

// Rounds a unit, and writes what of it is within the row.
EVENKEEL_DEVICE void store_unit(const UnitTensor& tensor, uint32_t row, uint32_t column,
                                uint32_t columns, const float (&values)[kUnit]) {
  unsigned char* const address = unit_address(tensor, row, column);
  const bool wide = tensor.type == FloatType::kF32;
  uint4 low;
  uint4 high = make_uint4(0, 0, 0, 0);
  if (wide) {
    low = pack(values, 0.0f);
    high = pack(values + 4, 0.0f);
  } else if (tensor.type == FloatType::kBf16) {
    low = pack(values, bf16{});
  } else {
    low = pack(values, f16{});
  }
  if (tensor.aligned != 0) {
    ptx::store_global(address, low);
    if (wide) ptx::store_global(address + 16, high);
    return;
  }
  const uint32_t words[kUnit] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (column + e >= columns) continue;
    if (wide) {
      reinterpret_cast<uint32_t*>(address)[e] = words[e];
    } else {
      reinterpret_cast<uint16_t*>(address)[e] =
          static_cast<uint16_t>(e % 2 == 0 ? words[e / 2] : words[e / 2] >> 16);
    }
  }
}

}  // namespace evenkeel
