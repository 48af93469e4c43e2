// Known numbers of bytes, sectors and bank conflicts; and a kernel to be mutated.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

void coalesced(const Args& p) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  p.out[i] = p.in[i];
}
void vectors(const Args& p) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  reinterpret_cast<float4*>(p.out)[i] = reinterpret_cast<const float4*>(p.in)[i];
}
// A stride of 8 words: a sector for every lane.
void strided(const Args& p) { p.words[threadIdx.x] = static_cast<unsigned>(p.in[threadIdx.x * 8]); }
// A loop: each turn is an access of its own.
void looped(const Args& p) {
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += p.in[i * 32 + threadIdx.x];
  p.out[threadIdx.x] = sum;
}
// A column of a 32-wide array, or of a padded one.
template <int kWidth>
void column(const Args& p) {
  float* s = reinterpret_cast<float*>(dynamic_shared());
  s[threadIdx.x * kWidth] = p.in[threadIdx.x];  // conflict
  __syncwarp();
  p.out[threadIdx.x] = s[threadIdx.x * kWidth];
}
void copies(const Args& p) {
  uint64_t* bar = reinterpret_cast<uint64_t*>(dynamic_shared());
  float* tile = reinterpret_cast<float*>(dynamic_shared() + 128);
  if (threadIdx.x == 0) {
    mbarrier_init(bar, 1);
    fence_mbarrier_init_cluster();
    mbarrier_arrive_expect_tx(bar, 512);
    bulk_copy_global_to_shared(tile, p.in, 512, bar);
  }
  __syncthreads();
  while (!mbarrier_try_wait_parity(bar, 0)) {
  }
  if (threadIdx.x == 0) {
    bulk_copy_shared_to_global(p.out, tile, 512);
    bulk_commit_group();
    bulk_wait_group(0);
  }
}

// Every kind of synchronisation, each needed; one line each.
void mutated(const Args& p) {
  uint64_t* bar = reinterpret_cast<uint64_t*>(dynamic_shared());
  float* tile = reinterpret_cast<float*>(dynamic_shared() + 128);
  const unsigned t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(bar, 1);
    fence_mbarrier_init_cluster();
  }
  __syncthreads();
  if (t == 0) {
    mbarrier_arrive_expect_tx(bar, 256);
    bulk_copy_global_to_shared(tile, p.in, 256, bar);
  }
  while (!mbarrier_try_wait_parity(bar, 0)) {
  }
  const float mine = tile[t];
  bar_sync(1, 64);
  tile[63 - t] = mine;
  __syncwarp();
  tile[64 + t] = tile[63 - (t ^ 1)];
  fence_proxy_async();
  __syncthreads();
  if (t == 0) {
    bulk_copy_shared_to_global(p.out, tile + 64, 256);
    bulk_commit_group();
    bulk_wait_group(0);
  }
}

// What the performance test runs: a row held by a cluster, reduced and normalised.
void row(const Args& p) {
  float* s = reinterpret_cast<float*>(dynamic_shared());
  float* parts = s + 4096;
  const unsigned t = threadIdx.x;
  const unsigned n = 4096;
  const float4* in = reinterpret_cast<const float4*>(p.in) + blockIdx.x * n / 4;
  float sum = 0;
  for (unsigned i = t; i < n / 4; i += blockDim.x) {
    const float4 v = in[i];
    reinterpret_cast<float4*>(s)[i] = v;
    sum += v.x + v.y + v.z + v.w;
  }
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  if (t % 32 == 0) parts[t / 32] = sum;
  __syncthreads();
  float total = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += parts[w];
  float4* out = reinterpret_cast<float4*>(p.out) + blockIdx.x * n / 4;
  for (unsigned i = t; i < n / 4; i += blockDim.x) {
    float4 v = reinterpret_cast<float4*>(s)[i];
    v.x /= total;
    v.y /= total;
    v.z /= total;
    v.w /= total;
    out[i] = v;
  }
}

}  // namespace

#define ALL(K) K(coalesced) K(vectors) K(strided) K(looped) K(copies) K(mutated) K(row)
#define ENTRY(name) CUDA_EMULATOR_ENTRY(name, Args, name)
ALL(ENTRY)
CUDA_EMULATOR_ENTRY(column_32, Args, column<32>)
CUDA_EMULATOR_ENTRY(column_33, Args, column<33>)
CUDA_EMULATOR_ENTRY(limited, Args, coalesced)

#define ROW_COMMA(name) ROW(name),
CUDA_EMULATOR_TABLE(test_traffic, ALL(ROW_COMMA) ROW(column_32), ROW(column_33),
                    CUDA_EMULATOR_KERNEL(limited, Args, 128))
