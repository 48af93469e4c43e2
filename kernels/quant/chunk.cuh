// How threads of element-wise kernels move a few neighbours of a row.
//
// A chunk is kCount neighbours: 8 where what is read is of 16 bits, 4 as soon as some of it is f32,
// so that both are loads of 16 bytes. Where rows do not begin and end on the boundary of a chunk
// (kSpread) the elements move one by one, and a chunk may have fewer.
#pragma once

#include "common/element.cuh"
#include "common/rows.h"
#include "platform/platform.h"
#include "ptx/global.cuh"

namespace evenkeel {

template <int kCount_, bool kSpread_>
struct Chunk {
  static constexpr int kCount = kCount_;
  static constexpr bool kSpread = kSpread_;
  static_assert(kCount == 4 || (kCount == 8 && !kSpread));

  // Packed in its type: 8 of 16 bits, or 4 of any.
  EVENKEEL_DEVICE static uint4 fetch(const RowTensor& matrix, uint64_t element, uint32_t present) {
    if constexpr (!kSpread) {
      if (present == 0) return make_uint4(0, 0, 0, 0);
      if (kCount == 4 && matrix.type == FloatType::kF32) {
        return ptx::load_global<uint4>(static_cast<const float*>(matrix.data) + element);
      }
      const uint16_t* const address = static_cast<const uint16_t*>(matrix.data) + element;
      if constexpr (kCount == 8) {
        return ptx::load_global<uint4>(address);
      } else {
        const uint2 half = ptx::load_global<uint2>(address);
        return make_uint4(half.x, half.y, 0, 0);
      }
    } else {
      uint32_t words[4] = {};
#pragma unroll
      for (uint32_t e = 0; e < kCount; ++e) {
        if (e >= present) continue;
        if (matrix.type == FloatType::kF32) {
          words[e] = static_cast<const uint32_t*>(matrix.data)[element + e];
        } else {
          const uint32_t bits = static_cast<const uint16_t*>(matrix.data)[element + e];
          words[e / 2] |= e % 2 == 0 ? bits : bits << 16;
        }
      }
      return make_uint4(words[0], words[1], words[2], words[3]);
    }
  }

  EVENKEEL_DEVICE static void unpack(uint4 packed, FloatType type, float (&x)[kCount]) {
    if constexpr (kCount == 8) {
      if (type == FloatType::kF16) {
        evenkeel::unpack(packed, x, f16{});
      } else {
        evenkeel::unpack(packed, x, bf16{});
      }
    } else if (type == FloatType::kF32) {
      evenkeel::unpack(packed, x, float{});
    } else if (type == FloatType::kF16) {
      evenkeel::unpack(make_uint2(packed.x, packed.y), x, f16{});
    } else {
      evenkeel::unpack(make_uint2(packed.x, packed.y), x, bf16{});
    }
  }

  // Rounded once, to the matrix's type, whatever that is.
  EVENKEEL_DEVICE static void store(const RowTensor& matrix, uint64_t element, uint32_t present,
                                    const float (&x)[kCount]) {
    if (present == 0) return;
    if (matrix.type == FloatType::kF32) {
      float* const to = static_cast<float*>(matrix.data) + element;
#pragma unroll
      for (uint32_t e = 0; e < kCount; e += kSpread ? 1 : 4) {
        if constexpr (kSpread) {
          if (e < present) to[e] = x[e];
        } else {
          ptx::store_global(to + e, pack(x + e, float{}));
        }
      }
      return;
    }
    uint32_t words[kCount / 2];
#pragma unroll
    for (int w = 0; w < kCount / 2; ++w) {
      words[w] = matrix.type == FloatType::kF16 ? ptx::cvt_rn_f16x2(x[2 * w], x[2 * w + 1])
                                                : ptx::cvt_rn_bf16x2(x[2 * w], x[2 * w + 1]);
    }
    uint16_t* const to = static_cast<uint16_t*>(matrix.data) + element;
    if constexpr (kSpread) {
#pragma unroll
      for (uint32_t e = 0; e < kCount; ++e) {
        if (e >= present) continue;
        to[e] = static_cast<uint16_t>(e % 2 == 0 ? words[e / 2] : words[e / 2] >> 16);
      }
    } else if constexpr (kCount == 8) {
      ptx::store_global(to, make_uint4(words[0], words[1], words[2], words[3]));
    } else {
      ptx::store_global(to, make_uint2(words[0], words[1]));
    }
  }
};

}  // namespace evenkeel
