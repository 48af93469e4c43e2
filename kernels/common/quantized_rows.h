// What a kernel over rows is told of where it writes them quantised: mirrored in
// src/rows/quantized.rs.
#pragma once

#include <cstdint>

namespace evenkeel {

// What a scale is for: all rows (and then it is given), a row, or a block of a row's columns.
enum class ScaleOf : uint32_t { kTensor, kRow, kBlock };
enum class ScaleType : uint32_t { kF32, kE8m0, kE4m3 };
// The layouts of ScaleLayout, src/quant/format.rs.
enum class ScalePlace : uint32_t { kRowMajor, kColumnMajor, kTiled128x4 };

enum class ElementType : uint32_t;
enum class ScaleRule : uint32_t;

// Rows of heads lie side by side: row r is head r % heads of the output's row r / heads. The
// elements' memory is a RowTensor beside this, its strides in elements.
struct QuantizedRows {
  void* scales;                  // of rows or blocks; null where there are none
  const float* given;            // the tensor's scale, or null
  float* tensor_scale;           // gets a copy of it, or null
  uint32_t* amax;                // raised to the largest magnitude, as the bits of an f32; or null
  uint32_t* counts;              // saturated and underflowed elements are added; or null
  const int64_t* device_offset;  // added to the offset, or null
  uint64_t seed;                 // of stochastic rounding
  uint64_t offset;
  uint32_t outer;        // the output's rows
  uint32_t blocks;       // of an output's row, 0 where scales belong to no blocks
  uint32_t head_blocks;  // of one head
  uint32_t block;        // columns of a block: 16, 32 or 128
  ElementType element;
  ScaleOf scale_of;
  ScaleType scale_type;
  ScaleRule rule;
  ScalePlace place;
  uint32_t stochastic;
};

static_assert(sizeof(QuantizedRows) == 104, "src/rows/quantized.rs mirrors it");

}  // namespace evenkeel
