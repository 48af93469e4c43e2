// The scales of many tensors from the histories of their largest elements, in one launch.
//
//   ring[t, cursor] <- amax[t]        a = max over the ring, or amax[t] itself
//   scale[t] <- a / (largest[t] 2^-margin), where a > 0
//   amax[t] <- 0
//
// Never materialised: the reduced history. The mathematics is src/reference/quant/delayed.rs; every
// operation is exact or rounded once, so that all devices have the same bits.
//
// Traffic: one read of the rings, which with 1024 steps of 1000 tensors are 4 MB: 1 us at 4.3 TB/s,
// less than the launch; they stay in L2 from one update to the next. A prediction, nothing of this
// has been measured yet.
//
// Mapping: a warp a tensor, lanes side by side along its ring. Each tensor has a cursor of its own,
// which its warp alone reads and moves: with one for all, a block would need to be the last.

#include "common/block_reduce.cuh"
#include "common/low_bit.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/delayed.rs.
struct DelayedParams {
  float* amax;           // [tensors], reset to 0
  float* history;        // [tensors, length]
  float* scales;         // [tensors]
  uint32_t* cursors;     // [tensors], where each ring is written next
  const float* largest;  // [tensors], by 2^-margin
  uint32_t tensors;
  uint32_t length;
  uint32_t most_recent;   // 0: the largest of the ring
  uint32_t power_of_two;  // rounded up to one
};
static_assert(sizeof(DelayedParams) == 56, "src/quant/kernels/delayed.rs mirrors it");

namespace {

// Steps of a ring that a lane has in flight.
inline constexpr uint32_t kInFlight = 8;

// 2^n for n from -126 to 127.
EVENKEEL_DEVICE float power_of_two(int n) {
  return __uint_as_float(static_cast<uint32_t>(n + 127) << 23);
}

// The smallest power of two that is no less than amax / largest, within 2^-127 and 2^127.
EVENKEEL_DEVICE float quotient_rounded_up(float amax, float largest) {
  int exponent = 0;
  if (amax < power_of_two(-126)) {
    amax *= power_of_two(24);  // exact, and normal then
    exponent -= 24;
  }
  const uint32_t a = __float_as_uint(amax);
  const uint32_t m = __float_as_uint(largest);
  exponent += static_cast<int>(a >> 23) - static_cast<int>(m >> 23);
  if ((a & 0x7fffffu) > (m & 0x7fffffu)) ++exponent;
  if (exponent < -126) return 0.5f * power_of_two(-126);
  return power_of_two(min(exponent, 127));
}

EVENKEEL_DEVICE float scale_of(float amax, float largest, bool rounded_up) {
  if (rounded_up) return quotient_rounded_up(amax, largest);
  return fminf(exact_scale(amax, largest), kFloatMax);
}

EVENKEEL_DEVICE void update(const DelayedParams& params) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t tensor = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (tensor >= params.tensors) return;
  float latest = warp_load(params.amax + tensor);
  // What is no amax says nothing.
  if (!(latest > 0.0f && latest <= kFloatMax)) latest = 0.0f;
  const uint32_t cursor = warp_load(params.cursors + tensor);
  float* const ring = params.history + static_cast<uint64_t>(tensor) * params.length;
  float amax = latest;
  if (params.most_recent == 0) {
    for (uint32_t first = 0; first < params.length; first += 32 * kInFlight) {
      float steps[kInFlight];
#pragma unroll
      for (uint32_t i = 0; i < kInFlight; ++i) {
        const uint32_t step = first + 32 * i + lane;
        steps[i] = step < params.length && step != cursor ? ring[step] : 0.0f;
      }
#pragma unroll
      for (uint32_t i = 0; i < kInFlight; ++i) amax = fmaxf(amax, steps[i]);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, offset));
    }
  }
  if (lane != 0) return;
  ring[cursor] = latest;
  params.cursors[tensor] = cursor + 1 < params.length ? cursor + 1 : 0;
  params.amax[tensor] = 0.0f;
  if (amax > 0.0f) {
    params.scales[tensor] = scale_of(amax, params.largest[tensor], params.power_of_two != 0);
  }
}

}  // namespace
}  // namespace evenkeel

#define DELAYED_KERNELS(K) \
  K(quant_delayed_update, evenkeel::DelayedParams, 256, 4, (evenkeel::update))

EVENKEEL_EXPORT(quant_delayed, DELAYED_KERNELS)
