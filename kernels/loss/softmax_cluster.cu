// targets: 90a 100f
//
// The probability objectives fused with the softmax, Hopper path: a row lives in the shared memory
// of a cluster of blocks, so each logit is read from memory once and each gradient written once.
//
// Computes what softmax_block.cu computes (params.h; the mathematics is src/reference/loss.rs).
// Never materialised: probabilities, log-probabilities, one-hot targets, a second read of the row.
//
// Traffic: tokens * vocab * (logit + gradient) bytes, the gradient in place or elsewhere; ignored
// rows are not read. At 4.3 TB/s, nine tenths of an H200's nominal bandwidth, 8192 x 128256 bf16
// are 0.98 ms; nothing of this has been measured yet.
//
// Mapping: clusters are persistent and take the rows with the number of clusters as stride. Block r
// of a cluster of C holds the r-th run of the row's 16-byte vectors. In each block
//   - the producer warp keeps `stages` rows in flight by bulk copies, and brings along what a bulk
//     copy cannot: the ragged elements at both ends of the row (block 0) and the token's inputs;
//   - two consumer groups take the block's rows in turn. While one group waits for the cluster's
//     partials, the other one computes: the exchange costs latency, not throughput.
// A group's pass: gather its slice, merge by shuffles and through shared memory, send the block's
// partial to every block of the cluster (st.async, 16 bytes a message, completing on the receiver's
// mbarrier), merge the C partials in rank order (the same bits in every block), compute the row's
// coefficients, scatter the gradient from shared memory to global memory.
//
// Work per bf16 element, read off the compiled code for compute capability 9.0: about 7
// instructions in each pass, of them one ex2, where a multiprocessor can issue 26 in the time in
// which memory delivers and takes an element at the copy rate.

#include "loss/gather.cuh"
#include "loss/scatter.cuh"
#include "loss/summary.cuh"
#include "platform/platform.h"
#include "ptx/barrier.cuh"
#include "ptx/bulk_copy.cuh"
#include "ptx/cluster.cuh"
#include "ptx/mbarrier.cuh"

namespace evenkeel {
namespace {

inline constexpr int kGroups = 2;
inline constexpr int kMaxStages = 4;
inline constexpr int kMaxCluster = 16;
inline constexpr int kMaxGroupWarps = 6;
inline constexpr int kMaxEdges = 2 * (kVectorElements<bf16> - 1);
inline constexpr int kPartialVectors = sizeof(RowPartial) / sizeof(uint4);

// One row in flight, beside its slice of logits.
struct StageHeader {
  RowInputs inputs;
  uint32_t status;
  float edges[kMaxEdges];
};

struct alignas(16) ClusterShared {
  // Of each group, the partials of two rows: those that are read and those that arrive.
  uint4 inbox[kGroups][2][kMaxCluster][kPartialVectors];
  RowPartial warps[kGroups][kMaxGroupWarps];
  RowCoefficients row[kGroups];
  StageHeader header[kMaxStages];
  uint64_t full[kMaxStages][kGroups];
  uint64_t empty[kMaxStages];
  uint64_t inbox_full[kGroups][2];
  // In each sender: the blocks that have read what it sent into this box.
  uint64_t inbox_read[kGroups][2];
};

// The slices follow; bulk copies need multiples of 16 bytes. Small enough that three slices of
// 151936 bf16 logits over four blocks still fit.
inline constexpr int kSliceOffset = sizeof(ClusterShared);
static_assert(kSliceOffset % 16 == 0 && kSliceOffset == 4288, "src/loss/launch.rs states it");

// Block `rank`'s run of the row's vectors.
template <typename T>
EVENKEEL_DEVICE RowSlice cluster_slice(const RowShape& shape, uint32_t rank, uint32_t blocks) {
  const uint32_t vectors = static_cast<uint32_t>(shape.vectors);
  const uint32_t share = (vectors + blocks - 1) / blocks;
  const uint32_t first = min(rank * share, vectors);
  const uint32_t end = min(first + share, vectors);
  return {shape.head + static_cast<int>(first) * kVectorElements<T>, static_cast<int>(end - first)};
}

// The rows of a cluster: the k-th is token `first + k * stride`, the work of group k % kGroups.
struct RowWalk {
  int64_t first;
  int64_t stride;
};

// Where the k-th row stays, and which phases of its barriers are its own. A stage has a full
// barrier for each group: with one for both and an odd number of stages, the phases that a group
// waits for would all have one parity, and a group that runs ahead of a late copy for the other
// group would take an old phase for its own.
struct RowSlot {
  uint32_t stage;
  uint64_t* full;
  uint32_t full_parity;
  uint64_t* empty;
  uint32_t empty_parity;  // a fresh barrier's phase before the first counts as complete
};

EVENKEEL_DEVICE RowSlot row_slot(ClusterShared& shared, uint32_t stages, uint32_t k) {
  const uint32_t stage = k % stages;
  // A stage comes to the same group again after lcm(stages, kGroups) rows.
  const uint32_t period = stages % kGroups == 0 ? stages : stages * kGroups;
  return {stage, &shared.full[stage][k % kGroups], k / period % 2, &shared.empty[stage],
          (k / stages + 1) % 2};
}

// The producer's warp: fills the stages in turn, waiting for the consumers to leave them.
template <typename T>
struct Producer {
  const SoftmaxLossParams& params;
  ClusterShared& shared;
  unsigned char* slices;
  RowWalk walk;
  uint32_t rank;
  uint32_t blocks;
  int lane;
  // Of row k - k % 32 + lane: one load in 32 rows waits for memory before a copy can start.
  int64_t targets;
  uint32_t statuses;
  // Of the next row, on their way while this one's stage is waited for.
  int64_t target;
  uint32_t status;
  RowInputs inputs;
  float edge;

  EVENKEEL_DEVICE const T* logits(int64_t token) const {
    return static_cast<const T*>(params.logits) + token * params.logits_stride;
  }

  EVENKEEL_DEVICE void look_ahead(int64_t token, uint32_t k) {
    if (k % 32 == 0) {
      const int64_t mine = token + lane * walk.stride;
      statuses = 0;
      targets = mine < params.tokens ? load_target(params, mine, statuses) : kNoTarget;
    }
    target = __shfl_sync(0xffffffffu, targets, static_cast<int>(k % 32));
    status = __shfl_sync(0xffffffffu, statuses, static_cast<int>(k % 32));
    if (target == kNoTarget) return;
    if (lane == 0) inputs = load_inputs(params, token, target);
    const RowShape shape = row_shape(logits(token), params.vocab);
    if (rank == 0 && lane < shape.edges) {
      edge = to_float(logits(token)[edge_column<T>(shape, lane)]);
    }
  }

  EVENKEEL_DEVICE void run() {
    if (walk.first < params.tokens) look_ahead(walk.first, 0);
    uint32_t k = 0;
    for (int64_t token = walk.first; token < params.tokens; token += walk.stride, ++k) {
      const RowSlot slot = row_slot(shared, params.stages, k);
      ptx::mbarrier_wait(slot.empty, slot.empty_parity);
      StageHeader& header = shared.header[slot.stage];
      if (target != kNoTarget) {
        const RowShape shape = row_shape(logits(token), params.vocab);
        const RowSlice slice = cluster_slice<T>(shape, rank, blocks);
        if (lane == 0 && slice.vectors > 0) {
          const uint32_t bytes = static_cast<uint32_t>(slice.vectors) * 16;
          ptx::mbarrier_expect_tx(slot.full, bytes);
          ptx::bulk_copy_global_to_shared(
              slices + static_cast<size_t>(slot.stage) * params.stage_bytes,
              logits(token) + slice.column, bytes, slot.full);
        }
        if (rank == 0 && lane < shape.edges) header.edges[lane] = edge;
      }
      if (lane == 0) {
        header.inputs = inputs;
        header.inputs.target = target;
        header.status = status;
      }
      // Orders every lane's stores to the header before the arrival that publishes them.
      __syncwarp();
      if (lane == 0) ptx::mbarrier_arrive(slot.full);
      if (token + walk.stride < params.tokens) look_ahead(token + walk.stride, k + 1);
    }
  }
};

// One of the two groups that take a block's rows in turn.
template <typename T, typename G, bool kFull>
struct Consumer {
  const SoftmaxLossParams& params;
  ClusterShared& shared;
  const unsigned char* slices;
  RowWalk walk;
  uint32_t rank;
  uint32_t blocks;
  int group;
  int threads;  // of the group
  int rank_in_group;
  uint32_t turn;  // rows this group has exchanged
  uint32_t status;

  // The block's partial of a row, in lane 0 of the group's warp 0.
  template <Moments kMoments>
  EVENKEEL_DEVICE RowPartial gather_slice(const StageHeader& header, const RowShape& shape,
                                          const RowSlice& slice, SharedVectors vectors) {
    const int lane = rank_in_group % 32;
    const int warp = rank_in_group / 32;
    const int64_t target = header.inputs.target;
    RowPartial part = gather<T, kMoments>(params, slice, target, rank_in_group, threads, vectors);
    if (rank == 0 && rank_in_group < shape.edges) {
      const int column = edge_column<T>(shape, rank_in_group);
      part = merge<kMoments>(
          part, gather_edge<kMoments>(params, header.edges[rank_in_group], column, target));
    }
    part = warp_merge<kMoments>(part, 32);
    if (lane == 0) shared.warps[group][warp] = part;
    // Without this barrier warp 0 would merge partials of the group's row before.
    ptx::bar_sync(1 + group, threads);
    if (warp != 0) return part;
    const bool present = lane < threads / 32;
    return warp_merge<kMoments>(present ? shared.warps[group][lane] : empty_partial(), 32);
  }

  // Warp 0: sends this block's partial to every block and merges all of theirs into lane 0.
  template <Moments kMoments>
  EVENKEEL_DEVICE RowPartial exchange(RowPartial part) {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t box = turn % 2;
    const uint32_t parity = turn / 2 % 2;
    constexpr int kVectors = kMoments == Moments::kNone ? 1 : kMoments == Moments::kSome ? 2 : 3;
    constexpr uint32_t kBytes = kVectors * sizeof(uint4);
    uint64_t* const arrived = &shared.inbox_full[group][box];
    uint4 message[kPartialVectors];
    memcpy(message, &part, sizeof(part));
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      message[i].x = __shfl_sync(0xffffffffu, message[i].x, 0);
      message[i].y = __shfl_sync(0xffffffffu, message[i].y, 0);
      message[i].z = __shfl_sync(0xffffffffu, message[i].z, 0);
      message[i].w = __shfl_sync(0xffffffffu, message[i].w, 0);
    }
    if (lane == 0) ptx::mbarrier_arrive_expect_tx(arrived, blocks * kBytes);
    // What this block sent into the boxes two rows ago must have been read; the first two rows
    // pass.
    ptx::mbarrier_wait_cluster(&shared.inbox_read[group][box], parity ^ 1);
    if (lane < blocks) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        ptx::store_async_16(&shared.inbox[group][box][rank][i], message[i], arrived, lane);
      }
    }
    ptx::mbarrier_wait_cluster(arrived, parity);
    RowPartial theirs = empty_partial();
    if (lane < blocks) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) message[i] = shared.inbox[group][box][lane][i];
      memcpy(&theirs, message, kBytes);
    }
    return warp_merge<kMoments>(theirs, kMaxCluster);
  }

  template <Moments kMoments>
  EVENKEEL_DEVICE RowPartial reduce(const StageHeader& header, const RowShape& shape,
                                    const RowSlice& slice, SharedVectors vectors) {
    const RowPartial part = gather_slice<kMoments>(header, shape, slice, vectors);
    return rank_in_group < 32 && blocks > 1 ? exchange<kMoments>(part) : part;
  }

  // A row whose target is a class. Returns whether its gradient is still to be filled with zeros.
  EVENKEEL_DEVICE bool take(int64_t token, const StageHeader& header, const T* logits, G* gradient,
                            SharedVectors vectors) {
    const RowShape shape = row_shape(logits, params.vocab);
    const RowSlice slice = cluster_slice<T>(shape, rank, blocks);
    RowPartial part;
    if constexpr (kFull) {
      part = reduce<Moments::kAll>(header, shape, slice, vectors);
    } else if (params.moments == Moments::kSome) {
      part = reduce<Moments::kSome>(header, shape, slice, vectors);
    } else {
      part = reduce<Moments::kNone>(header, shape, slice, vectors);
    }
    const bool leader = rank_in_group == 0;
    RowInputs inputs;
    RowSummary summary;
    RowObjective objective;
    uint32_t row_status = 0;
    if (leader) {
      inputs = header.inputs;
      summary = summarise(part, inputs.target, params.moments);
      objective = row_objective(params, summary.state, row_status);
      shared.row[group] =
          coefficients(params, summary.state, summary.inverse_sum, objective, inputs);
    }
    // Publishes the coefficients; also keeps the next row's partials from overtaking warp 0.
    ptx::bar_sync(1 + group, threads);
    if (blocks > 1 && rank_in_group < static_cast<int>(blocks)) {
      ptx::mbarrier_arrive_remote(&shared.inbox_read[group][turn % 2],
                                  static_cast<uint32_t>(rank_in_group));
    }
    // After the barrier, so that no warp waits for it; in turn, so that no block is the slow one.
    if (leader && turn % blocks == rank) {
      report(params, token, summary, objective, inputs);
      status |= row_status;
    }
    ++turn;
    if (gradient == nullptr) return false;
    const RowCoefficients row = shared.row[group];
    if (row.zero != 0) return true;
    scatter<T, G, !kFull>(params, row, shape, slice, gradient, rank_in_group, threads, vectors);
    if (rank == 0 && rank_in_group < shape.edges) {
      scatter_edge<G, !kFull>(params, row, header.edges[rank_in_group],
                              edge_column<T>(shape, rank_in_group), gradient);
    }
    return false;
  }

  // Zeros in columns [begin, vocab_padded) of a gradient row, each block its share.
  EVENKEEL_DEVICE void fill(G* gradient, int64_t begin) {
    const int64_t end = params.vocab_padded;
    if (begin >= end) return;
    const int64_t share = (end - begin + blocks - 1) / blocks;
    const int64_t first = min(begin + rank * share, end);
    fill_zero(gradient, first, min(first + share, end), rank_in_group, threads);
  }

  EVENKEEL_DEVICE void run() {
    uint32_t k = static_cast<uint32_t>(group);
    for (int64_t token = walk.first + group * walk.stride; token < params.tokens;
         token += kGroups * walk.stride, k += kGroups) {
      const RowSlot slot = row_slot(shared, params.stages, k);
      const T* const logits = static_cast<const T*>(params.logits) + token * params.logits_stride;
      G* const gradient = params.gradient == nullptr
                              ? nullptr
                              : static_cast<G*>(params.gradient) + token * params.gradient_stride;
      ptx::mbarrier_wait(slot.full, slot.full_parity);
      const StageHeader& header = shared.header[slot.stage];
      bool zero = true;
      if (header.inputs.target != kNoTarget) {
        const SharedVectors vectors = {slices +
                                       static_cast<size_t>(slot.stage) * params.stage_bytes};
        zero = take(token, header, logits, gradient, vectors);
      } else if (rank_in_group == 0 && rank == 0) {
        report_skipped(params, token, header.status);
        status |= header.status;
      }
      // Every lane is done with the stage before its warp hands it back.
      __syncwarp();
      if (rank_in_group % 32 == 0) ptx::mbarrier_arrive(slot.empty);
      // What was not scattered: a row of zeros, or the columns that pad the vocabulary.
      if (gradient != nullptr) fill(gradient, zero ? 0 : params.vocab);
    }
    if (status != 0) atomicOr(params.status, status);
  }
};

template <typename T, typename G, bool kFull>
EVENKEEL_DEVICE void cluster_body(const SoftmaxLossParams& params) {
  unsigned char* const base = platform::dynamic_shared();
  ClusterShared& shared = *reinterpret_cast<ClusterShared*>(base);
  unsigned char* const slices = base + kSliceOffset;
  const uint32_t rank = ptx::cluster_ctarank();
  const uint32_t blocks = ptx::cluster_nctarank();
  const int threads = (static_cast<int>(blockDim.x) - 32) / kGroups;

  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < params.stages; ++stage) {
      for (int group = 0; group < kGroups; ++group) {
        ptx::mbarrier_init(&shared.full[stage][group], 1);
      }
      ptx::mbarrier_init(&shared.empty[stage], static_cast<uint32_t>(threads) / 32);
    }
    for (int group = 0; group < kGroups; ++group) {
      for (int box = 0; box < 2; ++box) {
        ptx::mbarrier_init(&shared.inbox_full[group][box], 1);
        ptx::mbarrier_init(&shared.inbox_read[group][box], blocks);
      }
    }
    ptx::fence_mbarrier_init();
  }
  // No block may write to a peer that has not begun, nor before its barriers exist.
  ptx::cluster_sync();

  const RowWalk walk = {blockIdx.x / blocks, gridDim.x / blocks};
  const int rank_in_block = static_cast<int>(threadIdx.x);
  const int group = rank_in_block / threads;
  if (group == kGroups) {
    Producer<T>{params, shared, slices, walk, rank, blocks, rank_in_block % 32}.run();
  } else {
    Consumer<T, G, kFull>{
        params, shared, slices, walk, rank, blocks, group, threads, rank_in_block - group * threads}
        .run();
  }
  // A block that left would take its inbox away from peers that still write to it.
  __syncwarp();
  ptx::cluster_sync();
}

}  // namespace
}  // namespace evenkeel

// Two groups of 192 threads and the producer's warp: three consumer warps on each of a
// multiprocessor's four schedulers, and 128 registers a thread, which the four vectors in flight
// need (two groups of 256 would leave 96 and spill). No measurement chose the number yet.
#define SOFTMAX_CLUSTER_TYPES(K, T, G, suffix)                                 \
  K(softmax_loss_cluster_##suffix, evenkeel::SoftmaxLossParams, 416, 1,        \
    (evenkeel::cluster_body<T, G, false>))                                     \
  K(softmax_loss_cluster_##suffix##_full, evenkeel::SoftmaxLossParams, 416, 1, \
    (evenkeel::cluster_body<T, G, true>))
#define SOFTMAX_CLUSTER_KERNELS(K)                                    \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::bf16, evenkeel::bf16, bf16_bf16) \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::bf16, float, bf16_f32)           \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::f16, evenkeel::f16, f16_f16)     \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::f16, float, f16_f32)             \
  SOFTMAX_CLUSTER_TYPES(K, float, float, f32_f32)

EVENKEEL_EXPORT(loss_softmax_cluster, SOFTMAX_CLUSTER_KERNELS)
