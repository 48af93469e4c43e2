// How a row of results leaves: the seam for outputs of other formats.
//
// A store policy owns the loop over a thread's units. `value(u, y)` computes the elements of unit
// u, as often as it is asked. A policy that must see a row before it can store any of it says so:
// with kLooks and where looks(), it is shown the row's segments first, then asked to settle.
#pragma once

#include "common/columns.cuh"

namespace evenkeel {

// bf16, f16 and f32: each value rounded once.
struct StoreFloats {
  static constexpr bool kLooks = false;

  template <typename Layout, typename Team, typename Value>
  EVENKEEL_DEVICE void row(const RowTensor& to, const RowPlace& place,
                           const Columns<Layout>& columns, Team& /*team*/, Value value) const {
    unsigned char* const row = row_address<Layout>(to, place);
#pragma unroll
    for (int u = 0; u < Layout::kUnits; ++u) {
      if (!columns.has(u)) continue;
      typename Layout::Unit y;
      value(u, y);
      store_unit(row, to.type, columns, u, pack_unit(y, to.type));
    }
  }
};

}  // namespace evenkeel
