// What a warp's tensor core does: ldmatrix, stmatrix, mma.sync.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

// a: 16 rows of 32 bytes; b: 8 rows of 32 bytes.
struct Layout {
  alignas(128) unsigned char a[512];
  unsigned char b[256];
};
__forceinline__ Layout& layout() { return *reinterpret_cast<Layout*>(dynamic_shared()); }

__forceinline__ void load(const Args& p, bool ordered) {
  Layout& s = layout();
  const unsigned lane = threadIdx.x % 32;
  const uint4* in = reinterpret_cast<const uint4*>(p.in);
  reinterpret_cast<uint4*>(s.a)[lane] = in[lane];
  if (lane < 16) reinterpret_cast<uint4*>(s.b)[lane] = in[32 + lane];
  if (ordered) __syncwarp();
}

__forceinline__ const unsigned char* a_row() {
  const unsigned lane = threadIdx.x % 32;
  return layout().a + 32 * (lane % 16) + 16 * (lane / 16);
}
__forceinline__ const unsigned char* b_row() {
  const unsigned lane = threadIdx.x % 32;
  return layout().b + 32 * (lane % 8) + 16 * (lane / 8 % 2);
}

// out[16, 8] = words (as floats) + a b^T, `n` times.
template <code::Element kA, code::Element kB>
void product(const Args& p) {
  const unsigned lane = threadIdx.x % 32;
  const float* c = reinterpret_cast<const float*>(p.words);
  load(p, true);
  uint32_t a[4], b[2];
  ldmatrix(a, 4, false, a_row());
  ldmatrix(b, 2, false, b_row());
  float d[4];
  for (unsigned i = 0; i < 4; ++i) d[i] = c[8 * (lane / 4 + 8 * (i / 2)) + 2 * (lane % 4) + i % 2];
  for (int i = 0; i < p.n; ++i) mma_m16n8(kA, kB, d, a, b);  // product
  for (unsigned i = 0; i < 4; ++i) {
    p.out[8 * (lane / 4 + 8 * (i / 2)) + 2 * (lane % 4) + i % 2] = d[i];
  }
}
void mma_bf16(const Args& p) { product<code::kBf16, code::kBf16>(p); }
void mma_f16(const Args& p) { product<code::kF16, code::kF16>(p); }
void mma_e4m3(const Args& p) { product<code::kE4m3, code::kE4m3>(p); }
void mma_e4m3_e5m2(const Args& p) { product<code::kE4m3, code::kE5m2>(p); }
void mma_e5m2_e4m3(const Args& p) { product<code::kE5m2, code::kE4m3>(p); }
void mma_e5m2(const Args& p) { product<code::kE5m2, code::kE5m2>(p); }

// All 32 lanes or none.
template <bool kRight>
void whole_warp(const Args& p) {
  load(p, true);
  uint32_t a[4];
  const unsigned lane = threadIdx.x % 32;
  if (kRight || lane != 7) ldmatrix(a, 4, false, a_row());  // whole-warp
  p.words[lane] = kRight || lane != 7 ? a[0] : 0;
}

// Two parts of a warp in two instructions.
template <bool kRight>
void warp_halves(const Args& p) {
  load(p, true);
  uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  if (kRight || threadIdx.x < p.n) {
    ldmatrix(a, 4, false, a_row());
  } else {
    __syncwarp();  // halves
  }
  mma_m16n8(code::kBf16, code::kBf16, d, a, b);
  p.out[threadIdx.x] = d[0];
}

// A block whose last warp is not whole.
void partial(const Args& p) {
  uint32_t a[1];
  ldmatrix(a, 1, false, a_row());  // partial
  p.words[threadIdx.x] = a[0];
}

template <bool kRight>
void matrix_order(const Args& p) {
  load(p, kRight);
  uint32_t a[4];
  ldmatrix(a, 4, false, a_row());  // matrix-order
  p.words[threadIdx.x] = a[0];
}

template <bool kRight>
void aligned_rows(const Args& p) {
  load(p, true);
  uint32_t a[2];
  ldmatrix(a, 2, false, a_row() + (kRight ? 0 : 8));  // aligned-rows
  p.words[threadIdx.x] = a[0];
}

// Transposes 8x8 matrices on the way in, on the way out, or both.
template <bool kIn, bool kOut>
void transpose(const Args& p) {
  const unsigned lane = threadIdx.x;
  load(p, true);
  uint32_t a[4];
  unsigned char* row = layout().a + 16 * lane;
  ldmatrix(a, 4, kIn, row);
  __syncwarp();
  stmatrix(row, 4, kOut, a);
  __syncwarp();
  reinterpret_cast<uint4*>(p.out)[lane] = reinterpret_cast<uint4*>(layout().a)[lane];
}
void transpose_none(const Args& p) { transpose<false, false>(p); }
void transpose_in(const Args& p) { transpose<true, false>(p); }
void transpose_out(const Args& p) { transpose<false, true>(p); }
void transpose_both(const Args& p) { transpose<true, true>(p); }

// Two matrices a pass: rows 16 bytes apart meet no bank twice, rows 32 bytes apart do.
template <int kPitch>
void matrix_conflicts(const Args& p) {
  load(p, true);
  uint32_t a[1];
  ldmatrix(a, 1, false, layout().a + kPitch * (threadIdx.x % 8));  // conflicts
  p.words[threadIdx.x] = a[0];
}
void conflicts_none(const Args& p) { matrix_conflicts<16>(p); }
void conflicts_double(const Args& p) { matrix_conflicts<32>(p); }

}  // namespace

#define PAIRS(K) K(whole_warp) K(warp_halves) K(matrix_order) K(aligned_rows)
#define SINGLES(K)  \
  K(mma_bf16)       \
  K(mma_f16)        \
  K(mma_e4m3)       \
  K(mma_e4m3_e5m2)  \
  K(mma_e5m2_e4m3)  \
  K(mma_e5m2)       \
  K(partial)        \
  K(transpose_none) \
  K(transpose_in) K(transpose_out) K(transpose_both) K(conflicts_none) K(conflicts_double)
PAIRS(WRONG_AND_RIGHT)
#define ENTRY(name) CUDA_EMULATOR_ENTRY(name, Args, name)
SINGLES(ENTRY)

#define ROWS_COMMA(name) ROWS(name),
#define ROW_COMMA(name) ROW(name),
CUDA_EMULATOR_TABLE(test_tensor_core, PAIRS(ROWS_COMMA) SINGLES(ROW_COMMA))
