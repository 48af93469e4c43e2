// targets: 90a 100f
//
// RmsNorm and LayerNorm, backward, of rows that only a cluster's registers hold: see
// norm/backward.cuh.

#include "norm/backward.cuh"

#define NORM_BACKWARD(K, name, layer, chunk, units, spread, threads)        \
  K(norm_backward_cluster_##name, evenkeel::NormBackwardParams, threads, 1, \
    (evenkeel::norm_backward<layer, evenkeel::Extra::kNone,                 \
                             evenkeel::RowLayout<chunk, units, spread>, evenkeel::ClusterTeam>))
// LayerNorm's c8u2 would not fit into 128 registers.
#define NORM_BACKWARD_LADDER(K, kind, layer)             \
  NORM_BACKWARD(K, kind##_c8u4, layer, 8, 4, false, 384) \
  NORM_BACKWARD(K, kind##_c4u2, layer, 4, 2, false, 512) \
  NORM_BACKWARD(K, kind##_s4u2, layer, 4, 2, true, 512)
#define NORM_BACKWARD_KERNELS(K)                      \
  NORM_BACKWARD(K, rms_c8u2, false, 8, 2, false, 512) \
  NORM_BACKWARD_LADDER(K, rms, false)                 \
  NORM_BACKWARD_LADDER(K, layer, true)

EVENKEEL_EXPORT(norm_backward_cluster, NORM_BACKWARD_KERNELS)
