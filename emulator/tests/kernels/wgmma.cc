// Products of a warpgroup.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

struct WgmmaArgs {
  const uint4* image;  // what shared memory holds
  float* out;          // [64, columns]
  uint64_t a, b;       // descriptors; their addresses count from the image's start
  uint32_t image_bytes;
  uint32_t a_type, b_type, columns, transpose_a, transpose_b;
  uint32_t in_registers;  // a comes from the first 64 rows of 32 bytes
  uint32_t steps, a_step, b_step;
  uint32_t groups;  // commits after each product where 1
};

enum Mistake {
  kNone,
  kNoFence,
  kNoProxyFence,
  kNoCommit,
  kNoWait,
  kReuse,
  kTouch,
  kThreeWarps,
  kOneWaits,
  kFenceAfterWait,
  kDivergent
};

template <Mistake kMistake>
void wgmma_product(const WgmmaArgs& p) {
  uint4* shared = reinterpret_cast<uint4*>(dynamic_shared());
  const unsigned t = threadIdx.x;
  const unsigned w = t / 32, g = t % 32 / 4, c = t % 4;
  for (unsigned i = t; i < p.image_bytes / 16; i += blockDim.x) shared[i] = p.image[i];
  if (kMistake != kNoProxyFence) fence_proxy_async();
  __syncthreads();
  const auto a_type = static_cast<code::Element>(p.a_type);
  const auto b_type = static_cast<code::Element>(p.b_type);
  const int columns = static_cast<int>(p.columns);
  uint32_t a[4];
  if (p.in_registers) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = 16 * w + g + 8 * (i % 2);
      a[i] = reinterpret_cast<uint32_t*>(dynamic_shared())[8 * row + 4 * (i / 2) + c];
    }
  }
  float d[128];
  for (unsigned i = 0; i < 128; ++i) d[i] = 1000.0f;
  if (kMistake != kNoFence) wgmma_fence();  // wgmma-fence
  for (unsigned k = 0; k < p.steps; ++k) {
    if (kMistake == kThreeWarps && w == 3) break;
    const uint64_t b = p.b + k * (p.b_step / 16) + (kMistake == kDivergent && w == 2);
    const uint64_t a_at = p.a + k * (p.a_step / 16);
    wgmma(a_type, b_type, columns, p.transpose_a, p.transpose_b, d,  // wgmma
          p.in_registers ? a : nullptr, a_at, b, k > 0);
    if (p.groups) wgmma_commit_group();
    if (kMistake == kFenceAfterWait) {
      wgmma_wait_group(0);
    }
  }
  if (kMistake != kNoCommit && !p.groups) wgmma_commit_group();  // wgmma-commit
  if (kMistake == kTouch && t == 77) d[1] = 3.0f;
  if (kMistake == kReuse && t == 5) {
    shared[p.image_bytes / 16 - 1] = make_uint4(0, 0, 0, 0);  // wgmma-reuse
  }
  if (kMistake != kNoWait) wgmma_wait_group(0);  // wgmma-wait
  if (kMistake == kOneWaits && t == 40) {
    // Its own warp has read b; nothing says that the others have.
    shared[p.image_bytes / 16 - 1] = make_uint4(0, 0, 0, 0);  // wgmma-one-waits
  }
  for (unsigned i = 0; i < p.columns / 2; ++i) {
    const unsigned row = 16 * w + g + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * c + i % 2;
    p.out[row * p.columns + column] = d[i];
  }
}
void wgmma_right(const WgmmaArgs& p) { wgmma_product<kNone>(p); }
void wgmma_no_fence(const WgmmaArgs& p) { wgmma_product<kNoFence>(p); }
void wgmma_no_proxy_fence(const WgmmaArgs& p) { wgmma_product<kNoProxyFence>(p); }
void wgmma_no_commit(const WgmmaArgs& p) { wgmma_product<kNoCommit>(p); }
void wgmma_no_wait(const WgmmaArgs& p) { wgmma_product<kNoWait>(p); }
void wgmma_reuse(const WgmmaArgs& p) { wgmma_product<kReuse>(p); }
void wgmma_touch(const WgmmaArgs& p) { wgmma_product<kTouch>(p); }
void wgmma_three_warps(const WgmmaArgs& p) { wgmma_product<kThreeWarps>(p); }
void wgmma_one_waits(const WgmmaArgs& p) { wgmma_product<kOneWaits>(p); }
void wgmma_fence_after_wait(const WgmmaArgs& p) { wgmma_product<kFenceAfterWait>(p); }
void wgmma_divergent(const WgmmaArgs& p) { wgmma_product<kDivergent>(p); }

}  // namespace

#define ALL(K)            \
  K(wgmma_right)          \
  K(wgmma_no_fence)       \
  K(wgmma_no_proxy_fence) \
  K(wgmma_no_commit)      \
  K(wgmma_no_wait)        \
  K(wgmma_reuse)          \
  K(wgmma_touch)          \
  K(wgmma_three_warps) K(wgmma_one_waits) K(wgmma_fence_after_wait) K(wgmma_divergent)
#define ENTRY(name) CUDA_EMULATOR_ENTRY(name, WgmmaArgs, name)
ALL(ENTRY)
#define ROW_COMMA(name) CUDA_EMULATOR_KERNEL(name, WgmmaArgs, 1024),
CUDA_EMULATOR_TABLE(test_wgmma, ALL(ROW_COMMA))
