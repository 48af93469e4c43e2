// What the kernels of quantisation are told: plain structs, mirrored field by field in
// src/quant/params.rs.
#pragma once

#include <cstdint>

#include "common/rows.h"

namespace evenkeel {

// What one scale is for, in an output [outer, inner]: all of it (or of a group's), an outer row, a
// tile of 128 x 128, or blocks of 128, 32 or 16 along the inner dimension.
enum class ScaleOf : uint32_t { kTensor, kRow, kTile, k128, k32, k16 };
// How scales are stored: fp32, powers of two, or E4M3 in the unit of the tensor's scale.
enum class ScaleType : uint32_t { kFloat, kE8m0, kE4m3 };

// The quantised matrix and its groups of rows. A tile is 128 x 128 of it; tiles of rows begin where
// a group does.
struct QuantizeGrid {
  const void* offsets;  // [groups + 1] rows at which groups begin; null: one group of all
  uint64_t rows;
  uint64_t columns;
  uint32_t row_tiles;     // ceil(rows / 128), or floor(rows / 128) + groups
  uint32_t column_tiles;  // ceil(columns / 128); half as many where a source makes two
  uint32_t groups;        // 1 without offsets
  IntegerType offset_type;
};

// How values become elements and scales, the same for all outputs of a call.
struct QuantizeForm {
  uint32_t element;  // ElementType
  uint32_t rule;     // ScaleRule
  ScaleOf scale_of;
  ScaleType scale_type;
  uint32_t square;  // blocks of 16 are 16 x 16
  uint32_t power;   // all scales are powers of two
  uint32_t unused[2];
  uint64_t seed;  // of stochastic rounding
  uint64_t offset;
  const int64_t* device_offset;  // added to offset; may be null
  uint32_t* status;
};

// One output, X itself or X^T; absent where data is null. Strides of scales are in scales.
struct QuantizeOutput {
  uint8_t* data;
  int64_t stride;  // bytes from an outer row to the next
  void* scales;
  int64_t scale_outer;    // from an outer row (of a 128 x 128 tile: of 128) to the next
  int64_t scale_block;    // from a block to the next
  uint64_t scale_blocks;  // blocks along the inner dimension
  const uint32_t* amax;   // bits of fp32, found by quant_amax: [groups], [rows], [groups][columns]
  const float* given;     // [groups]: the tensor's scale, in place of its amax
  float* tensor_scale;    // [groups], to be written; may be null
  uint32_t* amax_out;     // [groups], bits of fp32, raised to the amax; may be null
  uint32_t* counts;       // [2]: saturated, underflowed; may be null
  uint32_t rotation;      // 16, 32 or 128 elements; 0 for none
  uint32_t tiled;         // scales lie in tiles of 128 x 4
  uint32_t signs[4];
  uint32_t aligned;  // rows begin at multiples of 16 bytes
  float factor;      // of the rotation: 1 / sqrt(its elements)
};

// What is made of the values.
struct QuantizeOutputs {
  QuantizeOutput rowwise;
  QuantizeOutput transposed;
  // Of element (0, 0) in the numbering of random words, and elements of a row.
  uint64_t first_element;
  uint64_t row_elements;
};

// A matrix in memory. Aligned: every eight elements from a multiple of eight on are whole, and
// begin at a multiple of 16 bytes.
struct DenseInput {
  const void* data;
  int64_t stride;  // elements
  FloatType type;
  uint32_t aligned;
};

struct QuantizeParams {
  QuantizeGrid grid;
  QuantizeForm form;
  QuantizeOutputs outputs;
  DenseInput input;
};

// What quant_amax finds of an output: the amax of each group, row, or group's column.
enum class AmaxOf : uint32_t { kNothing, kTensor, kRows, kColumns };

struct AmaxOutput {
  uint32_t* words;  // bits of fp32, raised
  AmaxOf of;
  uint32_t rotation;
  uint32_t transposed;  // it is X^T, whose rotation is along X's columns
  uint32_t pairs;       // X^T has two elements a byte: groups that begin inside one are left out
  float factor;
  uint32_t unused;
  uint32_t signs[4];
};
struct AmaxOutputs {
  AmaxOutput rowwise;
  AmaxOutput transposed;
};

struct AmaxParams {
  QuantizeGrid grid;
  AmaxOutputs outputs;
  DenseInput input;
  uint32_t* status;
};

// Memory set to zero; `data` at a multiple of 4 bytes.
struct ClearRange {
  uint8_t* data;
  uint64_t bytes;
};
struct ClearParams {
  ClearRange ranges[3];
};

// Elements of no group, and those of groups that X^T leaves out, set to zero.
struct OutsideOutput {
  uint8_t* data;  // null: absent
  int64_t stride;
};
struct OutsideParams {
  QuantizeGrid grid;
  OutsideOutput rowwise;
  OutsideOutput transposed;
  uint32_t bits;  // of an element
  uint32_t unused;
};

static_assert(sizeof(QuantizeGrid) == 40, "src/quant/params.rs mirrors it");
static_assert(sizeof(QuantizeForm) == 64, "src/quant/params.rs mirrors it");
static_assert(sizeof(QuantizeOutput) == 120, "src/quant/params.rs mirrors it");
static_assert(sizeof(QuantizeOutputs) == 256, "src/quant/params.rs mirrors it");
static_assert(sizeof(DenseInput) == 24, "src/quant/params.rs mirrors it");
static_assert(sizeof(AmaxOutput) == 48, "src/quant/params.rs mirrors it");
static_assert(sizeof(QuantizeParams) == 384, "src/quant/params.rs mirrors it");
static_assert(sizeof(AmaxParams) == 168, "src/quant/params.rs mirrors it");
static_assert(sizeof(ClearParams) == 48, "src/quant/params.rs mirrors it");
static_assert(sizeof(OutsideParams) == 80, "src/quant/params.rs mirrors it");

}  // namespace evenkeel
