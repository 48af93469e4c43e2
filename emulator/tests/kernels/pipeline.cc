// A product as Hopper runs it: a warp loads boxes by tensor maps into two stages, a warpgroup
// multiplies them and stores the result by a tensor map.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

constexpr unsigned kRows = 64, kColumns = 64, kSlice = 128, kStages = 2, kConsumers = 128;

struct PipelineArgs {
  alignas(64) uint64_t a[16];    // [rows, K] bytes, boxes of 64 x 128
  alignas(64) uint64_t b[16];    // [columns, K] bytes, boxes of 64 x 128
  alignas(64) uint64_t out[16];  // [rows, columns] f32, boxes of 64 x 32 without a swizzle
  uint32_t slices;
  uint32_t early;  // releases a stage before its products are done
};

struct Layout {
  alignas(1024) unsigned char a[kStages][kRows * kSlice];
  alignas(1024) unsigned char b[kStages][kColumns * kSlice];
  alignas(128) float out[2][kRows * 32];
  uint64_t full[kStages], empty[kStages];
};

__forceinline__ void wait(uint64_t* bar, unsigned parity) {
  while (!mbarrier_try_wait_parity(bar, parity)) {
  }
}
__forceinline__ uint64_t descriptor(const void* start) {
  // Rows of 128 bytes, 8 of them a pattern of 1024.
  return (shared_offset(start) >> 4) | (uint64_t{1024 >> 4} << 32) | (uint64_t{1} << 62);
}

__forceinline__ void produce(const PipelineArgs& p, Layout& s) {
  if (!elect_one()) return;
  for (unsigned i = 0; i < p.slices; ++i) {
    const unsigned stage = i % kStages, round = i / kStages;
    wait(&s.empty[stage], (round + 1) % 2);  // empty-wait
    mbarrier_arrive_expect_tx(&s.full[stage], sizeof(s.a[0]) + sizeof(s.b[0]));
    const int32_t a_at[] = {static_cast<int32_t>(kSlice * i),
                            static_cast<int32_t>(kRows * blockIdx.x)};
    const int32_t b_at[] = {a_at[0], static_cast<int32_t>(kColumns * blockIdx.y)};
    tensor_load(s.a[stage], p.a, &s.full[stage], a_at, 2);  // load-a
    tensor_load(s.b[stage], p.b, &s.full[stage], b_at, 2);
  }
}

__forceinline__ void consume(const PipelineArgs& p, Layout& s) {
  const unsigned t = threadIdx.x;
  float d[kColumns / 2], sum[kColumns / 2] = {};
  for (unsigned i = 0; i < p.slices; ++i) {
    const unsigned stage = i % kStages, round = i / kStages;
    wait(&s.full[stage], round % 2);
    wgmma_fence();
    for (unsigned k = 0; k < kSlice / 32; ++k) {
      wgmma(code::kE4m3, code::kE4m3, kColumns, false, false, d, nullptr,
            descriptor(s.a[stage]) + 2 * k, descriptor(s.b[stage]) + 2 * k, k > 0);
    }
    wgmma_commit_group();
    if (p.early) mbarrier_arrive(&s.empty[stage]);
    wgmma_wait_group(0);
    if (!p.early) mbarrier_arrive(&s.empty[stage]);
    for (unsigned j = 0; j < kColumns / 2; ++j) sum[j] += d[j];
  }
  for (unsigned j = 0; j < kColumns / 2; ++j) {
    const unsigned row = 16 * (t / 32) + t % 32 / 4 + 8 * (j / 2 % 2);
    const unsigned column = 8 * (j / 4) + 2 * (t % 4) + j % 2;
    s.out[column / 32][32 * row + column % 32] = sum[j];
  }
  fence_proxy_async();
  bar_sync(1, kConsumers);
  if (t == 0) {
    for (int half = 0; half < 2; ++half) {
      const int32_t at[] = {static_cast<int32_t>(kColumns * blockIdx.y) + 32 * half,
                            static_cast<int32_t>(kRows * blockIdx.x)};
      tensor_store(p.out, s.out[half], at, 2);
    }
    bulk_commit_group();
    bulk_wait_group(0);
  }
}

void tensor_pipeline(const PipelineArgs& p) {
  Layout& s = *reinterpret_cast<Layout*>(dynamic_shared());
  if (threadIdx.x == 0) {
    for (unsigned stage = 0; stage < kStages; ++stage) {
      mbarrier_init(&s.full[stage], 1);
      mbarrier_init(&s.empty[stage], kConsumers);
    }
    fence_mbarrier_init_cluster();
  }
  __syncthreads();
  if (threadIdx.x < kConsumers) {
    consume(p, s);
  } else {
    produce(p, s);
  }
}

}  // namespace

CUDA_EMULATOR_ENTRY(tensor_pipeline, PipelineArgs, tensor_pipeline)
CUDA_EMULATOR_TABLE(test_pipeline, CUDA_EMULATOR_KERNEL(tensor_pipeline, PipelineArgs, 160))
