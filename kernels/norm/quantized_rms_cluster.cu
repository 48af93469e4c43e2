// needs: quant
// targets: 90a 100f
//
// RmsNorm with results in 8 or 4 bits, of rows that only a cluster's registers hold: see
// norm/forward_quantized.cuh.

#include "norm/forward_quantized.cuh"

#define NORM_QUANTIZED_CLUSTER(K, name, extra, chunk, units, spread, threads, blocks)     \
  K(norm_quantized_cluster_##name, evenkeel::NormForwardQuantizedParams, threads, blocks, \
    (evenkeel::norm_forward_quantized<false, evenkeel::Extra::extra,                      \
                                      evenkeel::RowLayout<chunk, units, spread>,          \
                                      evenkeel::ClusterTeam>))
#define NORM_QUANTIZED_CLUSTER_KERNELS(K)                              \
  NORM_QUANTIZED_CLUSTER(K, rms_c8u4, kNone, 8, 4, false, 256, 2)      \
  NORM_QUANTIZED_CLUSTER(K, rms_c4u8, kNone, 4, 8, false, 256, 1)      \
  NORM_QUANTIZED_CLUSTER(K, rms_s4u4, kNone, 4, 4, true, 512, 1)       \
  NORM_QUANTIZED_CLUSTER(K, rms_gate_c8u4, kGate, 8, 4, false, 256, 2) \
  NORM_QUANTIZED_CLUSTER(K, rms_gate_c4u8, kGate, 4, 8, false, 256, 1) \
  NORM_QUANTIZED_CLUSTER(K, rms_gate_s4u4, kGate, 4, 4, true, 512, 1)

EVENKEEL_EXPORT(norm_quantized_rms_cluster, NORM_QUANTIZED_CLUSTER_KERNELS)
