// The amax of activations and of their gradients ahead of their quantisation, as quant/amax.cu: of
// the whole or each group, of each row, of each column of a group. One read; writes nothing but the
// amaxes.

#include "quant/activation_source.cuh"

namespace evenkeel {
namespace {

template <typename Source>
EVENKEEL_DEVICE void amax(const ActivationAmaxParams& params) {
  amax_tiles<Source>(params.grid, params.outputs, params.input, params.status);
}

}  // namespace
}  // namespace evenkeel

// Gradients take more registers than two blocks leave each.
#define ACTIVATION_AMAX_KERNELS(K)                                    \
  K(activation_amax_swiglu, evenkeel::ActivationAmaxParams, 256, 2,   \
    (evenkeel::amax<evenkeel::SwiGluSource>))                         \
  K(activation_amax_gelu, evenkeel::ActivationAmaxParams, 256, 2,     \
    (evenkeel::amax<evenkeel::GeluSource>))                           \
  K(activation_amax_gradient, evenkeel::ActivationAmaxParams, 256, 1, \
    (evenkeel::amax<evenkeel::GradientSource>))

EVENKEEL_EXPORT(quant_activation_amax, ACTIVATION_AMAX_KERNELS)
