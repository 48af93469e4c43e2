// RmsNorm and LayerNorm, forward, on teams of lanes or warps within a block: see norm/forward.cuh.

#include "norm/forward.cuh"

// Most threads and least blocks a multiprocessor: what keeps enough bytes in flight (24 KiB and
// more) with registers for it. No measurement chose these yet.
#define NORM_FORWARD(K, name, layer, extra, chunk, units, spread, threads, blocks) \
  K(norm_forward_##name, evenkeel::NormForwardParams, threads, blocks,             \
    (evenkeel::norm_forward<layer, evenkeel::Extra::extra,                         \
                            evenkeel::RowLayout<chunk, units, spread>, evenkeel::LocalTeam>))
#define NORM_FORWARD_LADDER(K, kind, layer)                                \
  NORM_FORWARD(K, kind##_c8u2, layer, kNone, 8, 2, false, 256, 4)          \
  NORM_FORWARD(K, kind##_c8u4, layer, kNone, 8, 4, false, 256, 3)          \
  NORM_FORWARD(K, kind##_c8u8, layer, kNone, 8, 8, false, 256, 2)          \
  NORM_FORWARD(K, kind##_c4u4, layer, kNone, 4, 4, false, 256, 3)          \
  NORM_FORWARD(K, kind##_c4u8, layer, kNone, 4, 8, false, 256, 2)          \
  NORM_FORWARD(K, kind##_s4u4, layer, kNone, 4, 4, true, 512, 1)           \
  NORM_FORWARD(K, kind##_rotary_c8u2, layer, kRotary, 8, 2, false, 256, 3) \
  NORM_FORWARD(K, kind##_rotary_c4u4, layer, kRotary, 4, 4, false, 256, 2) \
  NORM_FORWARD(K, kind##_rotary_s4u4, layer, kRotary, 4, 4, true, 512, 1)  \
  NORM_FORWARD(K, kind##_gate_c8u4, layer, kGate, 8, 4, false, 256, 2)     \
  NORM_FORWARD(K, kind##_gate_c4u4, layer, kGate, 4, 4, false, 256, 2)     \
  NORM_FORWARD(K, kind##_gate_s4u4, layer, kGate, 4, 4, true, 512, 1)
#define NORM_FORWARD_KERNELS(K)      \
  NORM_FORWARD_LADDER(K, rms, false) \
  NORM_FORWARD_LADDER(K, layer, true)

EVENKEEL_EXPORT(norm_rows_block, NORM_FORWARD_KERNELS)
