// A row of logits seen as a ragged head, 16-byte vectors and a ragged tail, and the two passes over
// it: gather (maximum, sums, the target's logit) and scatter (the gradient).
#pragma once

#include "loss/partial.cuh"
#include "ptx/global.cuh"

namespace evenkeel {

// Where the 16-byte vectors of a row begin and end.
struct RowShape {
  int64_t vectors;
  int head;   // elements before the first vector
  int edges;  // elements outside the vectors: head + tail
};

template <typename T>
EVENKEEL_DEVICE RowShape row_shape(const T* row, int64_t vocab) {
  const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16);
  const int64_t to_boundary = misaligned == 0 ? 0 : (16 - misaligned) / static_cast<int>(sizeof(T));
  const int64_t head = to_boundary < vocab ? to_boundary : vocab;
  const int64_t vectors = (vocab - head) / kVectorElements<T>;
  const int64_t tail = vocab - head - vectors * kVectorElements<T>;
  return {vectors, static_cast<int>(head), static_cast<int>(head + tail)};
}

// The class of the row's `edge`-th element outside the vectors.
template <typename T>
EVENKEEL_DEVICE int64_t edge_column(const RowShape& shape, int edge) {
  return edge < shape.head ? edge : edge + shape.vectors * kVectorElements<T>;
}

// A run of a row's vectors: all of them, or one block's share within a cluster.
struct RowSlice {
  int64_t column;  // class of the first element
  int vectors;
};

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
EVENKEEL_DEVICE uint32_t masked_classes(const uint32_t* class_mask, int64_t column) {
  if (class_mask == nullptr) return 0;
  const uint32_t word = static_cast<uint32_t>(column) / 32;
  const uint32_t shift = static_cast<uint32_t>(column) % 32;
  uint32_t bits = class_mask[word] >> shift;
  // shift is not 0 here, and the last class lies in the next word.
  if (shift + kCount > 32) bits |= class_mask[word + 1] << (32 - shift);
  return bits;
}

// One more vector (or a single edge element) of the row into `part`. kCount elements from class
// `column`; `target_slot` is the target's place among them, or outside 0..kCount.
template <Moments kMoments, int kCount>
EVENKEEL_DEVICE bool gather_elements(const SoftmaxLossParams& params, const float (&raw)[kCount],
                                     int64_t column, int target_slot, RowPartial& part) {
  float z[kCount];
  uint32_t masked = 0;
  if constexpr (kMoments == Moments::kAll) {
    masked = masked_classes<kCount>(params.class_mask, column);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    z[i] = raw[i];
    if constexpr (kMoments == Moments::kAll) {
      z[i] = transform(params, raw[i]);
      if ((masked >> i) & 1u) z[i] = negative_infinity();
      if (z[i] != negative_infinity()) part.sum_z2 += raw[i] * raw[i];
    }
  }
  if (target_slot >= 0 && target_slot < kCount) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i == target_slot) {
        part.target = z[i];
        // fmaxf drops a NaN where partials merge; the sum carries it.
        if (!(z[i] <= kFloatMax)) part.sum = quiet_nan();
        z[i] = negative_infinity();
      }
    }
  }
  float top = z[0];
#pragma unroll
  for (int i = 1; i < kCount; ++i) top = fmaxf(top, z[i]);
  const bool leads = top > part.max;
  if (leads) rebase<kMoments>(part, top);

  float e[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float d = z[i] - part.max;
    e[i] = exp_fast(d);
    if constexpr (kMoments >= Moments::kSome) {
      const bool live = z[i] != negative_infinity();
      part.sum_e2 += e[i] * e[i];
      // e is 0 there; the bound keeps 0 * inf out.
      part.sum_ed += e[i] * fmaxf(d, -1e4f);
      if constexpr (kMoments == Moments::kAll) {
        part.sum_d += live ? d : 0.0f;
        part.unmasked += live ? 1.0f : 0.0f;
      }
    }
  }
  // Pairwise within the vector: fewer roundings in a row than one by one.
#pragma unroll
  for (int width = kCount / 2; width > 0; width /= 2) {
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      if (i < width) e[i] += e[i + width];
    }
  }
  part.sum += e[0];
  return leads;
}

// The lowest class of the vector whose transformed logit is `max`; the target does not compete.
template <Moments kMoments, int kCount>
EVENKEEL_DEVICE uint32_t find_class(const SoftmaxLossParams& params, const float (&raw)[kCount],
                                    int64_t column, int target_slot, float max) {
  uint32_t found = 0xffffffffu;
  uint32_t masked = 0;
  if constexpr (kMoments == Moments::kAll) {
    masked = masked_classes<kCount>(params.class_mask, column);
  }
#pragma unroll
  for (int i = kCount - 1; i >= 0; --i) {
    float z = raw[i];
    if constexpr (kMoments == Moments::kAll) z = transform(params, raw[i]);
    if (((masked >> i) & 1u) == 0 && i != target_slot && z == max)
      found = static_cast<uint32_t>(column + i);
  }
  return found;
}

// First pass over a slice: thread `rank` of `threads`. `load(v)` gives the slice's v-th vector.
template <typename T, Moments kMoments, typename Load>
EVENKEEL_DEVICE RowPartial gather(const SoftmaxLossParams& params, const RowSlice& slice,
                                  int64_t target, int rank, int threads, Load load) {
  constexpr int kCount = kVectorElements<T>;
  constexpr int kInFlight = 4;
  RowPartial part = empty_partial();
  uint4 leader = {};
  int leader_vector = -1;
  // A vocabulary is below 2^31 classes, so places within it fit an int.
  const int target_offset = static_cast<int>(target - slice.column);
  for (int first = rank; first < slice.vectors; first += threads * kInFlight) {
    uint4 packed[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int v = first + k * threads;
      if (v < slice.vectors) packed[k] = load(v);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int v = first + k * threads;
      if (v < slice.vectors) {
        float raw[kCount];
        unpack(packed[k], raw, T{});
        const int offset = v * kCount;
        if (gather_elements<kMoments>(params, raw, slice.column + offset, target_offset - offset,
                                      part)) {
          leader = packed[k];
          leader_vector = v;
        }
      }
    }
  }
  if (params.find_argmax != 0 && leader_vector >= 0) {
    float raw[kCount];
    unpack(leader, raw, T{});
    const int offset = leader_vector * kCount;
    part.argmax =
        find_class<kMoments>(params, raw, slice.column + offset, target_offset - offset, part.max);
  }
  return part;
}

// One element outside the vectors, as a partial of its own.
template <Moments kMoments>
EVENKEEL_DEVICE RowPartial gather_edge(const SoftmaxLossParams& params, float value, int64_t column,
                                       int64_t target) {
  RowPartial part = empty_partial();
  const float raw[1] = {value};
  if (gather_elements<kMoments>(params, raw, column, static_cast<int>(target - column), part)) {
    part.argmax = static_cast<uint32_t>(column);
  }
  return part;
}

// The gradient of a row: dz_j = a p_j + c p_j (log p_j + H) - d, at the target `target_gradient`
// instead, each times the slope of softcap and temperature; + e raw_j.
struct RowCoefficients {
  float max;
  float inverse_sum;
  float log_sum;
  float a;
  float c;
  float d;
  float e;
  float entropy;
  float target_gradient;
  uint32_t zero;   // non-zero: the whole row is 0
  int64_t target;  // negative: the row is not read
};

template <bool kPlain>
EVENKEEL_DEVICE float gradient_element(const SoftmaxLossParams& params, const RowCoefficients& row,
                                       float raw, bool masked, bool is_target) {
  if constexpr (kPlain) {
    const float p = exp_fast(raw - row.max) * row.inverse_sum;
    return is_target ? row.target_gradient : row.a * p;
  }
  if (masked) return 0.0f;
  const float d = transform(params, raw) - row.max;
  const float p = exp_fast(d) * row.inverse_sum;
  float gradient = row.a * p;
  // A masked class (d = -inf) has gradient 0, or NaN in a row that is not finite.
  if (d == negative_infinity()) return gradient;
  gradient += row.c * p * (fmaxf(d - row.log_sum, -1e4f) + row.entropy) - row.d;
  if (is_target) gradient = row.target_gradient;
  return gradient * transform_slope(params, raw) + row.e * raw;
}

// Second pass over a slice: reads the logits again and writes the gradient. `aligned` says whether
// the gradient's elements lie on 16-byte boundaries where the logits' do.
template <typename T, typename G, bool kPlain, typename Load>
EVENKEEL_DEVICE void scatter(const SoftmaxLossParams& params, const RowCoefficients& row,
                             const RowSlice& slice, G* gradient_row, bool aligned, int rank,
                             int threads, Load load) {
  constexpr int kCount = kVectorElements<T>;
  constexpr int kInFlight = 2;
  const int target_offset = static_cast<int>(row.target - slice.column);
  for (int first = rank; first < slice.vectors; first += threads * kInFlight) {
    uint4 packed[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int v = first + k * threads;
      if (v < slice.vectors) packed[k] = load(v);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int v = first + k * threads;
      if (v >= slice.vectors) continue;
      float raw[kCount];
      unpack(packed[k], raw, T{});
      const int offset = v * kCount;
      const int64_t column = slice.column + offset;
      uint32_t masked = 0;
      if constexpr (!kPlain) masked = masked_classes<kCount>(params.class_mask, column);
      float gradient[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        gradient[i] = gradient_element<kPlain>(params, row, raw[i], (masked >> i) & 1u,
                                               target_offset - offset == i);
      }
      G* destination = gradient_row + column;
      if (aligned) {
#pragma unroll
        for (int i = 0; i < kCount; i += kVectorElements<G>) {
          ptx::store_global_16(destination + i, pack(gradient + i, G{}));
        }
      } else {
#pragma unroll
        for (int i = 0; i < kCount; ++i) destination[i] = from_float<G>(gradient[i]);
      }
    }
  }
}

// The second pass over the element at `column`, outside the vectors.
template <typename G, bool kPlain>
EVENKEEL_DEVICE void scatter_edge(const SoftmaxLossParams& params, const RowCoefficients& row,
                                  float value, int64_t column, G* gradient_row) {
  bool masked = false;
  if constexpr (!kPlain) masked = masked_classes<1>(params.class_mask, column) & 1u;
  gradient_row[column] =
      from_float<G>(gradient_element<kPlain>(params, row, value, masked, column == row.target));
}

// Zeros in columns [begin, end) of a gradient row, thread `rank` of `threads`.
template <typename G>
EVENKEEL_DEVICE void fill_zero(G* row, int64_t begin, int64_t end, int rank, int threads) {
  G* const first = row + begin;
  const RowShape shape = row_shape(first, end - begin);
  for (int64_t v = rank; v < shape.vectors; v += threads) {
    ptx::store_global_16(first + shape.head + v * kVectorElements<G>, make_uint4(0, 0, 0, 0));
  }
  if (rank < shape.edges) first[edge_column<G>(shape, rank)] = from_float<G>(0.0f);
}

}  // namespace evenkeel
