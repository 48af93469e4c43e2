// What the softmax-loss kernels are given: one plain struct by value, mirrored field by field in
// src/loss/params.rs. Null pointers stand for absent tensors. Strides are in elements.
#pragma once

#include <cstdint>

#include "common/rows.h"
#include "common/status.h"

namespace evenkeel {

enum class Objective : uint32_t { kNll, kLinear, kPower, kDft, kFocal, kPoly1, kGce, kDeft };
enum class ThresholdSide : uint32_t { kNone, kAbove, kBelow };

// How much of a row the first pass gathers.
enum class Moments : uint32_t {
  kNone,  // maximum and sum of exponentials
  kSome,  // + sums of e^2 and e*d: entropy, sum of p^2
  kAll,   // + softcap, temperature, class mask, sums of d and z^2, count
};

// What backward needs of a row; the same eight floats on every device.
struct RowState {
  float max;          // m, of the transformed logits; NaN marks a row that is not finite
  float log_sum;      // log S
  float lp;           // log p of the target
  float one_minus_p;  // S_o / S
  float entropy;      // H (0 when not gathered)
  float sum_p2;       // sum of p^2 (0 when not gathered)
  float unmasked;     // V', the classes not masked (0 when not gathered)
  float kept;         // 1 when the threshold keeps the token, else 0
};

// A scalar for all tokens (stride 0) or one a token (stride 1); null: `absent`, stated at each use.
struct PerToken {
  const float* values;
  int64_t stride;
};

struct SoftmaxLossParams {
  const void* logits;          // [tokens, vocab]
  void* gradient;              // [tokens, vocab_padded], or null: forward only
  const void* targets;         // [tokens]
  const uint32_t* class_mask;  // [ceil(vocab / 32)], bit set: the class is masked
  PerToken token_weight;       // absent: 1
  PerToken scale;              // of a token's loss in the reduced loss; absent: 1
  PerToken upstream_loss;      // absent: `absent_upstream`
  PerToken upstream_lp;        // absent: 0
  PerToken upstream_entropy;   // absent: 0
  PerToken upstream_lse;       // absent: 0
  float* loss;                 // all of these: [tokens]
  float* lse;
  float* lp;
  float* p;
  float* entropy;
  float* sum_p2;
  float* el2n;
  int32_t* argmax;
  uint8_t* correct;
  uint8_t* kept;
  uint8_t* flags;   // RowFlag bits, for the reduction
  RowState* state;  // [tokens]; written by forward, read by backward
  uint32_t* status;
  int64_t tokens;
  int64_t vocab;
  int64_t vocab_padded;
  int64_t logits_stride;
  int64_t gradient_stride;
  int64_t ignore_index;
  Objective objective;
  ThresholdSide threshold_side;
  IntegerType target_type;
  Moments moments;
  float objective_parameter;
  float tau;
  float softcap;  // 0: none
  float inverse_temperature;
  float z_loss;
  float label_smoothing;
  float entropy_weight;
  float spectral_decoupling;
  uint32_t find_argmax;   // non-zero: argmax or correct is asked for
  uint32_t from_state;    // non-zero: backward from `state`, no first pass
  uint32_t stages;        // cluster kernel: rows in flight
  uint32_t stage_bytes;   // cluster kernel: shared memory of one stage's row slice
  float absent_upstream;  // 1 in forward, 0 in backward
  uint32_t unused;
};

enum RowFlag : uint8_t { kRowValid = 1, kRowKept = 2, kRowCorrect = 4 };

struct SoftmaxReduceParams {
  const void* targets;          // [tokens]
  const void* offsets;          // [sequences + 1], or null
  const float* tokens_divisor;  // one float on the device, or null: `host_divisor`
  const float* loss;            // [tokens]
  const uint8_t* flags;         // [tokens]
  const RowState* state;        // [tokens]: of backward, whose Kept denominator it knows
  const float* upstream;        // one float, or null: 1
  float* scale;                 // 1 float, or [tokens] with sequences; null: 1
  float* reduced_loss;          // one float
  uint32_t* counts;             // valid, kept, correct
  float* gradient_scale;        // Kept: upstream / kept, or null
  uint32_t* status;
  int64_t tokens;
  int64_t sequences;
  int64_t ignore_index;
  IntegerType target_type;
  IntegerType offset_type;
  uint32_t denominator;  // Denominator, below
  float host_divisor;
};

enum Denominator : uint32_t { kSum, kValid, kKept, kTokens, kSequence };

// gradient[t, :] *= factor for the rows that were kept.
struct ScaleGradientParams {
  void* gradient;
  const float* factor;
  const uint8_t* kept;  // [tokens], non-zero: the row is scaled
  int64_t tokens;
  int64_t vocab;
  int64_t stride;
};

static_assert(sizeof(SoftmaxLossParams) == 352, "src/loss/params.rs mirrors it");
static_assert(sizeof(SoftmaxReduceParams) == 136, "src/loss/params.rs mirrors it");
static_assert(sizeof(ScaleGradientParams) == 48, "src/loss/params.rs mirrors it");

}  // namespace evenkeel
