// What kernels over rows are told of their tensors and of their shape: plain structs, mirrored
// field by field in src/rows/params.rs. Strides are in elements; a null `data` stands for an absent
// tensor.
#pragma once

#include <cstdint>

namespace evenkeel {

enum class FloatType : uint32_t { kBf16, kF16, kF32 };
enum class IntegerType : uint32_t { kI64, kI32, kU32 };

// Rows of a tensor: row r is head r % heads of token r / heads. A matrix has one head.
struct RowTensor {
  void* data;
  int64_t token_stride;
  int64_t head_stride;
  FloatType type;
  uint32_t unused;
};

// One number for each column, the same for all rows (head_stride 0) or for each head its own; or
// one number for all columns.
struct ColumnVector {
  const void* data;
  int64_t head_stride;
  FloatType type;
  uint32_t scalar;  // non-zero: one number for all columns
};

// Division by a number that the host knows: (umulhi(n, magic) + n) >> shift, for n below 2^31.
struct Divisor {
  uint32_t magic;
  uint32_t shift;
};

struct RowGrid {
  uint32_t rows;  // below 2^31
  uint32_t columns;
  uint32_t heads;
  Divisor by_heads;
  uint32_t threads;   // of a block that share a row: a power of two up to 32, or a multiple of it
  uint32_t segments;  // how often a thread's units go round to cover a row
  uint32_t unused;
};

static_assert(sizeof(RowTensor) == 32, "src/rows/params.rs mirrors it");
static_assert(sizeof(ColumnVector) == 24, "src/rows/params.rs mirrors it");
static_assert(sizeof(RowGrid) == 32, "src/rows/params.rs mirrors it");

}  // namespace evenkeel
