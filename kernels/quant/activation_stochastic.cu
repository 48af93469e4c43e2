// SwiGLU, Smooth-SwiGLU, GELU and their gradients, quantised at random as they are computed: see
// quant/activation_quantize.cu.

#include "quant/activation_source.cuh"

namespace evenkeel {
namespace {

template <int kBits, typename Source>
EVENKEEL_DEVICE void quantize(const ActivationQuantizeParams& params) {
  quantize_tiles<kBits, true, Source>(params.grid, params.form, params.outputs, params.input);
}

}  // namespace
}  // namespace evenkeel

// Random words take some 40 registers more than 128 leave: one block a multiprocessor, and no
// spills. No measurement chose it yet.
#define ACTIVATION(K, name, Source)                                                \
  K(activation_##name##_b8_stochastic, evenkeel::ActivationQuantizeParams, 256, 1, \
    (evenkeel::quantize<8, evenkeel::Source>))                                     \
  K(activation_##name##_b4_stochastic, evenkeel::ActivationQuantizeParams, 256, 1, \
    (evenkeel::quantize<4, evenkeel::Source>))
#define ACTIVATION_STOCHASTIC_KERNELS(K)       \
  ACTIVATION(K, quantize_swiglu, SwiGluSource) \
  ACTIVATION(K, quantize_gelu, GeluSource)     \
  ACTIVATION(K, quantize_gradient, GradientSource)

EVENKEEL_EXPORT(quant_activation_stochastic, ACTIVATION_STOCHASTIC_KERNELS)
