// Products of bf16 and of f16 on Hopper's tensor cores (hopper.cuh): 128 x 256 where there are
// tiles enough for the device, and 128 x 128 for smaller results.
// targets: 90a
#include "matmul/hopper.cuh"

namespace evenkeel {

using HopperBf16 = HopperConfig<HopperElements::kBf16, HopperSums::kTensorCore, 128, 256, 4>;
using HopperBf16Small = HopperConfig<HopperElements::kBf16, HopperSums::kTensorCore, 128, 128, 6>;
using HopperF16 = HopperConfig<HopperElements::kF16, HopperSums::kTensorCore, 128, 256, 4>;
using HopperF16Small = HopperConfig<HopperElements::kF16, HopperSums::kTensorCore, 128, 128, 6>;

static_assert(sizeof(HopperShared<HopperBf16>) == 229456,
              "src/matmul/hopper_config.rs computes it");
static_assert(sizeof(HopperShared<HopperBf16Small>) == 229488, "as above");

}  // namespace evenkeel

#define HOPPER_DENSE_KERNELS(K)                                 \
  K(matmul_hopper_bf16_128x256, evenkeel::HopperParams, 384, 1, \
    (evenkeel::hopper_matmul<evenkeel::HopperBf16>))            \
  K(matmul_hopper_bf16_128x128, evenkeel::HopperParams, 384, 1, \
    (evenkeel::hopper_matmul<evenkeel::HopperBf16Small>))       \
  K(matmul_hopper_f16_128x256, evenkeel::HopperParams, 384, 1,  \
    (evenkeel::hopper_matmul<evenkeel::HopperF16>))             \
  K(matmul_hopper_f16_128x128, evenkeel::HopperParams, 384, 1,  \
    (evenkeel::hopper_matmul<evenkeel::HopperF16Small>))

EVENKEEL_EXPORT(matmul_hopper_dense, HOPPER_DENSE_KERNELS)
