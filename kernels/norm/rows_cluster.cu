// targets: 90a 100f
//
// RmsNorm and LayerNorm, forward, of rows that only a cluster's registers hold: see
// norm/forward.cuh.

#include "norm/forward.cuh"

#define NORM_FORWARD(K, name, layer, chunk, units, spread, threads, blocks)    \
  K(norm_forward_cluster_##name, evenkeel::NormForwardParams, threads, blocks, \
    (evenkeel::norm_forward<layer, evenkeel::Extra::kNone,                     \
                            evenkeel::RowLayout<chunk, units, spread>, evenkeel::ClusterTeam>))
#define NORM_FORWARD_LADDER(K, kind, layer)                \
  NORM_FORWARD(K, kind##_c8u4, layer, 8, 4, false, 256, 3) \
  NORM_FORWARD(K, kind##_c8u8, layer, 8, 8, false, 256, 2) \
  NORM_FORWARD(K, kind##_c4u8, layer, 4, 8, false, 512, 1) \
  NORM_FORWARD(K, kind##_s4u4, layer, 4, 4, true, 512, 1)
#define NORM_FORWARD_KERNELS(K)      \
  NORM_FORWARD_LADDER(K, rms, false) \
  NORM_FORWARD_LADDER(K, layer, true)

EVENKEEL_EXPORT(norm_rows_cluster, NORM_FORWARD_KERNELS)
