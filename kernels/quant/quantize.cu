// Quantisation of a matrix in memory, to nearest: see quant/quantize.cuh.

#include "quant/quantize.cuh"

namespace evenkeel {
namespace {

template <int kBits, bool kWide>
EVENKEEL_DEVICE void quantize_nearest(const QuantizeParams& params) {
  quantize_tiles<kBits, false, DenseSource<kWide>>(params.grid, params.form, params.outputs,
                                                   params.input);
}

}  // namespace
}  // namespace evenkeel

// Narrow kernels hold 32 registers of values: three blocks, 96 KiB of a multiprocessor's loads in
// flight; of 4-bit elements two, whose arithmetic takes longer than their loads. Wide ones hold 64.
#define QUANTIZE_KERNELS(K)                                     \
  K(quant_quantize_b8_narrow, evenkeel::QuantizeParams, 256, 3, \
    (evenkeel::quantize_nearest<8, false>))                     \
  K(quant_quantize_b8_wide, evenkeel::QuantizeParams, 256, 2,   \
    (evenkeel::quantize_nearest<8, true>))                      \
  K(quant_quantize_b4_narrow, evenkeel::QuantizeParams, 256, 2, \
    (evenkeel::quantize_nearest<4, false>))                     \
  K(quant_quantize_b4_wide, evenkeel::QuantizeParams, 256, 2, (evenkeel::quantize_nearest<4, true>))

EVENKEEL_EXPORT(quant_quantize, QUANTIZE_KERNELS)
