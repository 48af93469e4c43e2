// The amax of a matrix ahead of its quantisation: of the whole or each group, of each row, of each
// column of a group; of values as they are, or rotated. One read; writes nothing but the amaxes.
//
// Mapping: a block a tile of 128 x 128, as quant/quantize.cuh; tiles meet in integer atomics on the
// bits of fp32, whose maximum has no order. quant_clear sets the words to 0 first.

#include "quant/quantize.cuh"

namespace evenkeel {
namespace {

template <bool kWide>
EVENKEEL_DEVICE void amax(const AmaxParams& params) {
  amax_tiles<DenseSource<kWide>>(params.grid, params.outputs, params.input, params.status);
}

EVENKEEL_DEVICE void clear(const ClearParams& params) {
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < params.count;
       i += stride) {
    params.words[i] = 0;
  }
}

}  // namespace
}  // namespace evenkeel

#define AMAX_KERNELS(K)                                                       \
  K(quant_amax_narrow, evenkeel::AmaxParams, 256, 3, (evenkeel::amax<false>)) \
  K(quant_amax_wide, evenkeel::AmaxParams, 256, 2, (evenkeel::amax<true>))    \
  K(quant_clear, evenkeel::ClearParams, 256, 1, (evenkeel::clear))

EVENKEEL_EXPORT(quant_amax, AMAX_KERNELS)
