// Asynchronous copies: cp.async, bulk copies, mbarriers, proxy fences.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

struct Layout {
  alignas(128) float tile[2][256];
  alignas(8) uint64_t full[2];
  uint64_t empty[2];
};
__forceinline__ Layout& layout() { return *reinterpret_cast<Layout*>(dynamic_shared()); }

__forceinline__ void wait(uint64_t* bar, unsigned parity) {
  while (!mbarrier_try_wait_parity(bar, parity)) {  // bulk-bytes
  }
}

// cp.async, then a read of the thread's own bytes.
template <bool kRight>
void cp_wait(const Args& p) {
  float* tile = layout().tile[0];
  const unsigned t = threadIdx.x;
  cp_async(tile + 4 * t, p.in + 4 * t, 16);
  cp_async_commit_group();
  if (kRight) cp_async_wait_group(0);
  p.out[t] = tile[4 * t + 1];  // cp-wait
}

// Two groups; the read needs the first, the second stays in flight.
template <bool kRight>
void cp_groups(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    cp_async(&s.tile[i][t], p.in + 64 * i + t, 4);
    cp_async_commit_group();
  }
  cp_async_wait_group(1);
  p.out[t] = s.tile[kRight ? 0 : 1][t];  // cp-groups
  cp_async_wait_group(0);
  p.out[64 + t] = s.tile[1][t];
}

// Another thread's copy: its wait and a barrier.
template <bool kRight>
void cp_shared(const Args& p) {
  float* tile = layout().tile[0];
  const unsigned t = threadIdx.x;
  cp_async(tile + t, p.in + t, 4);
  cp_async_commit_group();
  cp_async_wait_group(0);
  if (kRight) __syncthreads();
  p.out[t] = tile[blockDim.x - 1 - t];  // cp-shared
}

void cp_zero_fill(const Args& p) {
  float* tile = layout().tile[0];
  const unsigned t = threadIdx.x;
  cp_async(tile + 4 * t, p.in + 4 * t, 16, t == 0 ? 8 : 16);
  cp_async_commit_group();
  cp_async_wait_group(0);
  for (int i = 0; i < 4; ++i) p.out[4 * t + i] = tile[4 * t + i];
}

// cp.async signals an mbarrier instead of a group.
template <bool kRight>
void cp_mbarrier(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  if (t == 0) mbarrier_init(&s.full[0], blockDim.x);
  __syncthreads();
  cp_async(s.tile[0] + t, p.in + t, 4);
  if (kRight) {
    cp_async_mbarrier_arrive_noinc(&s.full[0]);
  } else {
    mbarrier_arrive(&s.full[0]);
  }
  wait(&s.full[0], 0);
  p.out[t] = s.tile[0][blockDim.x - 1 - t];  // cp-mbarrier
}

__forceinline__ void start(Layout& s, unsigned count, bool fence = true) {
  if (threadIdx.x == 0) {
    mbarrier_init(&s.full[0], count);
    if (fence) fence_mbarrier_init_cluster();
  }
  __syncthreads();
}

// A bulk copy is read by everybody.
template <bool kRight>
void bulk_wait(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  start(s, 1);
  if (t == 0) {
    mbarrier_arrive_expect_tx(&s.full[0], 1024);
    bulk_copy_global_to_shared(s.tile[0], p.in, 1024, &s.full[0]);
  }
  if (kRight) wait(&s.full[0], 0);
  p.out[t] = s.tile[0][t];  // bulk-wait
}

// The barrier expects fewer bytes than arrive: it never completes.
template <bool kRight>
void bulk_bytes(const Args& p) {
  Layout& s = layout();
  start(s, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&s.full[0], kRight ? 1024 : 512);
    bulk_copy_global_to_shared(s.tile[0], p.in, 1024, &s.full[0]);
  }
  wait(&s.full[0], 0);
  p.out[threadIdx.x] = s.tile[0][threadIdx.x];
}

template <bool kRight>
void bulk_unfenced(const Args& p) {
  Layout& s = layout();
  start(s, 1, kRight);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&s.full[0], 1024);
    bulk_copy_global_to_shared(s.tile[0], p.in, 1024, &s.full[0]);  // bulk-unfenced
  }
  wait(&s.full[0], 0);
  p.out[threadIdx.x] = s.tile[0][threadIdx.x];
}

template <bool kRight>
void bulk_size(const Args& p) {
  Layout& s = layout();
  start(s, 1);
  const unsigned bytes = kRight ? 48 : 40;
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&s.full[0], bytes);
    bulk_copy_global_to_shared(s.tile[0], p.in, bytes, &s.full[0]);  // bulk-size
  }
  wait(&s.full[0], 0);
  p.out[threadIdx.x] = s.tile[0][threadIdx.x % 8];
}

template <bool kRight>
void bulk_alignment(const Args& p) {
  Layout& s = layout();
  start(s, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&s.full[0], 64);
    const float* source = p.in + (kRight ? 4 : 1);
    bulk_copy_global_to_shared(s.tile[0], source, 64, &s.full[0]);  // bulk-alignment
  }
  wait(&s.full[0], 0);
  p.out[threadIdx.x] = s.tile[0][threadIdx.x % 8];
}

// Written by threads, stored by the copy engine: the writers' proxy fence.
template <bool kRight>
void proxy_fence(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  s.tile[0][t] = p.in[t] * 2;
  if (kRight) fence_proxy_async();
  __syncthreads();
  if (t == 0) {
    bulk_copy_shared_to_global(p.out, s.tile[0], blockDim.x * 4);  // proxy-fence
    bulk_commit_group();
    bulk_wait_group(0);
  }
}

// The source is overwritten while the copy may still read it.
template <bool kRight>
void store_reuse(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  for (int i = 0; i < 4; ++i) {
    s.tile[0][t] = p.in[32 * i + t];  // store-reuse
    fence_proxy_async();
    __syncwarp();
    if (t == 0) {
      bulk_copy_shared_to_global(p.out + 32 * i, s.tile[0], 128);
      bulk_commit_group();
      if (kRight) bulk_wait_group_read(0);
    }
    __syncwarp();
  }
  if (t == 0) bulk_wait_group(0);
}

// A result is read back after its source was only read, or before it was written.
template <bool kRight>
void store_visible(const Args& p) {
  Layout& s = layout();
  s.tile[0][threadIdx.x] = 3;
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_copy_shared_to_global(p.out, s.tile[0], 128);
    bulk_commit_group();
    if (kRight) {
      bulk_wait_group(0);
    } else {
      bulk_wait_group_read(0);
    }
    p.out[40] = p.out[5] + 1;  // store-visible
    bulk_wait_group(0);
  }
}

// A block ends while the copy engine still reads its shared memory.
template <bool kRight>
void store_exit(const Args& p) {
  Layout& s = layout();
  s.tile[0][threadIdx.x] = 3;
  fence_proxy_async();
  __syncwarp();
  if (threadIdx.x == 0) {
    bulk_copy_shared_to_global(p.out, s.tile[0], 128);  // store-exit
    bulk_commit_group();
    if (kRight) bulk_wait_group_read(0);
  }
}

// A ring of two stages: a producer warp, 64 consumers.
template <bool kRight>
void pipeline(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  if (t == 0) {
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(&s.full[i], 1);
      mbarrier_init(&s.empty[i], 64);
    }
    fence_mbarrier_init_cluster();
  }
  __syncthreads();
  const int tiles = static_cast<int>(p.n / 256);
  if (t >= 64) {
    if (elect_one()) {
      for (int i = 0; i < tiles; ++i) {
        const int stage = i % 2;
        if (kRight) wait(&s.empty[stage], (i / 2 + 1) & 1);
        mbarrier_arrive_expect_tx(&s.full[stage], 1024);
        bulk_copy_global_to_shared(s.tile[stage], p.in + 256 * i, 1024, &s.full[stage]);
      }
    }
  } else {
    float sum = 0;
    for (int i = 0; i < tiles; ++i) {
      const int stage = i % 2;
      wait(&s.full[stage], (i / 2) & 1);
      for (int j = 0; j < 4; ++j) sum += s.tile[stage][t + 64 * j];
      mbarrier_arrive(&s.empty[stage]);
    }
    p.out[t] = sum;
  }
}

template <bool kRight>
void uninitialised_mbarrier(const Args& p) {
  Layout& s = layout();
  if (kRight && threadIdx.x == 0) mbarrier_init(&s.full[0], blockDim.x);
  __syncthreads();
  mbarrier_arrive(&s.full[0]);  // uninitialised-mbarrier
  p.out[threadIdx.x] = 1;
}

template <bool kRight>
void init_race(const Args& p) {
  Layout& s = layout();
  if (threadIdx.x == 0) mbarrier_init(&s.full[0], blockDim.x);
  if (kRight) __syncthreads();
  if (!kRight && threadIdx.x != 0) {
    // Gives thread 0 time, but no order.
    for (int i = 0; i < 3; ++i) __nanosleep(10);
  }
  mbarrier_arrive(&s.full[0]);  // init-race
  p.out[threadIdx.x] = 1;
}

template <bool kRight>
void over_arrival(const Args& p) {
  Layout& s = layout();
  start(s, kRight ? 64 : 16);
  if (threadIdx.x == 0) mbarrier_expect_tx(&s.full[0], 16);
  __syncthreads();
  mbarrier_arrive(&s.full[0]);  // over-arrival
  if (threadIdx.x == 0) bulk_copy_global_to_shared(s.tile[0], p.in, 16, &s.full[0]);
  wait(&s.full[0], 0);
}

// Arrival without a consumer's wait: values published through an mbarrier alone.
template <bool kRight>
void mbarrier_orders(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  start(s, 64);
  s.tile[0][t] = p.in[t];
  mbarrier_arrive(&s.full[0]);
  if (kRight) wait(&s.full[0], 0);
  p.out[t] = s.tile[0][63 - t];  // mbarrier-orders
}

template <bool kRight>
void plain_access(const Args& p) {
  Layout& s = layout();
  start(s, 64);
  if (!kRight && threadIdx.x == 5) s.full[0] = 0;  // plain-access
  mbarrier_arrive(&s.full[0]);
  p.out[threadIdx.x] = 1;
}

}  // namespace

#define ALL(K)      \
  K(cp_wait)        \
  K(cp_groups)      \
  K(cp_shared)      \
  K(cp_mbarrier)    \
  K(bulk_wait)      \
  K(bulk_bytes)     \
  K(bulk_unfenced)  \
  K(bulk_size)      \
  K(bulk_alignment) \
  K(proxy_fence)    \
  K(store_reuse)    \
  K(store_visible)  \
  K(store_exit)     \
  K(pipeline)       \
  K(uninitialised_mbarrier) K(init_race) K(over_arrival) K(mbarrier_orders) K(plain_access)
ALL(WRONG_AND_RIGHT)
CUDA_EMULATOR_ENTRY(cp_zero_fill, Args, cp_zero_fill)

#define ROWS_COMMA(name) ROWS(name),
CUDA_EMULATOR_TABLE(test_async, ALL(ROWS_COMMA) ROW(cp_zero_fill))
