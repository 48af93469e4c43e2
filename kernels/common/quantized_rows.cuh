// A store policy (norm/store.cuh) that quantises rows as they leave: elements of 8 or 4 bits under
// a given scale of the tensor, a scale for each row, or one for each block of columns. The
// mathematics is src/reference/quant/, of the rows' values in fp32, bit for bit.
//
// Never materialised: the rows in a wider type. A row is read no more often for it: its values are
// computed again from the registers that hold it where a scale must be known first.
//
// Mapping. A unit of neighbouring columns lies within one block, and a block is a run of
// neighbouring lanes of one unit: 16, 32 or 128 columns are 2, 4 or 16 lanes of units of 8, and 4,
// 8 or 32 of units of 4, which find its largest magnitude by shuffles. So it is where a team's
// threads cover a multiple of the block's columns with one unit. In shorter teams a block reaches
// over several units, and where units are spread (common/columns.cuh) each element of a unit lies
// in another block: there the largest magnitudes go through shared memory, a word a block.
//
// The loops over units are not unrolled: the code of a unit is long, and registers are chosen by
// number (unit_of).
#pragma once

#include "common/low_bit.cuh"
#include "common/quantized_rows.h"
#include "common/status.h"
#include "common/team.cuh"

namespace evenkeel {

// The largest finite magnitude.
struct Largest {
  float value;

  EVENKEEL_DEVICE static Largest empty() { return {0.0f}; }
  EVENKEEL_DEVICE static Largest merge(Largest a, Largest b) { return {fmaxf(a.value, b.value)}; }
};

template <typename Layout>
class StoreQuantized {
 public:
  static constexpr bool kLooks = true;
  static constexpr int kChunk = Layout::kChunk;

  // `shared`: block_words() words for each team of the block.
  EVENKEEL_DEVICE StoreQuantized(const QuantizedRows& to, const RowGrid& grid, uint32_t* shared)
      : to_(to), shared_(shared), width_(grid.columns) {
    divisor_ = {1.0f, 1.0f};
    if (to.given != nullptr) divisor_ = ScaleDivisor::of(*to.given);
    apart_ = to.scale_of == ScaleOf::kBlock &&
             (Layout::kSpread || grid.threads * kChunk % to.block != 0);
  }

  // Words of shared memory for each team: one for each block that a segment may touch.
  EVENKEEL_DEVICE static uint32_t block_words(const QuantizedRows& to, uint32_t threads) {
    if (to.scale_of != ScaleOf::kBlock) return 0;
    return (threads * Layout::kColumns + to.block - 1) / to.block;
  }

  // Whether it must see all of a row before it stores any of it.
  EVENKEEL_DEVICE bool looks() const { return to_.scale_of == ScaleOf::kRow; }

  template <typename Value>
  EVENKEEL_DEVICE void look(const Columns<Layout>& columns, Value value) {
#pragma unroll 1
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (!columns.has(u)) break;
      float x[8];
      load(columns, u, value, x);
      row_amax_ = fmaxf(row_amax_, largest(x));
    }
  }

  // The row's scale, of what was seen since the row before.
  template <typename Team>
  EVENKEEL_DEVICE void settle(Team& team) {
    if (!looks()) return;
    const float amax = team.merge(Largest{row_amax_}).value;
    row_amax_ = 0.0f;
    divisor_ = float_scale(amax);
  }

  template <typename Team, typename Value>
  EVENKEEL_DEVICE void row(const RowTensor& y, const RowPlace& place,
                           const Columns<Layout>& columns, Team& team, Value value) {
    uint32_t* const blocks = shared_ + team.index() * block_words(to_, columns.threads);
    // The block in which this segment of the row begins.
    const uint32_t base =
        (columns.first - team.rank() * (Layout::kSpread ? 1 : kChunk)) / max(to_.block, 1u);
    if (apart_) gather_blocks(columns, team, value, blocks, base);
#pragma unroll 1
    for (int u = 0; u < Layout::kUnits; ++u) {
      const bool has = columns.has(u);
      if (!__any_sync(kAllLanes, has)) break;
      float x[8];
      if (has) {
        load(columns, u, value, x);
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e) x[e] = 0.0f;
      }
      amax_ = fmaxf(amax_, largest(x));
      if constexpr (Layout::kSpread) {
        store_spread(y, place, columns, u, x, blocks, base);
      } else {
        const uint32_t column = columns.at(u, 0);
        const auto block_amax = [&] {
          if (apart_) return has ? blocks[column / to_.block - base] : 0u;
          uint32_t bits = block_bits(x);
          for (uint32_t lanes = to_.block / kChunk / 2; lanes > 0; lanes /= 2) {
            bits = max(bits, __shfl_xor_sync(kAllLanes, bits, static_cast<int>(lanes)));
          }
          return bits;
        };
        const Scale scale = scale_of(place, column, block_amax, has);
        uint32_t random[8];
        if (to_.stochastic != 0) draw(place, column, random);
        const uint2 codes = encode(x, scale, random);
        if (has) store_unit(y, place, column, codes);
      }
    }
  }

  // What was found in all rows of the block's threads. Called by all of them, once.
  EVENKEEL_DEVICE void finish(uint32_t* status) const {
    const bool leads = threadIdx.x % 32 == 0;
    if (to_.amax != nullptr) {
      const float amax = merge_lanes(Largest{amax_}, 32).value;
      if (leads && amax > 0.0f) atomicMax(to_.amax, __float_as_uint(amax));
    }
    if (to_.counts != nullptr) {
      add_count(counts_.saturated, to_.counts);
      add_count(counts_.underflowed, to_.counts + 1);
    }
    if (not_finite_) atomicOr(status, static_cast<uint32_t>(kNonFiniteBlock));
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    if (to_.tensor_scale != nullptr) *to_.tensor_scale = *to_.given;
  }

  // What no block of the tensor owns of tiled scales is 0. Called by all threads of the launch.
  EVENKEEL_DEVICE void clear_padding() const {
    if (to_.place != ScalePlace::kTiled128x4) return;
    unsigned char* const scales = static_cast<unsigned char*>(to_.scales);
    const uint32_t width = (to_.blocks + 3) / 4 * 4;
    const uint32_t spare = width - to_.blocks;
    const uint64_t beside = static_cast<uint64_t>(to_.outer) * spare;
    const uint64_t below = static_cast<uint64_t>((to_.outer + 127) / 128 * 128 - to_.outer) * width;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < beside + below; i += static_cast<uint64_t>(gridDim.x) * blockDim.x) {
      if (i < beside) {
        const uint64_t row = i / spare;
        scales[tiled(row, to_.blocks + static_cast<uint32_t>(i - row * spare))] = 0;
      } else {
        const uint64_t row = (i - beside) / width;
        scales[tiled(to_.outer + row, static_cast<uint32_t>(i - beside - row * width))] = 0;
      }
    }
  }

 private:
  // What quotients are made with; elements of a void block are 0, and those of a block that is not
  // finite count for nothing.
  struct Scale {
    ScaleDivisor by;
    bool is_void;
    bool is_finite;
  };

  // A unit's values, 0 outside the row and past the unit.
  template <typename Value>
  EVENKEEL_DEVICE static void load(const Columns<Layout>& columns, int unit, Value& value,
                                   float (&x)[8]) {
    typename Layout::Unit y;
    value(unit, y);
    const int count = columns.count(unit);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      x[e] = 0.0f;
      if (e < kChunk && e < count) x[e] = y[e % kChunk];
    }
  }

  EVENKEEL_DEVICE static float largest(const float (&x)[8]) {
    float amax = 0.0f;
#pragma unroll
    for (int e = 0; e < kChunk; ++e) amax = larger_finite(amax, x[e]);
    return amax;
  }

  // The bits of a magnitude that its block's scale follows from. Elements of 4 bits cannot be NaN:
  // there the block is, by the bits of infinity.
  EVENKEEL_DEVICE uint32_t magnitude_bits(float x) const {
    if (is_finite(x)) return __float_as_uint(fabsf(x));
    return is_nibble() ? 0x7f800000u : 0u;
  }
  EVENKEEL_DEVICE uint32_t block_bits(const float (&x)[8]) const {
    uint32_t bits = 0;
#pragma unroll
    for (int e = 0; e < kChunk; ++e) bits = max(bits, magnitude_bits(x[e]));
    return bits;
  }

  EVENKEEL_DEVICE bool is_nibble() const { return to_.element == ElementType::kE2m1; }

  EVENKEEL_DEVICE bool is_power() const {
    return to_.scale_type == ScaleType::kE8m0 ||
           (to_.scale_of != ScaleOf::kTensor && to_.scale_type == ScaleType::kF32 &&
            to_.rule != ScaleRule::kExact);
  }

  EVENKEEL_DEVICE ScaleDivisor float_scale(float amax) const {
    if (to_.rule != ScaleRule::kExact) {
      return ScaleDivisor::of_power(power_scale(amax, to_.element, to_.rule));
    }
    return ScaleDivisor::of(exact_scale(amax, largest_element(to_.element)));
  }

  // The scale of a column, stored by the thread that has the first column of what it belongs to.
  template <typename Amax>
  EVENKEEL_DEVICE Scale scale_of(const RowPlace& place, uint32_t column, Amax block_amax,
                                 bool has) {
    if (to_.scale_of == ScaleOf::kTensor) return {divisor_, false, true};
    if (to_.scale_of == ScaleOf::kRow) {
      if (has && column == 0) {
        static_cast<float*>(to_.scales)[place.token] = divisor_.scale;
      }
      return {divisor_, false, true};
    }
    const uint32_t bits = block_amax();
    const bool finite = bits < 0x7f800000u;
    const float amax = __uint_as_float(bits);
    const bool stores = has && column % to_.block == 0;
    Scale scale;
    scale.is_void = !finite;
    scale.is_finite = finite;
    uint32_t code = 0;
    if (to_.scale_type == ScaleType::kF32) {
      scale.by = float_scale(amax);
      code = __float_as_uint(scale.by.scale);
    } else if (to_.scale_type == ScaleType::kE8m0) {
      code = finite ? power_scale(amax, to_.element, to_.rule) : 0xffu;
      scale.by = ScaleDivisor::of_power(finite ? code : 127u);
    } else {
      code = finite ? nvfp4_block_scale(amax, divisor_) : 0x7fu;
      const float product = e4m3_value(code) * divisor_.scale;
      scale.is_void = !finite || product == 0.0f;
      scale.by = ScaleDivisor::of(scale.is_void ? 1.0f : product);
    }
    if (stores) {
      store_scale(place, column / to_.block, code);
      if (!finite) not_finite_ = true;
    }
    return scale;
  }

  // The elements of a unit, and what they count for.
  EVENKEEL_DEVICE uint2 encode(const float (&x)[8], const Scale& scale,
                               const uint32_t (&random)[8]) {
    float quotients[8];
    if (scale.is_void) {
#pragma unroll
      for (int e = 0; e < 8; ++e) quotients[e] = 0.0f;
    } else {
      divide_by(x, scale.by, is_power(), quotients);
    }
    const float most = largest_element(to_.element);
    const bool counted = to_.counts != nullptr && scale.is_finite;
    uint2 codes;
    if (is_nibble()) {
      codes = to_.stochastic != 0 ? encode_stochastic<4>(quotients, random, to_.element)
                                  : encode_nearest<4>(quotients, to_.element);
      if (counted) counts_.add<4>(x, quotients, codes, most);
    } else {
      codes = to_.stochastic != 0 ? encode_stochastic<8>(quotients, random, to_.element)
                                  : encode_nearest<8>(quotients, to_.element);
      if (counted) counts_.add<8>(x, quotients, codes, most);
    }
    return codes;
  }

  // The largest magnitudes of the segment's blocks, in shared memory.
  template <typename Team, typename Value>
  EVENKEEL_DEVICE void gather_blocks(const Columns<Layout>& columns, Team& team, Value& value,
                                     uint32_t* blocks, uint32_t base) const {
    // A segment's words must have been read before they are cleared for the next one.
    team.sync();
    const uint32_t words = block_words(to_, columns.threads);
    for (uint32_t i = team.rank(); i < words; i += team.threads()) blocks[i] = 0;
    // No word may be cleared after it was raised.
    team.sync();
#pragma unroll 1
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (!columns.has(u)) break;
      float x[8];
      load(columns, u, value, x);
      if constexpr (Layout::kSpread) {
#pragma unroll
        for (int e = 0; e < kChunk; ++e) {
          const uint32_t column = columns.at(u, e);
          if (column < columns.end) {
            atomicMax(&blocks[column / to_.block - base], magnitude_bits(x[e]));
          }
        }
      } else {
        atomicMax(&blocks[columns.at(u, 0) / to_.block - base], block_bits(x));
      }
    }
    // Publishes the team's blocks.
    team.sync();
  }

  EVENKEEL_DEVICE RandomKey random_key() const {
    uint64_t offset = to_.offset;
    if (to_.device_offset != nullptr) offset += static_cast<uint64_t>(*to_.device_offset);
    return {to_.seed, offset};
  }

  // The random words of neighbours, of rows of whole units: these begin at a multiple of four.
  EVENKEEL_DEVICE void draw(const RowPlace& place, uint32_t column, uint32_t (&random)[8]) const {
    const RandomKey key = random_key();
    const uint64_t first = (static_cast<uint64_t>(place.row) * width_ + column) / 4;
#pragma unroll
    for (int e = 0; e < 8; ++e) random[e] = 0;
#pragma unroll
    for (int q = 0; q < Layout::kQuads; ++q) {
      uint32_t four[4];
      philox4x32_10(first + q, key, four);
#pragma unroll
      for (int e = 0; e < 4; ++e) random[4 * q + e] = four[e];
    }
  }

  EVENKEEL_DEVICE unsigned char* row_of(const RowTensor& y, const RowPlace& place) const {
    const int64_t row = static_cast<int64_t>(place.token) * y.token_stride +
                        static_cast<int64_t>(place.head) * y.head_stride;
    return static_cast<unsigned char*>(y.data) + (is_nibble() ? row / 2 : row);
  }

  EVENKEEL_DEVICE void store_unit(const RowTensor& y, const RowPlace& place, uint32_t column,
                                  uint2 codes) const {
    unsigned char* const to = row_of(y, place) + (is_nibble() ? column / 2 : column);
    if (kChunk == 8 && !is_nibble()) {
      ptx::store_global(to, codes);
    } else if (kChunk == 8 || !is_nibble()) {
      *reinterpret_cast<uint32_t*>(to) = codes.x;
    } else {
      *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(codes.x);
    }
  }

  // Elements one by one, each under the scale of its block.
  EVENKEEL_DEVICE void store_spread(const RowTensor& y, const RowPlace& place,
                                    const Columns<Layout>& columns, int unit, const float (&x)[8],
                                    const uint32_t* blocks, uint32_t base) {
    unsigned char* const to = row_of(y, place);
    uint32_t before = 0;
#pragma unroll 1
    for (int e = 0; e < kChunk; ++e) {
      const uint32_t column = columns.at(unit, e);
      const bool has = column < columns.end;
      float one[8] = {e == 0 ? x[0] : e == 1 ? x[1] : e == 2 ? x[2] : x[3]};
      const auto block_amax = [&] { return has ? blocks[column / to_.block - base] : 0u; };
      const Scale scale = scale_of(place, column, block_amax, has);
      uint32_t random[8] = {};
      if (to_.stochastic != 0) {
        const uint64_t element = static_cast<uint64_t>(place.row) * width_ + column;
        random[0] = random_word(element, random_key());
      }
      const uint32_t code = encode(one, scale, random).x;
      if (!is_nibble()) {
        if (has) to[column] = static_cast<unsigned char>(code);
        continue;
      }
      // Of the two elements of a byte, the even one's thread has the next lane's too; past the row
      // that is 0. A thread that has the row alone completes the byte when it has both.
      const uint32_t own = code & 15u;
      const uint32_t next = __shfl_down_sync(kAllLanes, own, 1);
      const bool even = column % 2 == 0;
      const bool alone = columns.threads == 1;
      if (has && (even || alone)) {
        to[column / 2] =
            static_cast<unsigned char>(even ? own | (alone ? 0u : next << 4) : before | own << 4);
      }
      before = own;
    }
  }

  // Of scale (row, block) of a matrix in tiles of 128 x 4: 32 rows of 4 side by side.
  EVENKEEL_DEVICE uint64_t tiled(uint64_t row, uint32_t block) const {
    const uint64_t tile = row / 128 * ((to_.blocks + 3) / 4) + block / 4;
    return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4;
  }

  EVENKEEL_DEVICE void store_scale(const RowPlace& place, uint32_t block, uint32_t code) const {
    const uint64_t row = place.token;
    const uint32_t column = place.head * to_.head_blocks + block;
    const uint64_t at = to_.place == ScalePlace::kRowMajor      ? row * to_.blocks + column
                        : to_.place == ScalePlace::kColumnMajor ? uint64_t{column} * to_.outer + row
                                                                : tiled(row, column);
    if (to_.scale_type == ScaleType::kF32) {
      static_cast<uint32_t*>(to_.scales)[at] = code;
    } else {
      static_cast<unsigned char*>(to_.scales)[at] = static_cast<unsigned char>(code);
    }
  }

  EVENKEEL_DEVICE static void add_count(uint32_t count, uint32_t* to) {
    for (int lanes = 16; lanes > 0; lanes /= 2) count += __shfl_xor_sync(kAllLanes, count, lanes);
    if (threadIdx.x % 32 == 0 && count > 0) atomicAdd(to, count);
  }

  const QuantizedRows& to_;
  uint32_t* shared_;
  uint32_t width_;        // of a row of the grid
  ScaleDivisor divisor_;  // of the tensor, or of the row
  float row_amax_ = 0.0f;
  float amax_ = 0.0f;
  QuantCounts counts_;
  bool apart_;  // blocks go through shared memory
  bool not_finite_ = false;
};

}  // namespace evenkeel
