// Quantisation of a matrix in memory, stochastically: see quant/quantize.cuh.

#include "quant/quantize.cuh"

namespace evenkeel {
namespace {

template <int kBits, bool kWide>
EVENKEEL_DEVICE void quantize_stochastic(const QuantizeParams& params) {
  quantize_tiles<kBits, true, DenseSource<kWide>>(params.grid, params.form, params.outputs,
                                                  params.input);
}

}  // namespace
}  // namespace evenkeel

#define STOCHASTIC_KERNELS(K)                                     \
  K(quant_stochastic_b8_narrow, evenkeel::QuantizeParams, 256, 2, \
    (evenkeel::quantize_stochastic<8, false>))                    \
  K(quant_stochastic_b8_wide, evenkeel::QuantizeParams, 256, 1,   \
    (evenkeel::quantize_stochastic<8, true>))                     \
  K(quant_stochastic_b4_narrow, evenkeel::QuantizeParams, 256, 2, \
    (evenkeel::quantize_stochastic<4, false>))                    \
  K(quant_stochastic_b4_wide, evenkeel::QuantizeParams, 256, 1,   \
    (evenkeel::quantize_stochastic<4, true>))

EVENKEEL_EXPORT(quant_stochastic, STOCHASTIC_KERNELS)
