// needs: quant
//
// Dynamic tanh with results in 8 or 4 bits, on teams of lanes or warps within a block: see
// norm/dyt_quantized.cuh.

#include "norm/dyt_quantized.cuh"

// Most threads and least blocks a multiprocessor, as norm/forward_quantized.cuh. No measurement
// chose these yet.
#define DYT_QUANTIZED(K, name, chunk, units, spread, threads, blocks)         \
  K(norm_quantized_dyt_##name, evenkeel::DytQuantizedParams, threads, blocks, \
    (evenkeel::dyt_quantized<evenkeel::RowLayout<chunk, units, spread>, evenkeel::LocalTeam>))
#define DYT_QUANTIZED_KERNELS(K)              \
  DYT_QUANTIZED(K, c8u4, 8, 4, false, 256, 2) \
  DYT_QUANTIZED(K, c4u4, 4, 4, false, 256, 2) \
  DYT_QUANTIZED(K, c4u8, 4, 8, false, 256, 1) \
  DYT_QUANTIZED(K, s4u4, 4, 4, true, 512, 1)

EVENKEEL_EXPORT(norm_quantized_dyt, DYT_QUANTIZED_KERNELS)
