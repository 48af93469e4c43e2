// Products of 16-bit operands, and of FP8 expanded to f16: see matmul/portable.cuh.

#include "matmul/portable.cuh"

namespace evenkeel {
namespace {

using Bf16Product = DirectProduct<ptx::MmaType::kBf16, ptx::MmaType::kBf16>;
using F16Product = DirectProduct<ptx::MmaType::kF16, ptx::MmaType::kF16>;

}  // namespace
}  // namespace evenkeel

#define PORTABLE_KERNELS(K)                                     \
  K(matmul_portable_bf16, evenkeel::PortableParams, 256, 1,     \
    (evenkeel::product_tile<evenkeel::Bf16Product>))            \
  K(matmul_portable_f16, evenkeel::PortableParams, 256, 1,      \
    (evenkeel::product_tile<evenkeel::F16Product>))             \
  K(matmul_portable_expanded, evenkeel::PortableParams, 256, 1, \
    (evenkeel::product_tile<evenkeel::ExpandedProduct>))

EVENKEEL_EXPORT(matmul_portable, PORTABLE_KERNELS)
