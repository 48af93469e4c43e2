// What the normalization kernels are given, mirrored field by field in src/norm/params.rs.
#pragma once

#include "common/rows.h"
#include "common/status.h"

namespace evenkeel {

enum class Pairing : uint32_t { kInterleaved, kHalfSplit };

// A rotary embedding of the first `width` elements of each head.
struct RotaryParams {
  const void* cos;  // [positions, width / 2]
  const void* sin;
  const void* positions;  // [tokens], or null: the token's index
  int64_t position_count;
  FloatType type;
  IntegerType position_type;
  Pairing pairing;
  uint32_t width;
  // Non-zero: runs of a unit's length that begin at a multiple of it, in the halves of a head and
  // in the tables, are aligned for wide accesses.
  uint32_t aligned;
  uint32_t unused;
};

struct NormForwardParams {
  RowGrid grid;
  RowTensor x;
  RowTensor beside;  // the residual, or the gate z
  RowTensor stream;  // x + residual
  RowTensor y;
  ColumnVector gamma;
  ColumnVector beta;
  RotaryParams rotary;
  float* mean;  // [rows], both or either may be null
  float* rstd;
  uint32_t* status;
  float eps;
  float gamma_offset;
  uint32_t normalize;  // zero: a rotary embedding alone
  uint32_t unused;
};

struct NormBackwardParams {
  RowGrid grid;
  RowTensor x;
  RowTensor dy;
  RowTensor dstream;  // added to dx
  RowTensor gate;     // z
  RowTensor dx;
  RowTensor dresidual;  // dx again
  RowTensor dgate;      // dz
  ColumnVector gamma;
  ColumnVector beta;
  RotaryParams rotary;
  const float* mean;
  const float* rstd;
  // Partial sums of the gradients of gamma and beta: [groups * slices, columns] each, or null.
  // Slice s of group g has the rows of every `slices`-th round among those that share the weights
  // g.
  float* dgamma;
  float* dbeta;
  uint32_t* status;
  float gamma_offset;
  uint32_t normalize;
  uint32_t groups;  // 1, or heads: which rows share their weights' gradients
  uint32_t slices;
  Divisor by_slices;
  uint32_t sums_offset;  // of the teams' column sums from the base of shared memory; 0: none there
  uint32_t unused;
};

// out[i] (+)= sum over slices of partial[i / columns][slice][i % columns], or over the columns too.
struct ColumnSumParams {
  const float* partial;  // [groups, slices, columns]
  float* out;            // [groups, columns], or one number a group
  uint32_t groups;
  uint32_t slices;
  uint32_t columns;
  uint32_t accumulate;
};

static_assert(sizeof(RotaryParams) == 56, "src/norm/params.rs mirrors it");
static_assert(sizeof(NormForwardParams) == 304, "src/norm/params.rs mirrors it");
static_assert(sizeof(NormBackwardParams) == 432, "src/norm/params.rs mirrors it");
static_assert(sizeof(ColumnSumParams) == 32, "src/norm/params.rs mirrors it");

}  // namespace evenkeel
