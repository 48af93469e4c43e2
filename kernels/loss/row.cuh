// A row of logits seen as a ragged head, 16-byte vectors and a ragged tail; where its vectors are
// read from; and what is done to each logit before the softmax.
#pragma once

#include "common/columns.cuh"
#include "common/element.cuh"
#include "loss/params.h"
#include "loss/partial.cuh"
#include "ptx/global.cuh"

namespace evenkeel {

// Where the 16-byte vectors of a row begin and end. A vocabulary is below 2^31 classes, so places
// within a row fit an int.
struct RowShape {
  int vectors;
  int head;   // elements before the first vector
  int edges;  // elements outside the vectors: head + tail
};

template <typename T>
EVENKEEL_DEVICE RowShape row_shape(const T* row, int64_t columns) {
  constexpr int kElementBytes = static_cast<int>(sizeof(T));
  const int count = static_cast<int>(columns);
  const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16);
  const int to_boundary = misaligned == 0 ? 0 : (16 - misaligned) / kElementBytes;
  const int head = to_boundary < count ? to_boundary : count;
  const int vectors = (count - head) / kVectorElements<T>;
  return {vectors, head, count - vectors * kVectorElements<T>};
}

// The class of the row's `edge`-th element outside the vectors.
template <typename T>
EVENKEEL_DEVICE int edge_column(const RowShape& shape, int edge) {
  return edge < shape.head ? edge : edge + shape.vectors * kVectorElements<T>;
}

// A run of a row's vectors: all of them, or one block's share within a cluster.
struct RowSlice {
  int column;  // class of the first element
  int vectors;
};

// A slice in shared memory. `C` is uint4 for whole vectors, uint2 for halves.
struct SharedVectors {
  static constexpr bool kShared = true;
  const unsigned char* first;

  template <typename C>
  EVENKEEL_DEVICE C load(int index) const {
    return reinterpret_cast<const C*>(first)[index];
  }
};

// A slice in global memory.
struct GlobalVectors {
  static constexpr bool kShared = false;
  const unsigned char* first;

  template <typename C>
  EVENKEEL_DEVICE C load(int index) const {
    return ptx::load_global<C>(first + static_cast<int64_t>(index) * sizeof(C));
  }
};

EVENKEEL_DEVICE float load_per_token(const PerToken& values, int64_t token, float absent) {
  return values.values == nullptr ? absent : values.values[token * values.stride];
}

// Softcap, then temperature; what is infinite stays so, a logit of -inf being a masked class.
EVENKEEL_DEVICE float transform(const SoftmaxLossParams& params, float raw) {
  float z = raw;
  if (params.softcap > 0.0f && fabsf(raw) <= kFloatMax) {
    z = params.softcap * tanhf(raw / params.softcap);
  }
  return z * params.inverse_temperature;
}

// d z / d raw. 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |u|) keeps its bits where tanh is 1.
EVENKEEL_DEVICE float transform_slope(const SoftmaxLossParams& params, float raw) {
  float slope = params.inverse_temperature;
  if (params.softcap > 0.0f) {
    const float e = exp_fast(-2.0f * fabsf(raw / params.softcap));
    slope *= 4.0f * e / ((1.0f + e) * (1.0f + e));
  }
  return slope;
}

// Bit i set: class `column + i` is masked. kCount classes from `column`, all in the vocabulary.
template <int kCount>
EVENKEEL_DEVICE uint32_t masked_classes(const uint32_t* class_mask, int column) {
  if (class_mask == nullptr) return 0;
  const uint32_t word = static_cast<uint32_t>(column) / 32;
  const uint32_t shift = static_cast<uint32_t>(column) % 32;
  uint32_t bits = class_mask[word] >> shift;
  // shift is not 0 here, and the last class lies in the next word.
  if (shift + kCount > 32) bits |= class_mask[word + 1] << (32 - shift);
  return bits;
}

}  // namespace evenkeel
