// Quantisation of a matrix in memory, stochastically: see quant/quantize.cuh.
//
// The bytes are those of quantize.cu: at 4.3 TB/s, bf16 of 16384 x 4096, 47 us row-wise in 8 bits,
// 62 us both outputs, 39 and 47 us in 4 bits. Issue takes longer: with the instructions that
// quant/quantize.cuh counts, NvFp4 some 150 us row-wise and 240 us both. Words are drawn once for
// both outputs. Predictions, nothing of this has been measured yet.

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
