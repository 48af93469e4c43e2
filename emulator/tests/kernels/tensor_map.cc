// Copies of boxes by a tensor map.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

struct TensorArgs {
  alignas(64) uint64_t map[16];
  unsigned* out;
  int32_t at[5];
  int32_t rank;
  uint32_t bytes;  // of the box
  uint32_t announced;
};

struct Layout {
  alignas(1024) unsigned char tile[8192];
  uint64_t full;
};
__forceinline__ Layout& layout() { return *reinterpret_cast<Layout*>(dynamic_shared()); }
__forceinline__ unsigned* words() { return reinterpret_cast<unsigned*>(layout().tile); }

__forceinline__ void start(unsigned count = 1) {
  if (threadIdx.x == 0) {
    mbarrier_init(&layout().full, count);
    fence_mbarrier_init_cluster();
  }
  __syncthreads();
}
__forceinline__ void wait() {
  while (!mbarrier_try_wait_parity(&layout().full, 0)) {  // tensor-bytes
  }
}
__forceinline__ void copy_out(const TensorArgs& p, unsigned offset = 0) {
  for (unsigned i = threadIdx.x; i < p.bytes / 4; i += blockDim.x) {
    p.out[offset + i] = words()[i];  // tensor-wait
  }
}

// One box; its place in shared memory is `kShift` past an aligned one.
template <bool kWaits, int kShift>
void load(const TensorArgs& p) {
  start();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&layout().full, p.announced);
    tensor_load(layout().tile + kShift, p.map, &layout().full, p.at, p.rank);  // tensor-load
  }
  if (kWaits) wait();
  copy_out(p);
}
void tensor_box(const TensorArgs& p) { load<true, 0>(p); }
void tensor_no_wait(const TensorArgs& p) { load<false, 0>(p); }
void tensor_shifted(const TensorArgs& p) { load<true, 64>(p); }

// A map that lies in the thread's own memory.
void tensor_local_map(const TensorArgs& p) {
  start();
  alignas(64) uint64_t map[16];
  for (int i = 0; i < 16; ++i) map[i] = p.map[i];
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&layout().full, p.announced);
    tensor_load(layout().tile, map, &layout().full, p.at, p.rank);  // tensor-local-map
  }
  wait();
  copy_out(p);
}

// Both blocks of a cluster get the box.
void tensor_multicast(const TensorArgs& p) {
  start();
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&layout().full, p.announced);
    if (cluster_ctarank() == 0) {
      tensor_load_multicast(layout().tile, p.map, &layout().full, p.at, p.rank, 3);  // multicast
    }
  }
  wait();
  copy_out(p, cluster_ctarank() * p.bytes / 4);
  cluster_arrive();
  cluster_wait();
}

// Each thread writes its words, one stores the box.
template <bool kFence, bool kReads>
__forceinline__ void store(const TensorArgs& p) {
  for (unsigned i = threadIdx.x; i < p.bytes / 4; i += blockDim.x) {
    words()[i] = i + 1;
  }
  if (kFence) fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tensor_store(p.map, layout().tile, p.at, p.rank);  // tensor-store
    bulk_commit_group();
    if (kReads) bulk_wait_group_read(0);
  }
  __syncthreads();
  words()[threadIdx.x] = 0;  // tensor-reuse
  if (threadIdx.x == 0) bulk_wait_group(0);
}
void tensor_store_box(const TensorArgs& p) { store<true, true>(p); }
void tensor_store_unfenced(const TensorArgs& p) { store<false, true>(p); }
void tensor_store_reused(const TensorArgs& p) { store<true, false>(p); }

// Boxes of all blocks are added up.
void tensor_add(const TensorArgs& p) {
  float* tile = reinterpret_cast<float*>(layout().tile);
  for (unsigned i = threadIdx.x; i < p.bytes / 4; i += blockDim.x) {
    // Where nothing is announced: numbers whose sum depends on the order.
    tile[i] = static_cast<float>(i * (blockIdx.x + 1)) * (p.announced == 0 ? 0.1f : 1.0f);
  }
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tensor_reduce_add(p.map, tile, p.at, p.rank);  // tensor-add
    bulk_commit_group();
    bulk_wait_group(0);
  }
}

}  // namespace

#define ALL(K)        \
  K(tensor_box)       \
  K(tensor_no_wait)   \
  K(tensor_shifted)   \
  K(tensor_local_map) \
  K(tensor_multicast) \
  K(tensor_store_box) \
  K(tensor_store_unfenced) K(tensor_store_reused) K(tensor_add)
#define ENTRY(name) CUDA_EMULATOR_ENTRY(name, TensorArgs, name)
ALL(ENTRY)
#define ROW_COMMA(name) CUDA_EMULATOR_KERNEL(name, TensorArgs, 1024),
CUDA_EMULATOR_TABLE(test_tensor_map, ALL(ROW_COMMA))
