// What becomes of a product's sums, for all its kernels: kColumns neighbours of a row at a time, in
// the registers of one thread. kColumns is 2 where they come straight from the accumulators of
// mma or wgmma, whose threads hold pairs of columns, and 8 where a kernel has arranged for more.
//
//   v = alpha sum, + bias[n], + beta C[m, n]      kept as the pre-activation, where asked for
//   y = v | GELU(v) | silu(v[2 j]) v[2 j + 1]     its amax raised, rounded once, stored
//
// Traffic: C is read and results are written once, in accesses of kColumns elements; the four
// threads of a quad, side by side, fill whole sectors of 32 bytes from kColumns = 8 on.
//
// Arithmetic in fp32, each operation rounded; product and sum may contract. FP8 results are the
// correctly rounded quotient y / scale, saturated to the largest element; NaN stays NaN.
#pragma once

#include "common/columns.cuh"
#include "common/low_bit.cuh"
#include "matmul/params.h"
#include "quant/activation.cuh"

namespace evenkeel {

// A vector access of 2 to 16 bytes.
template <int kBytes>
EVENKEEL_DEVICE void load_words(const unsigned char* address, uint32_t* words) {
  if constexpr (kBytes >= 16) {
    const uint4 four = ptx::load_global<uint4>(address);
    words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
    if constexpr (kBytes > 16) load_words<kBytes - 16>(address + 16, words + 4);
  } else if constexpr (kBytes == 8) {
    const uint2 two = ptx::load_global<uint2>(address);
    words[0] = two.x, words[1] = two.y;
  } else if constexpr (kBytes == 4) {
    words[0] = *reinterpret_cast<const uint32_t*>(address);
  } else {
    static_assert(kBytes == 2, "elements come in pairs");
    words[0] = *reinterpret_cast<const uint16_t*>(address);
  }
}
template <int kBytes>
EVENKEEL_DEVICE void store_words(unsigned char* address, const uint32_t* words) {
  if constexpr (kBytes >= 16) {
    ptx::store_global(address, make_uint4(words[0], words[1], words[2], words[3]));
    if constexpr (kBytes > 16) store_words<kBytes - 16>(address + 16, words + 4);
  } else if constexpr (kBytes == 8) {
    ptx::store_global(address, make_uint2(words[0], words[1]));
  } else if constexpr (kBytes == 4) {
    *reinterpret_cast<uint32_t*>(address) = words[0];
  } else {
    static_assert(kBytes == 2 || kBytes == 1, "what is left of a word");
    if constexpr (kBytes == 2)
      *reinterpret_cast<uint16_t*>(address) = static_cast<uint16_t>(*words);
    if constexpr (kBytes == 1) *address = static_cast<unsigned char>(*words);
  }
}

EVENKEEL_DEVICE uint32_t output_bytes(OutputType type) {
  return type == OutputType::kF32                                ? 4
         : type == OutputType::kBf16 || type == OutputType::kF16 ? 2
                                                                 : 1;
}
EVENKEEL_DEVICE unsigned char* element_address(const MatmulMatrix& matrix, uint64_t row,
                                               uint64_t column) {
  return static_cast<unsigned char*>(matrix.data) +
         (static_cast<int64_t>(row) * matrix.stride + static_cast<int64_t>(column)) *
             output_bytes(matrix.type);
}

// kColumns neighbours of a row of `columns`, zeros beyond it. Not of FP8.
template <int kColumns>
EVENKEEL_DEVICE void load_columns(const MatmulMatrix& matrix, uint64_t row, uint64_t column,
                                  uint64_t columns, float (&x)[kColumns]) {
  const unsigned char* const address = element_address(matrix, row, column);
  const bool wide = matrix.type == OutputType::kF32;
  uint32_t words[kColumns] = {};
  if (matrix.vectors != 0 && column + kColumns <= columns) {
    if (wide) {
      load_words<4 * kColumns>(address, words);
    } else {
      load_words<2 * kColumns>(address, words);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (column + i >= columns) continue;
      if (wide) {
        words[i] = reinterpret_cast<const uint32_t*>(address)[i];
      } else {
        words[i / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(address)[i])
                        << (16 * (i % 2));
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const uint32_t half = words[i / 2] >> (16 * (i % 2));
    if (wide) {
      x[i] = __uint_as_float(words[i]);
    } else if (matrix.type == OutputType::kBf16) {
      x[i] = __uint_as_float(half << 16);
    } else {
      x[i] = ptx::cvt_f32_f16(static_cast<uint16_t>(half));
    }
  }
}

// Rounds kColumns numbers, quotients where the type is FP8, as neighbours in memory.
template <int kColumns>
EVENKEEL_DEVICE void round_columns(OutputType type, const float (&x)[kColumns],
                                   uint32_t (&words)[kColumns]) {
#pragma unroll
  for (int i = 0; i < kColumns; i += 2) {
    switch (type) {
      case OutputType::kBf16:
        words[i / 2] = ptx::cvt_rn_bf16x2(x[i], x[i + 1]);
        break;
      case OutputType::kF16:
        words[i / 2] = ptx::cvt_rn_f16x2(x[i], x[i + 1]);
        break;
      case OutputType::kF32:
        words[i] = __float_as_uint(x[i]);
        words[i + 1] = __float_as_uint(x[i + 1]);
        break;
      default: {
        const uint32_t pair = type == OutputType::kE4m3
                                  ? ptx::cvt_rn_satfinite_e4m3x2(x[i], x[i + 1])
                                  : ptx::cvt_rn_satfinite_e5m2x2(x[i], x[i + 1]);
        words[i / 4] = i % 4 == 0 ? pair : words[i / 4] | pair << 16;
      }
    }
  }
}

// Rounds and writes kColumns neighbours, those within a row of `columns`.
template <int kColumns>
EVENKEEL_DEVICE void store_columns(const MatmulMatrix& matrix, uint64_t row, uint64_t column,
                                   uint64_t columns, const float (&x)[kColumns]) {
  unsigned char* const address = element_address(matrix, row, column);
  uint32_t words[kColumns] = {};
  round_columns(matrix.type, x, words);
  const uint32_t bytes = output_bytes(matrix.type);
  if (matrix.vectors != 0 && column + kColumns <= columns) {
    if (bytes == 4) {
      store_words<4 * kColumns>(address, words);
    } else if (bytes == 2) {
      store_words<2 * kColumns>(address, words);
    } else {
      store_words<kColumns>(address, words);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    if (column + i >= columns) continue;
    if (bytes == 4) {
      reinterpret_cast<uint32_t*>(address)[i] = words[i];
    } else if (bytes == 2) {
      reinterpret_cast<uint16_t*>(address)[i] =
          static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
    } else {
      address[i] = static_cast<unsigned char>(words[i / 4] >> (8 * (i % 4)));
    }
  }
}

// A thread's part of the epilogue. Made after the main loop: what it loads are a few numbers.
struct Epilogue {
  const MatmulEpilogue& params;
  uint64_t columns;   // N
  MatmulMatrix bias;  // of this group, as a row
  float alpha;
  ScaleDivisor divisor;  // of FP8 results
  float amax = 0.0f;     // of what this thread has computed

  // `bias_row`: the group of rows whose bias it is.
  EVENKEEL_DEVICE Epilogue(const MatmulEpilogue& params, uint64_t columns, uint32_t bias_row)
      : params(params),
        columns(columns),
        bias({nullptr, 0, static_cast<OutputType>(params.bias_type), params.bias_vectors}),
        alpha(params.alpha == nullptr ? 1.0f : *params.alpha),
        divisor({1.0f, 1.0f}) {
    if (is_fp8()) divisor = ScaleDivisor::of(*params.out_scale);
    // Read only, and of no const type as the other matrices are not.
    bias.data = const_cast<void*>(params.bias);
    if (params.bias != nullptr) bias.data = element_address(bias, 0, bias_row * columns);
  }

  EVENKEEL_DEVICE bool is_fp8() const {
    return params.out.type == OutputType::kE4m3 || params.out.type == OutputType::kE5m2;
  }
  EVENKEEL_DEVICE bool is_paired() const { return params.activation == MatmulActivation::kSwiGlu; }

  // Sums become pre-activations; `column`, a multiple of kColumns, is below `columns`.
  template <int kColumns>
  EVENKEEL_DEVICE void pre_activation(uint64_t row, uint64_t column, float (&v)[kColumns]) const {
    if (params.alpha != nullptr) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) v[i] *= alpha;
    }
    if (params.bias != nullptr) {
      float add[kColumns];
      load_columns(bias, 0, column, columns, add);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) v[i] += add[i];
    }
    if (params.c.data != nullptr) {
      float add[kColumns];
      load_columns(params.c, row, column, columns, add);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) v[i] += params.beta * add[i];
    }
  }

  // Pre-activations become results: kColumns, of which SwiGLU leaves the first half.
  template <int kColumns>
  EVENKEEL_DEVICE void activate(float (&v)[kColumns]) const {
    switch (params.activation) {
      case MatmulActivation::kGeluExact:
#pragma unroll
        for (int i = 0; i < kColumns; ++i) v[i] = GeluExact::value(v[i]);
        break;
      case MatmulActivation::kGeluTanh:
#pragma unroll
        for (int i = 0; i < kColumns; ++i) v[i] = GeluTanh::value(v[i]);
        break;
      case MatmulActivation::kSwiGlu:
#pragma unroll
        for (int i = 0; i < kColumns; i += 2) v[i / 2] = swiglu(v[i], v[i + 1]);
        break;
      default:
        break;
    }
  }

  // Notes the largest of results, and divides them where they leave as FP8. Zeros stand for what
  // lies beyond a row, and are not noted.
  template <int kCount>
  EVENKEEL_DEVICE void quantize(uint64_t column, uint64_t end, float (&y)[kCount]) {
    if (params.amax != nullptr) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (column + i < end) amax = larger_finite(amax, y[i]);
      }
    }
    if (is_fp8()) {
      float quotient[kCount];
      divide_by(y, divisor, false, quotient);
#pragma unroll
      for (int i = 0; i < kCount; ++i) y[i] = quotient[i];
    }
  }

  // All of it, for kColumns sums of the result's row `row` from column `column` of the product on.
  template <int kColumns>
  EVENKEEL_DEVICE void store(uint64_t row, uint64_t column, float (&v)[kColumns]) {
    pre_activation(row, column, v);
    if (params.pre.data != nullptr) store_columns(params.pre, row, column, columns, v);
    activate(v);
    if (is_paired()) {
      store_half(row, column, v);
      return;
    }
    quantize(column, columns, v);
    store_columns(params.out, row, column, columns, v);
  }

  template <int kColumns>
  EVENKEEL_DEVICE void store_half(uint64_t row, uint64_t column, const float (&v)[kColumns]) {
    if constexpr (kColumns > 2) {
      float y[kColumns / 2];
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) y[i] = v[i];
      quantize(column / 2, columns / 2, y);
      store_columns(params.out, row, column / 2, columns / 2, y);
    } else {
      float y[1] = {v[0]};
      quantize(column / 2, columns / 2, y);
      const float pair[2] = {y[0], 0.0f};
      // One element of two: never a vector.
      MatmulMatrix out = params.out;
      out.vectors = 0;
      store_columns(out, row, column / 2, column / 2 + 1, pair);
    }
  }

  // Raises the amax, once a warp; all its lanes call it.
  EVENKEEL_DEVICE void finish() const {
    if (params.amax == nullptr) return;
    float most = amax;
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
    }
    if (threadIdx.x % 32 == 0 && most > 0.0f) atomicMax(params.amax, __float_as_uint(most));
  }
};

}  // namespace evenkeel
