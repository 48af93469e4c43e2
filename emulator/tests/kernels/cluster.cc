// Clusters: distributed shared memory, cluster barriers, remote mbarriers, st.async, multicast.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

struct Layout {
  alignas(128) float tile[256];
  alignas(8) uint64_t full;
};
__forceinline__ Layout& layout() { return *reinterpret_cast<Layout*>(dynamic_shared()); }

__forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

__forceinline__ void wait(uint64_t* bar, unsigned parity) {
  while (!mbarrier_try_wait_parity_cluster(bar, parity)) {
  }
}

__forceinline__ unsigned next_rank() { return (cluster_ctarank() + 1) % cluster_nctarank(); }

// Each block reads its neighbour's values.
template <bool kSync, bool kStay>
__forceinline__ void exchange(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  const unsigned i = blockIdx.x * blockDim.x + t;
  s.tile[t] = p.in[i];
  cluster_arrive();
  if (kSync) cluster_wait();
  const float* theirs = static_cast<const float*>(cluster_map_shared(s.tile, next_rank()));
  p.out[i] = theirs[t];  // exchange
  if (!kSync) cluster_wait();
  if (kStay) cluster_sync();
}
template <bool kRight>
void cluster_race(const Args& p) {
  exchange<kRight, true>(p);
}

// As above, without the last barrier: the neighbour may be gone.
template <bool kRight>
void exits_early(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  const unsigned i = blockIdx.x * blockDim.x + t;
  s.tile[t] = p.in[i];
  cluster_sync();
  const float* theirs = static_cast<const float*>(cluster_map_shared(s.tile, next_rank()));
  p.out[i] = theirs[t];  // exits-early
  if (kRight) cluster_sync();
}

// Nothing says that the neighbour has started.
template <bool kRight>
void unstarted(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  if (kRight) cluster_sync();
  float* theirs = static_cast<float*>(cluster_map_shared(s.tile, next_rank()));
  theirs[t] = p.in[t];  // unstarted
  cluster_sync();
  p.out[blockIdx.x * blockDim.x + t] = s.tile[t];
}

// st.async into the neighbour, which waits for the bytes.
template <bool kRight>
void send(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  const unsigned i = blockIdx.x * blockDim.x + t;
  if (t == 0) {
    mbarrier_init(&s.full, 1);
    fence_mbarrier_init_cluster();
    mbarrier_arrive_expect_tx(&s.full, blockDim.x * 4);
  }
  cluster_sync();
  const float value = p.in[i];
  st_async(cluster_map_shared(&s.tile[t], next_rank()), &value, 4,
           static_cast<uint64_t*>(cluster_map_shared(&s.full, next_rank())));
  if (kRight) wait(&s.full, 0);
  p.out[i] = s.tile[t];  // send
  cluster_sync();
}

// One block loads for all: multicast, and arrivals at a remote barrier.
template <bool kRight>
void multicast(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  const unsigned rank = cluster_ctarank();
  if (t == 0) {
    mbarrier_init(&s.full, 1);
    fence_mbarrier_init_cluster();
    mbarrier_arrive_expect_tx(&s.full, 256);
  }
  cluster_sync();
  if (rank == 0 && t == 0) {
    bulk_copy_global_to_shared_multicast(s.tile, p.in, 256, &s.full,
                                         (1u << cluster_nctarank()) - 1);
  }
  if (kRight) wait(&s.full, 0);
  p.out[blockIdx.x * blockDim.x + t] = s.tile[t];  // multicast
  cluster_sync();
}

// Shared memory to a peer's shared memory, with the writers' proxy fence.
template <bool kRight>
void push(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  const unsigned i = blockIdx.x * blockDim.x + t;
  s.tile[t] = p.in[i];
  if (kRight) fence_proxy_async();
  if (t == 0) {
    mbarrier_init(&s.full, 1);
    fence_mbarrier_init_cluster();
    mbarrier_arrive_expect_tx(&s.full, 256);
  }
  cluster_sync();
  if (t == 0) {
    void* theirs = cluster_map_shared(s.tile + 64, next_rank());
    auto* bar = static_cast<uint64_t*>(cluster_map_shared(&s.full, next_rank()));
    bulk_copy_shared_to_shared_cluster(theirs, s.tile, 256, bar);  // push
  }
  wait(&s.full, 0);
  p.out[i] = s.tile[64 + t];
  cluster_sync();
}

// Every thread of the cluster arrives at block 0's barrier; block 0 reads what they left.
template <bool kRight>
void gather(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x, rank = cluster_ctarank();
  if (rank == 0 && t == 0) mbarrier_init(&s.full, cluster_nctarank() * blockDim.x);
  fence_mbarrier_init_cluster();
  cluster_sync();
  float* first = static_cast<float*>(cluster_map_shared(s.tile, 0));
  if (t == 0) first[rank] = static_cast<float>(rank + 1);
  mbarrier_arrive_remote(static_cast<uint64_t*>(cluster_map_shared(&s.full, 0)));
  if (rank == 0) {
    if (kRight) wait(&s.full, 0);
    float sum = 0;
    for (unsigned r = 0; r < cluster_nctarank(); ++r) sum += s.tile[r];  // gather
    p.out[blockIdx.x / cluster_nctarank() * blockDim.x + t] = sum;
  }
  cluster_sync();
}

// A block leaves before a cluster barrier.
template <bool kRight>
void leaves_cluster(const Args& p) {
  if (!kRight && cluster_ctarank() == 1) return;
  cluster_arrive();  // leaves-cluster
  cluster_wait();
  p.out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

template <bool kRight>
void beyond_peer(const Args& p) {
  Layout& s = layout();
  cluster_sync();
  float* theirs = static_cast<float*>(cluster_map_shared(s.tile, next_rank()));
  theirs[kRight ? 3 : dynamic_shared_bytes() / 4] = 1;  // beyond-peer
  cluster_sync();
  (void)p;
}

// A barrier passed with relaxed arrival orders nothing.
template <bool kRight>
void relaxed_arrival(const Args& p) {
  Layout& s = layout();
  const unsigned t = threadIdx.x;
  const unsigned i = blockIdx.x * blockDim.x + t;
  cluster_sync();
  s.tile[t] = p.in[i];
  cluster_arrive(kRight);
  cluster_wait();
  const float* theirs = static_cast<const float*>(cluster_map_shared(s.tile, next_rank()));
  p.out[i] = theirs[t];  // relaxed-arrival
  cluster_sync();
}

}  // namespace

#define ALL(K)    \
  K(cluster_race) \
  K(exits_early)  \
  K(unstarted) K(send) K(multicast) K(push) K(gather) K(leaves_cluster) K(relaxed_arrival)
ALL(WRONG_AND_RIGHT)
CUDA_EMULATOR_ENTRY(beyond_peer_wrong, Args, beyond_peer<false>)

#define ROWS_COMMA(name) ROWS(name),
CUDA_EMULATOR_TABLE(test_cluster, ALL(ROWS_COMMA) ROW(beyond_peer_wrong))
