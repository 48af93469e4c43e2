// The values of a quantised output [outer, inner]: element x scale, rounded to fp32, then the
// inverse rotation in fp32, then one rounding to what is stored. The mathematics is
// src/reference/quant/dequantize.rs, bit for bit.
//
// Never materialised: fp32 values, scales of elements.
//
// Traffic: one read of elements and scales, one write of the values. At 4.3 TB/s 16384 x 4096 of
// FP8 to bf16 are 201 MB and 47 us, of 4-bit elements 168 MB and 39 us: predictions, nothing of
// this has been measured yet.
//
// Mapping: eight elements of a row a thread, side by side: 8 or 4 bytes in, 16 or 32 out. A
// rotation's block is 2, 4 or 16 neighbouring threads.

#include "common/low_bit.cuh"
#include "quant/hadamard.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/dequantize.rs.
struct DequantizeParams {
  const uint8_t* data;
  int64_t stride;  // bytes
  const void* scales;
  int64_t scale_outer;
  int64_t scale_block;
  uint64_t scale_blocks;
  const float* tensor_scale;  // [groups]; may be null
  const void* offsets;        // [groups + 1]; null: one group
  void* values;
  int64_t value_stride;  // elements
  uint64_t outer;
  uint64_t inner;
  uint64_t rows;  // of the input, whose groups there are
  FloatType type;
  IntegerType offset_type;
  uint32_t groups;
  uint32_t element;
  ScaleOf scale_of;
  ScaleType scale_type;
  uint32_t transposed;
  uint32_t tiled;
  uint32_t rotation;
  float factor;
  uint32_t signs[4];
  uint32_t aligned;        // rows of elements begin at multiples of eight elements' bytes
  uint32_t value_aligned;  // rows of values at multiples of 16 bytes
  uint64_t slots;  // blocks of a rotation that begin where groups do, each visited; 0: all elements
};
static_assert(sizeof(DequantizeParams) == 176, "src/quant/kernels/dequantize.rs mirrors it");

namespace {

// A group of rows of the input; none where `count` is 0.
struct GroupRows {
  uint32_t index;
  uint64_t begin;
  uint64_t count;
};

EVENKEEL_DEVICE uint64_t group_offset(const DequantizeParams& params, uint32_t group) {
  return static_cast<uint64_t>(load_integer(params.offsets, params.offset_type, group));
}

// The group of a row; offsets do not descend.
EVENKEEL_DEVICE GroupRows group_of(const DequantizeParams& params, uint64_t row) {
  if (params.offsets == nullptr) return {0, 0, params.rows};
  if (row < group_offset(params, 0)) return {0, 0, 0};
  uint32_t low = 0;
  uint32_t high = params.groups;
  // The last group that begins at or before the row.
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (group_offset(params, middle) <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint64_t begin = group_offset(params, low);
  const uint64_t end = group_offset(params, low + 1);
  if (row >= end) return {low, 0, 0};
  return {low, begin, end - begin};
}

// The first row of a rotation's block, by slots as scales have them; false where it has no rows,
// fewer than a block, or begins inside a byte.
template <int kBits>
EVENKEEL_DEVICE bool block_of_slot(const DequantizeParams& params, uint64_t slot, uint64_t& row) {
  uint32_t low = 0;
  uint32_t high = params.groups;
  if (group_offset(params, 0) / params.rotation > slot) return false;
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (group_offset(params, middle) / params.rotation + middle <= slot) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint64_t begin = group_offset(params, low);
  if (kBits == 4 && begin % 2 != 0) return false;
  row = begin + (slot - begin / params.rotation - low) * params.rotation;
  return row + params.rotation <= group_offset(params, low + 1);
}

EVENKEEL_DEVICE uint64_t block_of(ScaleOf of) {
  return of == ScaleOf::k16 ? 16 : of == ScaleOf::k32 ? 32 : 128;
}

// The scale of an element of a group, RN(block scale x tensor scale) where there are both.
EVENKEEL_DEVICE float scale_at(const DequantizeParams& params, const GroupRows& group,
                               uint64_t outer, uint64_t inner) {
  if (params.scale_of == ScaleOf::kTensor) return params.tensor_scale[group.index];
  const uint64_t size = block_of(params.scale_of);
  const auto slot = [&](uint64_t row) {
    return group.begin / size + (params.offsets == nullptr ? 0 : group.index) +
           (row - group.begin) / size;
  };
  uint64_t row = outer;
  uint64_t block = inner / size;
  if (params.scale_of == ScaleOf::kRow) {
    block = params.transposed != 0 ? group.index : 0;
  } else if (params.transposed != 0) {
    block = slot(inner);
    if (params.scale_of == ScaleOf::kTile) row = outer / kTile;
  } else if (params.scale_of == ScaleOf::kTile) {
    row = slot(outer);
  }
  const int64_t at = static_cast<int64_t>(row) * params.scale_outer +
                     static_cast<int64_t>(block) * params.scale_block;
  if (params.scale_type == ScaleType::kFloat) return static_cast<const float*>(params.scales)[at];
  const uint8_t* const bytes = static_cast<const uint8_t*>(params.scales);
  const uint64_t tiles = (params.scale_blocks + 3) / 4;
  const uint32_t code = params.tiled == 0
                            ? bytes[at]
                            : bytes[((row / 128) * tiles + block / 4) * 512 + (row % 32) * 16 +
                                    (row % 128) / 32 * 4 + block % 4];
  if (params.scale_type == ScaleType::kE8m0) {
    return code == 0xff ? quiet_nan() : e8m0_value(code);
  }
  return e4m3_value(code) * params.tensor_scale[group.index];
}

template <int kBits>
EVENKEEL_DEVICE float element_value(const DequantizeParams& params, uint32_t code) {
  if constexpr (kBits == 4) return e2m1_value(code);
  return static_cast<ElementType>(params.element) == ElementType::kE4m3 ? e4m3_value(code)
                                                                        : e5m2_value(code);
}

// The inverse: stages, the factor, the signs. Threads of a block of elements are neighbours.
EVENKEEL_DEVICE void unrotate(const DequantizeParams& params, uint32_t at, float (&v)[8]) {
  butterflies(v);
  const uint32_t lane = at / 8;
#pragma unroll 1
  for (uint32_t lanes = 1; 8 * lanes < params.rotation; lanes *= 2) {
    const bool high = (lane & lanes) != 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = lane_butterfly(v[i], static_cast<int>(lanes), high);
  }
  const uint32_t signs = params.signs[at / 32] >> (at % 32);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = flip(v[i] * params.factor, signs, i);
}

template <int kBits>
EVENKEEL_DEVICE void dequantize(const DequantizeParams& params) {
  bool right = true;
  if (params.offsets != nullptr) {
    QuantizeGrid grid = {};
    grid.offsets = params.offsets;
    grid.rows = params.rows;
    grid.groups = params.groups;
    grid.offset_type = params.offset_type;
    uint32_t begun;
    right = check_groups(grid, 0, begun);
  }
  // Every row takes whole sixteens of threads, which exchange.
  const uint64_t length = params.slots > 0 ? params.slots * params.rotation : params.inner;
  const uint64_t parts = (length + 127) / 128 * 16;
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const uint64_t outer = thread / parts;
  uint64_t inner = (thread - outer * parts) * 8;
  const uint32_t in_block =
      params.rotation != 0 ? static_cast<uint32_t>(inner % params.rotation) : 0;
  bool present = outer < params.outer && inner < length;
  if (params.slots > 0) {
    present = present && right && block_of_slot<kBits>(params, inner / params.rotation, inner);
    inner += in_block;
  }
  const bool by_row = params.transposed != 0;
  float v[8] = {};
  GroupRows group = {0, 0, 0};
  if (present) {
    const uint32_t valid =
        static_cast<uint32_t>(min(params.inner - inner, static_cast<uint64_t>(8)));
    const uint8_t* const from = params.data + static_cast<int64_t>(outer) * params.stride +
                                static_cast<int64_t>(inner * kBits / 8);
    uint2 codes = make_uint2(0, 0);
    if (valid == 8 && params.aligned != 0) {
      if constexpr (kBits == 4) {
        codes.x = *reinterpret_cast<const uint32_t*>(from);
      } else {
        codes = ptx::load_global<uint2>(from);
      }
    } else {
#pragma unroll
      for (uint32_t b = 0; b < kBits; ++b) {
        if (b * 8 / kBits >= valid) continue;
        const uint32_t byte = static_cast<uint32_t>(from[b]) << (8 * (b % 4));
        if (b < 4) {
          codes.x |= byte;
        } else {
          codes.y |= byte;
        }
      }
    }
    if (right) group = group_of(params, by_row ? inner : outer);
    float scale = group.count > 0 ? scale_at(params, group, outer, inner) : 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
      if (by_row && right && params.offsets != nullptr && i > 0 && i < valid) {
        // Along the input's rows a group, and with it a block, may begin anywhere.
        const uint64_t row = inner + i;
        if (group.count == 0 || row >= group.begin + group.count) group = group_of(params, row);
        scale = group.count > 0 ? scale_at(params, group, outer, row) : 0.0f;
      }
      const uint32_t code = kBits == 4 ? (codes.x >> (4 * i)) & 15u
                                       : ((i < 4 ? codes.x : codes.y) >> (8 * (i % 4))) & 0xffu;
      // An element of two a byte whose group begins inside a byte is not there.
      const bool left_out = kBits == 4 && by_row && group.begin % 2 != 0;
      const bool there = i < valid && group.count > 0 && !left_out;
      v[i] = there ? element_value<kBits>(params, code) * scale : 0.0f;
    }
  }
  if (params.rotation != 0) unrotate(params, in_block, v);
  if (!present) return;
  const uint32_t valid = static_cast<uint32_t>(min(params.inner - inner, static_cast<uint64_t>(8)));
  const int64_t at =
      static_cast<int64_t>(outer) * params.value_stride + static_cast<int64_t>(inner);
  if (params.type == FloatType::kF32) {
    float* const to = static_cast<float*>(params.values) + at;
    if (valid == 8 && params.value_aligned != 0) {
      ptx::store_global(to, pack(v, float{}));
      ptx::store_global(to + 4, pack(v + 4, float{}));
      return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
      if (i < valid) to[i] = v[i];
    }
    return;
  }
  uint16_t* const to = static_cast<uint16_t*>(params.values) + at;
  const uint4 packed = pack_unit(v, params.type);
  if (valid == 8 && params.value_aligned != 0) {
    ptx::store_global(to, packed);
    return;
  }
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i) {
    if (i < valid) to[i] = static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
  }
}

}  // namespace
}  // namespace evenkeel

#define DEQUANTIZE_KERNELS(K)                                                           \
  K(quant_dequantize_b8, evenkeel::DequantizeParams, 256, 4, (evenkeel::dequantize<8>)) \
  K(quant_dequantize_b4, evenkeel::DequantizeParams, 256, 4, (evenkeel::dequantize<4>))

EVENKEEL_EXPORT(quant_dequantize, DEQUANTIZE_KERNELS)
