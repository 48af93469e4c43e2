// needs: quant
//
// LayerNorm with results in 8 or 4 bits: see norm/forward_quantized.cuh.

#include "norm/forward_quantized.cuh"

#define NORM_QUANTIZED_KERNELS(K) NORM_QUANTIZED_LADDER(K, layer, true)

EVENKEEL_EXPORT(norm_quantized_layer, NORM_QUANTIZED_KERNELS)
