// Products of FP8 operands by the FP8 instructions: see matmul/portable.cuh.
// targets: 89 120f

#include "matmul/portable.cuh"

namespace evenkeel {
namespace {

template <ptx::MmaType kA, ptx::MmaType kB>
EVENKEEL_DEVICE void product_of_fp8(const PortableParams& params) {
  product_tile<DirectProduct<kA, kB>>(params);
}

}  // namespace
}  // namespace evenkeel

#define FP8_KERNEL(K, name, a, b)                             \
  K(matmul_portable_##name, evenkeel::PortableParams, 256, 1, \
    (evenkeel::product_of_fp8<evenkeel::ptx::MmaType::a, evenkeel::ptx::MmaType::b>))
#define FP8_KERNELS(K)                   \
  FP8_KERNEL(K, e4m3_e4m3, kE4m3, kE4m3) \
  FP8_KERNEL(K, e4m3_e5m2, kE4m3, kE5m2) \
  FP8_KERNEL(K, e5m2_e4m3, kE5m2, kE4m3)

EVENKEEL_EXPORT(matmul_portable_fp8, FP8_KERNELS)
