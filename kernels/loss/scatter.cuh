// The second pass over a row: its gradient.
#pragma once

#include "loss/row.cuh"

namespace evenkeel {

// The gradient of a row: dz_j = a p_j + c p_j (log p_j + H) - d, at the target `target_gradient`
// instead, each times the slope of softcap and temperature; + e raw_j.
struct RowCoefficients {
  float max;
  float inverse_sum;
  float log_sum;
  float a_over_sum;  // a / S: of exp(z_j - m)
  float c;
  float d;
  float e;
  float entropy;
  float target_gradient;
  uint32_t zero;   // non-zero: the whole row is 0
  int64_t target;  // negative: the row is not read
};

// The gradient of one logit. kPlain: c, d and e are 0 and the logits are not transformed.
template <bool kPlain>
EVENKEEL_DEVICE float gradient_element(const SoftmaxLossParams& params, const RowCoefficients& row,
                                       float raw, bool masked, bool is_target) {
  if constexpr (kPlain) {
    return is_target ? row.target_gradient : row.a_over_sum * exp_fast(raw - row.max);
  }
  if (masked) return 0.0f;
  const float d = transform(params, raw) - row.max;
  const float e = exp_fast(d);
  float gradient = row.a_over_sum * e;
  // A masked class (d = -inf) has gradient 0, or NaN in a row that is not finite.
  if (d == negative_infinity()) return gradient;
  const float p = e * row.inverse_sum;
  gradient += row.c * p * (fmaxf(d - row.log_sum, -1e4f) + row.entropy) - row.d;
  if (is_target) gradient = row.target_gradient;
  return gradient * transform_slope(params, raw) + row.e * raw;
}

// The registers that hold so many bytes.
template <int kBytes>
struct ChunkOf;
template <>
struct ChunkOf<8> {
  using Type = uint2;
};
template <>
struct ChunkOf<16> {
  using Type = uint4;
};

// Thread `rank` of `threads` over a slice: reads the logits again and writes the gradient.
// kAligned: the gradient's elements lie on 16-byte boundaries where the logits' do.
//
// A thread takes the logits of one 16-byte store at a time, so that a warp's stores are consecutive
// where the gradient's elements are wider than the logits' too.
template <typename T, typename G, bool kPlain, bool kAligned, typename Source>
EVENKEEL_DEVICE void scatter_vectors(const SoftmaxLossParams& params, const RowCoefficients& row,
                                     const RowSlice& slice, G* gradient_row, int rank, int threads,
                                     Source source) {
  constexpr int kCount = kVectorElements<G>;
  using Chunk = typename ChunkOf<kCount * sizeof(T)>::Type;
  // Latency of shared memory is short; global memory wants more bytes on the way.
  constexpr int kInFlight = Source::kShared ? 2 : 4;
  const int chunks = slice.vectors * (kVectorElements<T> / kCount);
  const int target_offset = static_cast<int>(row.target) - slice.column;
  const int target_chunk = target_offset >= 0 ? target_offset / kCount : -1;

  const auto scatter_one = [&](Chunk packed, int v) {
    float raw[kCount];
    unpack(packed, raw, T{});
    const int column = slice.column + v * kCount;
    uint32_t masked = 0;
    if constexpr (!kPlain) masked = masked_classes<kCount>(params.class_mask, column);
    float gradient[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      gradient[i] = gradient_element<kPlain>(params, row, raw[i], (masked >> i) & 1u, false);
    }
    if (v == target_chunk) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (column + i == static_cast<int>(row.target)) {
          gradient[i] = gradient_element<kPlain>(params, row, raw[i], (masked >> i) & 1u, true);
        }
      }
    }
    G* const destination = gradient_row + column;
    if constexpr (kAligned) {
      ptx::store_global(destination, pack(gradient, G{}));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) destination[i] = from_float<G>(gradient[i]);
    }
  };

  const int step = threads * kInFlight;
  int first = rank;
  for (; first + step - threads < chunks; first += step) {
    Chunk packed[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      packed[k] = source.template load<Chunk>(first + k * threads);
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) scatter_one(packed[k], first + k * threads);
  }
  for (; first < chunks; first += threads) scatter_one(source.template load<Chunk>(first), first);
}

template <typename T, typename G, bool kPlain, typename Source>
EVENKEEL_DEVICE void scatter(const SoftmaxLossParams& params, const RowCoefficients& row,
                             const RowShape& shape, const RowSlice& slice, G* gradient_row,
                             int rank, int threads, Source source) {
  if (reinterpret_cast<uintptr_t>(gradient_row + shape.head) % 16 == 0) {
    scatter_vectors<T, G, kPlain, true>(params, row, slice, gradient_row, rank, threads, source);
  } else {
    scatter_vectors<T, G, kPlain, false>(params, row, slice, gradient_row, rank, threads, source);
  }
}

// The element at `column`, outside the vectors.
template <typename G, bool kPlain>
EVENKEEL_DEVICE void scatter_edge(const SoftmaxLossParams& params, const RowCoefficients& row,
                                  float value, int column, G* gradient_row) {
  bool masked = false;
  if constexpr (!kPlain) masked = masked_classes<1>(params.class_mask, column) & 1u;
  gradient_row[column] =
      from_float<G>(gradient_element<kPlain>(params, row, value, masked, column == row.target));
}

// Zeros in columns [begin, end) of a gradient row, thread `rank` of `threads`.
template <typename G>
EVENKEEL_DEVICE void fill_zero(G* row, int64_t begin, int64_t end, int rank, int threads) {
  if (begin >= end) return;
  G* const first = row + begin;
  const RowShape shape = row_shape(first, end - begin);
  G* const middle = first + shape.head;
  for (int v = rank; v < shape.vectors; v += threads) {
    ptx::store_global(middle + static_cast<int64_t>(v) * kVectorElements<G>,
                      make_uint4(0, 0, 0, 0));
  }
  if (rank < shape.edges) first[edge_column<G>(shape, rank)] = from_float<G>(0.0f);
}

}  // namespace evenkeel
