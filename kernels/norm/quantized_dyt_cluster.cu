// needs: quant
// targets: 90a 100f
//
// Dynamic tanh with results in 8 bits and a scale for each row, of rows that only a cluster's
// registers hold: see norm/dyt_quantized.cuh.

#include "norm/dyt_quantized.cuh"

#define DYT_QUANTIZED_CLUSTER(K, name, chunk, units, spread, threads, blocks)         \
  K(norm_quantized_cluster_dyt_##name, evenkeel::DytQuantizedParams, threads, blocks, \
    (evenkeel::dyt_quantized<evenkeel::RowLayout<chunk, units, spread>, evenkeel::ClusterTeam>))
#define DYT_QUANTIZED_CLUSTER_KERNELS(K)              \
  DYT_QUANTIZED_CLUSTER(K, c8u4, 8, 4, false, 256, 2) \
  DYT_QUANTIZED_CLUSTER(K, c4u8, 4, 8, false, 256, 1) \
  DYT_QUANTIZED_CLUSTER(K, s4u4, 4, 4, true, 512, 1)

EVENKEEL_EXPORT(norm_quantized_dyt_cluster, DYT_QUANTIZED_CLUSTER_KERNELS)
