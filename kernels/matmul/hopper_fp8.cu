// Products of FP8 on Hopper's tensor cores (hopper.cuh), any mix of E4M3 and E5M2 but E5M2 with
// itself. Promoted sums serve scales of tensors, rows, and 1 x 128 by 128 x 128 alike; scales of
// 1 x 128 on both sides have a kernel of their own, whose scales of columns pass through shared
// memory.
// targets: 90a
#include "matmul/hopper.cuh"

namespace evenkeel {

using HopperFp8 = HopperConfig<HopperElements::kFp8, HopperSums::kPromoted, 256, 128, 4>;
using HopperFp8Small = HopperConfig<HopperElements::kFp8, HopperSums::kPromoted, 128, 128, 6>;
using HopperFp8Fast = HopperConfig<HopperElements::kFp8, HopperSums::kTensorCore, 128, 256, 4>;
using HopperFp8FastSmall = HopperConfig<HopperElements::kFp8, HopperSums::kTensorCore, 128, 128, 6>;
using HopperFp8Columns = HopperConfig<HopperElements::kFp8, HopperSums::kColumns, 128, 128, 5>;

static_assert(sizeof(HopperShared<HopperFp8>) == 229456, "src/matmul/hopper_config.rs computes it");
static_assert(sizeof(HopperShared<HopperFp8Columns>) == 199248, "as above");

}  // namespace evenkeel

#define HOPPER_FP8_KERNELS(K)                                          \
  K(matmul_hopper_fp8_256x128, evenkeel::HopperParams, 384, 1,         \
    (evenkeel::hopper_matmul<evenkeel::HopperFp8>))                    \
  K(matmul_hopper_fp8_128x128, evenkeel::HopperParams, 384, 1,         \
    (evenkeel::hopper_matmul<evenkeel::HopperFp8Small>))               \
  K(matmul_hopper_fp8_fast_128x256, evenkeel::HopperParams, 384, 1,    \
    (evenkeel::hopper_matmul<evenkeel::HopperFp8Fast>))                \
  K(matmul_hopper_fp8_fast_128x128, evenkeel::HopperParams, 384, 1,    \
    (evenkeel::hopper_matmul<evenkeel::HopperFp8FastSmall>))           \
  K(matmul_hopper_fp8_columns_128x128, evenkeel::HopperParams, 384, 1, \
    (evenkeel::hopper_matmul<evenkeel::HopperFp8Columns>))

EVENKEEL_EXPORT(matmul_hopper_fp8, HOPPER_FP8_KERNELS)
