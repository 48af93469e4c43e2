// The threads that share a row, and how their partial results become one.
//
// A partial P is a plain struct of up to four floats with `P::empty()` and `P::merge(a, b)`; an
// operation whose partials merge by more than they hold gives the function.
// Merging has a fixed order: a binary tree over the lanes of a warp, the same over the warps of a
// row, the same over the blocks of a cluster. Every thread gets the same bits.
#pragma once

#include "common/columns.cuh"
#include "platform/platform.h"
#include "ptx/barrier.cuh"
#include "ptx/cluster.cuh"
#include "ptx/mbarrier.cuh"

#if !defined(__CUDACC__)
#include <cstring>
#endif

namespace evenkeel {

inline constexpr uint32_t kAllLanes = 0xffffffffu;
inline constexpr int kMaxTeamWarps = 32;
inline constexpr int kMaxTeamBlocks = 16;

// A partial as it travels.
template <typename P>
struct Message {
  static constexpr int kWords = sizeof(P) / 4;
  static_assert(sizeof(P) % 4 == 0 && sizeof(P) <= 16, "a partial travels as one vector");

  EVENKEEL_DEVICE static uint4 of(const P& part) {
    uint4 message = {};
    memcpy(&message, &part, sizeof(P));
    return message;
  }
  EVENKEEL_DEVICE static P from(const uint4& message) {
    P part;
    memcpy(&part, &message, sizeof(P));
    return part;
  }
  EVENKEEL_DEVICE static P shuffle_down(const P& part, unsigned offset, int width) {
    float words[kWords];
    memcpy(words, &part, sizeof(P));
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      words[i] = __shfl_down_sync(kAllLanes, words[i], offset, width);
    }
    P other;
    memcpy(&other, words, sizeof(P));
    return other;
  }
  EVENKEEL_DEVICE static P broadcast(const P& part, int width) {
    float words[kWords];
    memcpy(words, &part, sizeof(P));
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = __shfl_sync(kAllLanes, words[i], 0, width);
    P other;
    memcpy(&other, words, sizeof(P));
    return other;
  }
};

// How two partials merge, unless an operation says otherwise.
struct MergePartials {
  template <typename P>
  EVENKEEL_DEVICE P operator()(const P& a, const P& b) const {
    return P::merge(a, b);
  }
};

// The partials of each `width` lanes (a power of two), merged, in all of them.
template <typename P, typename Merge = MergePartials>
EVENKEEL_DEVICE P merge_lanes(P part, int width, Merge merge = {}) {
  for (int offset = width / 2; offset > 0; offset /= 2) {
    part = merge(part, Message<P>::shuffle_down(part, static_cast<unsigned>(offset), width));
  }
  return Message<P>::broadcast(part, width);
}

struct alignas(16) TeamShared {
  // Of two merges in turn: a warp may begin the next while another still reads.
  uint4 warps[2][kMaxTeamWarps];
};

// Lanes of a warp, or warps of a block. A block has several teams, which take rows in turn; all
// threads of a block go the same number of rounds, so that teams may share a warp.
class LocalTeam {
 public:
  using Shared = TeamShared;
  static constexpr bool kCluster = false;

  EVENKEEL_DEVICE LocalTeam(const RowGrid& grid, Shared& shared)
      : shared_(shared),
        threads_(grid.threads),
        rank_(threadIdx.x % grid.threads),
        index_(threadIdx.x / grid.threads) {}

  // Of this block's part of the row.
  EVENKEEL_DEVICE uint32_t threads() const { return threads_; }
  EVENKEEL_DEVICE uint32_t rank() const { return rank_; }
  // Of the teams of a block.
  EVENKEEL_DEVICE uint32_t index() const { return index_; }
  EVENKEEL_DEVICE uint32_t count() const { return blockDim.x / threads_; }
  // Of the units (blocks, clusters) over which rows are dealt out.
  EVENKEEL_DEVICE uint32_t worker() const { return blockIdx.x; }
  EVENKEEL_DEVICE uint32_t workers() const { return gridDim.x; }
  // The one thread that speaks for the row.
  EVENKEEL_DEVICE bool leads() const { return rank_ == 0; }
  // The first of this block's columns, and this thread's part of every row.
  template <typename Layout>
  EVENKEEL_DEVICE uint32_t first_column(const RowGrid&) const {
    return 0;
  }
  template <typename Layout>
  EVENKEEL_DEVICE Columns<Layout> columns(const RowGrid& grid) const {
    return Columns<Layout>::of(rank_, threads_, 0, grid.columns);
  }

  // Orders the team's accesses to shared memory.
  EVENKEEL_DEVICE void sync() const {
    if (threads_ <= 32) {
      __syncwarp();
    } else {
      ptx::bar_sync(1 + static_cast<int>(index_), static_cast<int>(threads_));
    }
  }

  // Whether any team of this thread's warp says so: teams that share a warp must stay together.
  EVENKEEL_DEVICE bool any(bool here) const { return __any_sync(kAllLanes, here) != 0; }

  template <typename P, typename Merge = MergePartials>
  EVENKEEL_DEVICE P merge(P part, Merge merge = {}) {
    if (threads_ <= 32) return merge_lanes(part, static_cast<int>(threads_), merge);
    part = merge_lanes(part, 32, merge);
    uint4* const box = shared_.warps[round_ % 2];
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t warps = threads_ / 32;
    if (lane == 0) box[threadIdx.x / 32] = Message<P>::of(part);
    // Publishes the warps' partials; the box was last read before the barrier of the merge before.
    sync();
    ++round_;
    const P of_warp = lane < warps ? Message<P>::from(box[index_ * warps + lane]) : P::empty();
    return merge_lanes(of_warp, kMaxTeamWarps, merge);
  }

  // Merges of warps so far.
  EVENKEEL_DEVICE uint32_t round() const { return round_; }

  EVENKEEL_DEVICE void leave() const {}

 private:
  Shared& shared_;
  uint32_t threads_;
  uint32_t rank_;
  uint32_t index_;
  uint32_t round_ = 0;
};

struct alignas(16) ClusterTeamShared {
  TeamShared team;
  // Of two merges in turn: the blocks' partials.
  uint4 inbox[2][kMaxTeamBlocks];
  uint64_t full[2];
  // In each sender: the blocks that have read what it sent into this box.
  uint64_t read[2];
};

// All threads of a cluster of blocks, each block with a run of the row's columns.
class ClusterTeam {
 public:
  using Shared = ClusterTeamShared;
  static constexpr bool kCluster = true;

  EVENKEEL_DEVICE ClusterTeam(const RowGrid& grid, Shared& shared)
      : shared_(shared), local_(grid, shared.team) {
    if (threadIdx.x == 0) {
      for (int box = 0; box < 2; ++box) {
        ptx::mbarrier_init(&shared_.full[box], 1);
        ptx::mbarrier_init(&shared_.read[box], ptx::cluster_nctarank());
      }
      ptx::fence_mbarrier_init();
    }
    // Brings the warp together for barrier.cluster.aligned.
    __syncwarp();
    // No block may send to a peer that has not begun, nor before its barriers exist.
    ptx::cluster_sync();
  }

  EVENKEEL_DEVICE uint32_t threads() const { return local_.threads(); }
  EVENKEEL_DEVICE uint32_t rank() const { return local_.rank(); }
  EVENKEEL_DEVICE uint32_t index() const { return 0; }
  EVENKEEL_DEVICE uint32_t count() const { return 1; }
  EVENKEEL_DEVICE uint32_t worker() const { return blockIdx.x / ptx::cluster_nctarank(); }
  EVENKEEL_DEVICE uint32_t workers() const { return gridDim.x / ptx::cluster_nctarank(); }
  EVENKEEL_DEVICE bool leads() const { return ptx::cluster_ctarank() == 0 && local_.leads(); }
  template <typename Layout>
  EVENKEEL_DEVICE uint32_t first_column(const RowGrid& grid) const {
    return ptx::cluster_ctarank() * (threads() * Layout::kColumns * grid.segments);
  }
  template <typename Layout>
  EVENKEEL_DEVICE Columns<Layout> columns(const RowGrid& grid) const {
    const uint32_t first = first_column<Layout>(grid);
    const uint32_t end = first + threads() * Layout::kColumns * grid.segments;
    return Columns<Layout>::of(rank(), threads(), first, min(end, grid.columns));
  }
  EVENKEEL_DEVICE void sync() const { local_.sync(); }
  EVENKEEL_DEVICE bool any(bool here) const { return here; }

  template <typename P, typename Merge = MergePartials>
  EVENKEEL_DEVICE P merge(P part, Merge merge = {}) {
    const uint32_t round = local_.round();
    part = local_.merge(part, merge);
    const uint32_t blocks = ptx::cluster_nctarank();
    const uint32_t box = round % 2;
    const uint32_t parity = round / 2 % 2;
    if (threadIdx.x == 0) {
      ptx::mbarrier_arrive_expect_tx(&shared_.full[box], blocks * sizeof(uint4));
    }
    if (threadIdx.x < blocks) {
      // All threads of this block have passed the local merge's barrier, so the box of the merge
      // before has been read here.
      if (round > 0) ptx::mbarrier_arrive_remote(&shared_.read[box ^ 1], threadIdx.x);
      // What this block sent into these boxes two merges ago must have been read; the first two
      // merges pass.
      ptx::mbarrier_wait(&shared_.read[box], parity ^ 1);
      ptx::store_async_16(&shared_.inbox[box][ptx::cluster_ctarank()], Message<P>::of(part),
                          &shared_.full[box], threadIdx.x);
    }
    // Brings the warp together for the merge of its lanes.
    __syncwarp();
    ptx::mbarrier_wait(&shared_.full[box], parity);
    // Both halves of the warp merge all of them.
    const uint32_t block = threadIdx.x % kMaxTeamBlocks;
    const P of_block = block < blocks ? Message<P>::from(shared_.inbox[box][block]) : P::empty();
    return merge_lanes(of_block, kMaxTeamBlocks, merge);
  }

  EVENKEEL_DEVICE void leave() const {
    // A block that left would take its inbox away from peers that still write to it.
    __syncwarp();
    ptx::cluster_sync();
  }

 private:
  Shared& shared_;
  LocalTeam local_;
};

}  // namespace evenkeel
