// needs: quant
//
// RmsNorm with results in 8 or 4 bits: see norm/forward_quantized.cuh.

#include "norm/forward_quantized.cuh"

#define NORM_QUANTIZED_KERNELS(K) NORM_QUANTIZED_LADDER(K, rms, false)

EVENKEEL_EXPORT(norm_quantized_rms, NORM_QUANTIZED_KERNELS)
