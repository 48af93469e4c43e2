// What the kernels of products are told of operands, groups and results: plain structs, mirrored
// field by field in src/matmul/params.rs.
#pragma once

#include <cstdint>

#include "common/rows.h"

namespace evenkeel {

enum class OperandType : uint32_t { kBf16, kF16, kE4m3, kE5m2 };
// What a scale of an operand [rows, K] is for: all of it (or of a group's), a row, 128 of K in a
// row, 128 x 128, or 32 of K in a row. The last are E8M0 bytes, the others fp32.
enum class OperandScale : uint32_t { kNone, kTensor, kRow, k1x128, k128x128, k1x32 };

// An operand [rows, K], the contraction contiguous. The scale of row r, block b of K, group g is
// scales[r * scale_row + b * scale_block + g * scale_group], of a tensor without the first two.
// - Groups of B's rows: r = g N + n; of 128 x 128 floor(g N / 128) + n / 128 takes its place.
// - Groups of K: blocks begin where groups do, block b of the group that begins at k has place
//   floor(k / size) + g + b.
struct MatmulOperand {
  const void* data;
  int64_t stride;  // bytes from a row to the next
  const void* scales;
  int64_t scale_row;
  int64_t scale_block;
  int64_t scale_group;
  OperandType type;
  OperandScale scale;
};

// What offsets divide: nothing; rows of A and of the result, each group with rows g N to (g + 1) N
// of B; or the contraction of both operands, each group with rows g M to (g + 1) M of the result.
enum class Grouping : uint32_t { kNone, kRows, kContraction };

struct MatmulShape {
  const void* offsets;  // [groups + 1], or null
  uint64_t m;           // rows of A
  uint64_t n;           // columns of the product: rows of B, or of each group's B
  uint64_t k;
  uint32_t groups;  // 1 without offsets
  Grouping grouping;
  IntegerType offset_type;
  uint32_t unused;
};

// Types of results; the first three are FloatType's.
enum class OutputType : uint32_t { kBf16, kF16, kF32, kE4m3, kE5m2 };

// A matrix of the result's rows; absent where data is null. Vectors: every eight columns of the
// product (four of the result of SwiGLU) from a multiple of eight on begin at a multiple of their
// size, or of 16 bytes where they are more.
struct MatmulMatrix {
  void* data;
  int64_t stride;  // elements from a row to the next
  OutputType type;
  uint32_t vectors;
};

enum class MatmulActivation : uint32_t { kNone, kGeluExact, kGeluTanh, kSwiGlu };

// v = alpha sum, + bias[n], + beta C[m, n]: the pre-activation; y = activation(v); the amax of y; y
// rounded. SwiGLU makes one column of two: y[m, j] = silu(v[m, 2 j]) v[m, 2 j + 1].
struct MatmulEpilogue {
  const float* alpha;      // null: 1
  const float* out_scale;  // of FP8 results: element = y / scale
  uint32_t* amax;          // bits of fp32, raised to the largest finite |y|; may be null
  const void* bias;        // [N], of groups of rows [groups N]; may be null
  MatmulMatrix out;
  MatmulMatrix pre;  // may be absent
  MatmulMatrix c;    // may be absent, and may be `out`
  float beta;
  FloatType bias_type;
  MatmulActivation activation;
  uint32_t bias_vectors;  // as MatmulMatrix has it
};

static_assert(sizeof(MatmulOperand) == 56, "src/matmul/params.rs mirrors it");
static_assert(sizeof(MatmulShape) == 48, "src/matmul/params.rs mirrors it");
static_assert(sizeof(MatmulMatrix) == 24, "src/matmul/params.rs mirrors it");
static_assert(sizeof(MatmulEpilogue) == 120, "src/matmul/params.rs mirrors it");

}  // namespace evenkeel
