// What the softmax kernels are given, mirrored field by field in
// src/norm/kernels/softmax_params.rs.
#pragma once

#include "common/rows.h"
#include "common/status.h"

namespace evenkeel {

enum class SoftmaxKind : uint32_t { kSoftmax, kLogSoftmax, kStableMax };

// How many keys a row sees, from the first on: those up to query + causal_offset, and those below
// its batch's length.
struct RowMask {
  const void* lengths;    // [batches], or null
  int64_t causal_offset;  // from -2^62 to 2^62, which stands for no mask
  Divisor by_queries;
  Divisor by_batch_rows;
  uint32_t queries;
  IntegerType length_type;
};

struct SoftmaxForwardParams {
  RowGrid grid;
  RowTensor x;
  RowTensor y;
  RowMask mask;
  float* entropy;     // [rows], or null
  float* normalizer;  // [rows], or null
  uint32_t* status;
  float scale;
  SoftmaxKind kind;
};

struct SoftmaxBackwardParams {
  RowGrid grid;
  RowTensor y;
  RowTensor dy;
  RowTensor dx;
  RowMask mask;
  const float* dentropy;    // [rows], or null
  const float* normalizer;  // [rows], for StableMax
  uint32_t* status;
  float scale;
  SoftmaxKind kind;
};

static_assert(sizeof(RowMask) == 40, "src/norm/kernels/softmax_params.rs mirrors it");
static_assert(sizeof(SoftmaxForwardParams) == 168, "src/norm/kernels/softmax_params.rs mirrors it");
static_assert(sizeof(SoftmaxBackwardParams) == 200,
              "src/norm/kernels/softmax_params.rs mirrors it");

}  // namespace evenkeel
