// What a row sees of its keys: the first of them, as many as its causal mask and its length leave.
#pragma once

#include "common/team.cuh"
#include "norm/softmax_params.h"

namespace evenkeel {

// What one of a row's lanes in each warp loads for all of them; all lanes of the warp take part.
template <typename Team, typename Load>
EVENKEEL_DEVICE auto load_once(const Team& team, bool present, Load load) {
  const uint32_t width = min(team.threads(), 32u);
  decltype(load()) value = {};
  if (present && team.rank() % width == 0) value = load();
  return __shfl_sync(kAllLanes, value, 0, static_cast<int>(width));
}

// A row past the last sees nothing. All lanes of the warp take part.
template <typename Team>
EVENKEEL_DEVICE uint32_t visible_keys(const Team& team, const RowMask& mask, uint32_t row,
                                      const RowGrid& grid) {
  const bool present = row < grid.rows;
  const auto keys = [&](int64_t count) {
    return static_cast<uint32_t>(
        min(max(count, static_cast<int64_t>(0)), static_cast<int64_t>(grid.columns)));
  };
  const uint32_t query = row - divide(row, mask.by_queries) * mask.queries;
  uint32_t visible = keys(mask.causal_offset + 1 + query);
  if (mask.lengths != nullptr) {
    const uint32_t length = load_once(team, present, [&] {
      const uint32_t batch = divide(row, mask.by_batch_rows);
      return keys(load_integer(mask.lengths, mask.length_type, batch));
    });
    visible = min(visible, length);
  }
  return present ? visible : 0;
}

// How many of a unit's elements are before the end, which may lie within it.
template <typename Layout>
EVENKEEL_DEVICE uint32_t seen(const Columns<Layout>& columns, int unit) {
  if constexpr (Layout::kSpread) {
    return static_cast<uint32_t>(columns.count(unit));
  } else {
    const uint32_t first = columns.at(unit, 0);
    return first < columns.end ? min(columns.end - first, static_cast<uint32_t>(Layout::kChunk))
                               : 0;
  }
}

// The bits of -inf.
EVENKEEL_DEVICE uint32_t minus_infinity(FloatType type) {
  return type == FloatType::kF32 ? 0xff800000u : type == FloatType::kF16 ? 0xfc00u : 0xff80u;
}

// Elements `count` and on of a packed unit become these bits.
template <typename Layout>
EVENKEEL_DEVICE uint4 cut(uint4 packed, FloatType type, uint32_t count, uint32_t bits) {
  uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
  if (is_wide<Layout>(type)) {
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e) {
      if (e >= count) words[e] = bits;
    }
  } else {
#pragma unroll
    for (uint32_t e = 0; e < Layout::kChunk; ++e) {
      if (e < count) continue;
      uint32_t& word = words[e / 2];
      word = e % 2 == 0 ? (word & 0xffff0000u) | bits : (word & 0x0000ffffu) | bits << 16;
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// A thread's units of what a row sees; elsewhere `bits`, so that nothing after it needs the mask.
template <typename Layout>
EVENKEEL_DEVICE void fetch_seen(const RowTensor& tensor, const RowPlace& place,
                                const Columns<Layout>& columns, uint32_t bits,
                                typename Layout::Units& units) {
  fetch(tensor, place, columns, units);
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    const uint32_t count = seen(columns, u);
    if (count < Layout::kChunk) units[u] = cut<Layout>(units[u], tensor.type, count, bits);
  }
}

}  // namespace evenkeel
