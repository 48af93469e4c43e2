// SwiGLU, Smooth-SwiGLU, GELU and their gradients, quantised to nearest as they are computed.
//
// Never materialised: y, dx, [dgate | dup]. The values are those of activation.cu, the elements
// those of quant/quantize.cuh.
//
// Traffic: one read of each input, one write of each output; one read more where quantize.cuh has
// two (quant_activation_amax). Rows in FP8 with a scale each, and no transposed output, are
// activation_rows.cu's, which reads once. Of [dgate | dup] gate and dy come twice, the second time
// from L2, where F is no multiple of 128 or both outputs are rotated (quant/activation_source.cuh).
// At 4.3 TB/s, as norm/forward.cuh has it, SwiGLU of 16384 x 14336 in bf16 to MxFp8 is 1.18 GB and
// 274 us row-wise, 1.42 GB and 331 us in both directions; its backward 1.89 GB and 440 us, 2.38 GB
// and 553 us. But with some 40 instructions an element, of which silu is 15, the multiprocessors
// may take as long: predictions, nothing of this has been measured yet.
//
// Mapping: quant/activation_source.cuh, quant/tile.cuh.

#include "quant/activation_source.cuh"

namespace evenkeel {
namespace {

template <int kBits, typename Source>
EVENKEEL_DEVICE void quantize(const ActivationQuantizeParams& params) {
  quantize_tiles<kBits, false, Source>(params.grid, params.form, params.outputs, params.input);
}

}  // namespace
}  // namespace evenkeel

// As wide kernels of quantize.cu.
#define ACTIVATION(K, name, Source)                                             \
  K(activation_##name##_b8_nearest, evenkeel::ActivationQuantizeParams, 256, 2, \
    (evenkeel::quantize<8, evenkeel::Source>))                                  \
  K(activation_##name##_b4_nearest, evenkeel::ActivationQuantizeParams, 256, 2, \
    (evenkeel::quantize<4, evenkeel::Source>))
#define ACTIVATION_QUANTIZE_KERNELS(K)         \
  ACTIVATION(K, quantize_swiglu, SwiGluSource) \
  ACTIVATION(K, quantize_gelu, GeluSource)     \
  ACTIVATION(K, quantize_gradient, GradientSource)

EVENKEEL_EXPORT(quant_activation_quantize, ACTIVATION_QUANTIZE_KERNELS)
