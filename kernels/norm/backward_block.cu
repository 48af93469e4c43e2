// RmsNorm and LayerNorm, backward, on teams of lanes or warps within a block: see
// norm/backward.cuh.

#include "norm/backward.cuh"

// 128 registers hold 16 columns (8 of f32) of two tensors, the next row's and the sums of dgamma
// and dbeta: 64 bytes a thread are always on their way, 32 KiB a multiprocessor. No measurement
// chose these yet.
#define NORM_BACKWARD(K, name, layer, extra, chunk, units, spread, threads) \
  K(norm_backward_##name, evenkeel::NormBackwardParams, threads, 1,         \
    (evenkeel::norm_backward<layer, evenkeel::Extra::extra,                 \
                             evenkeel::RowLayout<chunk, units, spread>, evenkeel::LocalTeam>))
#define NORM_BACKWARD_LADDER(K, kind, layer)                             \
  NORM_BACKWARD(K, kind##_c8u2, layer, kNone, 8, 2, false, 512)          \
  NORM_BACKWARD(K, kind##_c8u4, layer, kNone, 8, 4, false, 384)          \
  NORM_BACKWARD(K, kind##_c4u2, layer, kNone, 4, 2, false, 512)          \
  NORM_BACKWARD(K, kind##_s4u2, layer, kNone, 4, 2, true, 512)           \
  NORM_BACKWARD(K, kind##_rotary_c8u2, layer, kRotary, 8, 2, false, 512) \
  NORM_BACKWARD(K, kind##_rotary_c4u2, layer, kRotary, 4, 2, false, 512) \
  NORM_BACKWARD(K, kind##_rotary_s4u2, layer, kRotary, 4, 2, true, 512)  \
  NORM_BACKWARD(K, kind##_gate_c4u2, layer, kGate, 4, 2, false, 512)     \
  NORM_BACKWARD(K, kind##_gate_s4u2, layer, kGate, 4, 2, true, 512)
#define NORM_BACKWARD_KERNELS(K)      \
  NORM_BACKWARD_LADDER(K, rms, false) \
  NORM_BACKWARD_LADDER(K, layer, true)

EVENKEEL_EXPORT(norm_backward_block, NORM_BACKWARD_KERNELS)
