// The normalizations of norm/forward.cuh with results in 8 or 4 bits (common/quantized_rows.cuh).
//
// Traffic: that of norm/forward.cuh, with one byte or half of one for each element of y, and its
// scales, in y's place. Rows of more than 8192 elements are a cluster's, where there are clusters;
// elsewhere, and beyond what its registers hold, they are read again, from L2 where that holds the
// rows in flight: once, and once more for a scale of the row. At 4.3 TB/s, 16384 x 8192 from bf16
// to FP8 are 403 MB and 94 us, to FP4 340 MB and 79 us: predictions, nothing of this has been
// measured yet.
//
// There is one kernel for all formats, which it chooses between as it runs.
#pragma once

#include "common/quantized_rows.cuh"
#include "norm/forward.cuh"

namespace evenkeel {

// Mirrored in src/norm/params.rs.
struct NormForwardQuantizedParams {
  NormForwardParams norm;
  QuantizedRows y;
};
static_assert(sizeof(NormForwardQuantizedParams) == 408, "src/norm/params.rs mirrors it");

// Shared memory: the team's, heads for rotary, then a word for each block of the teams' rows.
template <bool kLayer, Extra kExtra, typename Layout, typename Team = LocalTeam>
EVENKEEL_DEVICE void norm_forward_quantized(const NormForwardQuantizedParams& params) {
  unsigned char* const base = platform::dynamic_shared();
  const RowGrid& grid = params.norm.grid;
  using Shared = typename Team::Shared;
  Team team(grid, *reinterpret_cast<Shared*>(base));
  uint32_t* const words =
      reinterpret_cast<uint32_t*>(base + sizeof(Shared)) + team.count() * head_floats<kExtra>(grid);
  StoreQuantized<Layout> store(params.y, grid, words);
  store.clear_padding();
  norm_forward_to<kLayer, kExtra, Layout>(params.norm, team, store);
  store.finish(params.norm.status);
  team.leave();
}

}  // namespace evenkeel

// Most threads and least blocks a multiprocessor, as norm/rows_block.cu; the code of a format takes
// registers of its own. No measurement chose these yet.
#define NORM_QUANTIZED(K, name, layer, extra, chunk, units, spread, threads, blocks) \
  K(norm_quantized_##name, evenkeel::NormForwardQuantizedParams, threads, blocks,    \
    (evenkeel::norm_forward_quantized<layer, evenkeel::Extra::extra,                 \
                                      evenkeel::RowLayout<chunk, units, spread>>))
#define NORM_QUANTIZED_LADDER(K, kind, layer)                                \
  NORM_QUANTIZED(K, kind##_c8u4, layer, kNone, 8, 4, false, 256, 2)          \
  NORM_QUANTIZED(K, kind##_c4u4, layer, kNone, 4, 4, false, 256, 2)          \
  NORM_QUANTIZED(K, kind##_c4u8, layer, kNone, 4, 8, false, 256, 1)          \
  NORM_QUANTIZED(K, kind##_s4u4, layer, kNone, 4, 4, true, 512, 1)           \
  NORM_QUANTIZED(K, kind##_rotary_c8u2, layer, kRotary, 8, 2, false, 256, 2) \
  NORM_QUANTIZED(K, kind##_rotary_c4u4, layer, kRotary, 4, 4, false, 256, 2) \
  NORM_QUANTIZED(K, kind##_rotary_s4u4, layer, kRotary, 4, 4, true, 512, 1)  \
  NORM_QUANTIZED(K, kind##_gate_c8u4, layer, kGate, 8, 4, false, 256, 2)     \
  NORM_QUANTIZED(K, kind##_gate_c4u4, layer, kGate, 4, 4, false, 256, 2)     \
  NORM_QUANTIZED(K, kind##_gate_c4u8, layer, kGate, 4, 8, false, 256, 1)     \
  NORM_QUANTIZED(K, kind##_gate_s4u4, layer, kGate, 4, 4, true, 512, 1)
