// targets: 90a 100f
//
// The probability objectives fused with the softmax, Hopper path: a row lives in the shared memory
// of a cluster of blocks, so each logit is read from memory once and each gradient written once.
//
// Computes what softmax_block.cu computes (params.h; the mathematics is src/reference/loss.rs).
// Never materialised: probabilities, log-probabilities, one-hot targets, a second read of the row.
//
// Traffic: tokens * vocab * (logit + gradient) bytes, the gradient in place or elsewhere; ignored
// rows are not read. At the 4.3 TB/s that a copy reaches on an H200, 8192 x 128256 bf16 is 0.98 ms.
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
// Work per bf16 element: two ex2 and about 16 other instructions, of the 26 that fit a
// multiprocessor's issue slots at the copy rate.

#include "loss/row.cuh"
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
inline constexpr int kMaxGroupWarps = 8;
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
static_assert(kSliceOffset % 16 == 0 && kSliceOffset == 4480, "src/loss/launch.rs states it");

// Block `rank`'s run of the row's vectors.
struct ClusterSlice {
  RowSlice slice;
  int64_t first;  // the row's vector where the slice begins
};

template <typename T>
EVENKEEL_DEVICE ClusterSlice cluster_slice(const RowShape& shape, uint32_t rank, uint32_t blocks) {
  const int64_t share = (shape.vectors + blocks - 1) / blocks;
  const int64_t first = rank * share < shape.vectors ? rank * share : shape.vectors;
  const int64_t end = first + share < shape.vectors ? first + share : shape.vectors;
  return {{shape.head + first * kVectorElements<T>, static_cast<int>(end - first)}, first};
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

// Whole warp. Fills the stages in turn, waiting for the consumers to leave them.
template <typename T>
EVENKEEL_DEVICE void produce(const SoftmaxLossParams& params, ClusterShared& shared,
                             unsigned char* slices, RowWalk walk, uint32_t rank, uint32_t blocks) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t k = 0;
  for (int64_t token = walk.first; token < params.tokens; token += walk.stride, ++k) {
    const RowSlot slot = row_slot(shared, params.stages, k);
    uint32_t status = 0;
    int64_t target = lane == 0 ? load_target(params, token, status) : kNoTarget;
    target = __shfl_sync(0xffffffffu, target, 0);
    ptx::mbarrier_wait(slot.empty, slot.empty_parity);
    StageHeader& header = shared.header[slot.stage];
    if (target != kNoTarget) {
      const T* const logits = static_cast<const T*>(params.logits) + token * params.logits_stride;
      const RowShape shape = row_shape(logits, params.vocab);
      const ClusterSlice part = cluster_slice<T>(shape, rank, blocks);
      if (lane == 0 && part.slice.vectors > 0) {
        const uint32_t bytes = static_cast<uint32_t>(part.slice.vectors) * 16;
        ptx::mbarrier_expect_tx(slot.full, bytes);
        ptx::bulk_copy_global_to_shared(
            slices + static_cast<size_t>(slot.stage) * params.stage_bytes,
            logits + part.slice.column, bytes, slot.full);
      }
      // The copy is on its way; these loads' latency hides behind it.
      if (rank == 0 && lane < shape.edges) {
        header.edges[lane] = to_float(logits[edge_column<T>(shape, lane)]);
      }
    }
    if (lane == 0) {
      header.inputs =
          target == kNoTarget ? RowInputs{kNoTarget} : load_inputs(params, token, target);
      header.status = status;
    }
    // Orders every lane's stores to the header before the arrival that publishes them.
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(slot.full);
  }
}

// The block's partial of a row, in lane 0 of the group's warp 0.
template <typename T, Moments kMoments>
EVENKEEL_DEVICE RowPartial gather_slice(const SoftmaxLossParams& params, ClusterShared& shared,
                                        const StageHeader& header, const RowShape& shape,
                                        const RowSlice& slice, const uint4* vectors, int group,
                                        int rank_in_group, int threads, bool has_edges) {
  const int lane = rank_in_group % 32;
  const int warp = rank_in_group / 32;
  const int64_t target = header.inputs.target;
  RowPartial part = gather<T, kMoments>(params, slice, target, rank_in_group, threads,
                                        [&](int v) { return vectors[v]; });
  if (has_edges && rank_in_group < shape.edges) {
    part =
        merge<kMoments>(part, gather_edge<kMoments>(params, header.edges[rank_in_group],
                                                    edge_column<T>(shape, rank_in_group), target));
  }
  part = warp_merge<kMoments>(part, 32);
  if (lane == 0) shared.warps[group][warp] = part;
  // Without this barrier warp 0 would merge partials of the group's row before.
  ptx::bar_sync(1 + group, threads);
  if (warp != 0) return part;
  const bool present = lane < threads / 32;
  return warp_merge<kMoments>(present ? shared.warps[group][lane] : empty_partial(), 32);
}

// Warp 0 of a group: sends this block's partial to every block and merges all of theirs into lane
// 0.
template <Moments kMoments>
EVENKEEL_DEVICE RowPartial exchange(ClusterShared& shared, RowPartial part, int group,
                                    uint32_t turn, uint32_t rank, uint32_t blocks) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t box = turn % 2;
  const uint32_t parity = (turn / 2) % 2;
  constexpr int kVectors = kMoments == Moments::kNone ? 1 : kMoments == Moments::kSome ? 2 : 3;
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
  if (lane == 0) {
    ptx::mbarrier_arrive_expect_tx(arrived,
                                   blocks * kVectors * static_cast<uint32_t>(sizeof(uint4)));
  }
  // What this block sent into the boxes two rows ago must have been read. The first two rows pass.
  uint64_t* const read = &shared.inbox_read[group][box];
  ptx::mbarrier_wait_cluster(read, parity ^ 1);
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
    memcpy(&theirs, message, kVectors * sizeof(uint4));
  }
  // Every lane has read its slot before any block is told so.
  __syncwarp();
  if (lane < blocks) ptx::mbarrier_arrive_cluster(read, lane);
  return warp_merge<kMoments>(theirs, kMaxCluster);
}

template <typename T, typename G, bool kFull>
EVENKEEL_DEVICE void consume(const SoftmaxLossParams& params, ClusterShared& shared,
                             const unsigned char* slices, RowWalk walk, int group, int threads,
                             uint32_t rank, uint32_t blocks) {
  const int rank_in_group = static_cast<int>(threadIdx.x) - group * threads;
  const bool leader = rank_in_group == 0;
  uint32_t k = static_cast<uint32_t>(group);
  uint32_t turn = 0;  // rows this group has exchanged
  uint32_t status = 0;

  for (int64_t token = walk.first + group * walk.stride; token < params.tokens;
       token += kGroups * walk.stride, k += kGroups) {
    const RowSlot slot = row_slot(shared, params.stages, k);
    ptx::mbarrier_wait(slot.full, slot.full_parity);
    const StageHeader& header = shared.header[slot.stage];
    const int64_t target = header.inputs.target;
    const uint4* const vectors = reinterpret_cast<const uint4*>(
        slices + static_cast<size_t>(slot.stage) * params.stage_bytes);
    const T* const logits = static_cast<const T*>(params.logits) + token * params.logits_stride;
    G* const gradient = params.gradient == nullptr
                            ? nullptr
                            : static_cast<G*>(params.gradient) + token * params.gradient_stride;
    const RowShape shape = row_shape(logits, params.vocab);
    const RowSlice slice = cluster_slice<T>(shape, rank, blocks).slice;
    bool zero = true;

    if (target == kNoTarget) {
      if (leader && rank == 0) {
        report_skipped(params, token, header.status);
        status |= header.status;
      }
    } else {
      const bool has_edges = rank == 0;
      RowPartial part;
      if constexpr (kFull) {
        part = gather_slice<T, Moments::kAll>(params, shared, header, shape, slice, vectors, group,
                                              rank_in_group, threads, has_edges);
      } else if (params.moments == Moments::kSome) {
        part = gather_slice<T, Moments::kSome>(params, shared, header, shape, slice, vectors, group,
                                               rank_in_group, threads, has_edges);
      } else {
        part = gather_slice<T, Moments::kNone>(params, shared, header, shape, slice, vectors, group,
                                               rank_in_group, threads, has_edges);
      }
      if (rank_in_group < 32) {
        if (blocks > 1) {
          if constexpr (kFull) {
            part = exchange<Moments::kAll>(shared, part, group, turn, rank, blocks);
          } else if (params.moments == Moments::kSome) {
            part = exchange<Moments::kSome>(shared, part, group, turn, rank, blocks);
          } else {
            part = exchange<Moments::kNone>(shared, part, group, turn, rank, blocks);
          }
        }
        if (leader) {
          const RowInputs inputs = header.inputs;
          const RowSummary summary = summarise(part, target, params.moments);
          uint32_t row_status = 0;
          const RowObjective row = row_objective(params, summary.state, row_status);
          if (rank == 0) {
            report(params, token, summary, row, inputs);
            status |= row_status;
          }
          shared.row[group] = coefficients(params, summary.state, summary.inverse_sum, row, inputs);
        }
      }
      ++turn;
      // Publishes the coefficients; also keeps the next row's partials from overtaking warp 0.
      ptx::bar_sync(1 + group, threads);
      if (gradient != nullptr) {
        const RowCoefficients row = shared.row[group];
        zero = row.zero != 0;
        if (!zero) {
          const bool aligned = reinterpret_cast<uintptr_t>(gradient + shape.head) % 16 == 0;
          scatter<T, G, !kFull>(params, row, slice, gradient, aligned, rank_in_group, threads,
                                [&](int v) { return vectors[v]; });
          if (has_edges && rank_in_group < shape.edges) {
            scatter_edge<G, !kFull>(params, row, header.edges[rank_in_group],
                                    edge_column<T>(shape, rank_in_group), gradient);
          }
        }
      }
    }

    // Every lane is done with the stage before its warp hands it back.
    __syncwarp();
    if (rank_in_group % 32 == 0) ptx::mbarrier_arrive(slot.empty);

    if (gradient != nullptr) {
      // What the scatter did not write: a row of zeros, or the columns that pad the vocabulary.
      const int64_t begin = zero ? 0 : params.vocab;
      const int64_t columns = params.vocab_padded - begin;
      const int64_t share = (columns + blocks - 1) / blocks;
      const int64_t first = begin + (rank * share < columns ? rank * share : columns);
      const int64_t end = first + share < params.vocab_padded ? first + share : params.vocab_padded;
      fill_zero(gradient, first, end, rank_in_group, threads);
    }
  }
  if (leader && rank == 0 && status != 0) atomicOr(params.status, status);
}

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
  const int group = static_cast<int>(threadIdx.x) / threads;
  if (group == kGroups) {
    produce<T>(params, shared, slices, walk, rank, blocks);
  } else {
    consume<T, G, kFull>(params, shared, slices, walk, group, threads, rank, blocks);
  }
  // A block that left would take its inbox away from peers that still write to it.
  __syncwarp();
  ptx::cluster_sync();
}

}  // namespace
}  // namespace evenkeel

// Two groups of 224 threads and the producer's warp: 15 warps leave each scheduler of a
// multiprocessor at most 4, and so 128 registers a thread. Two groups of 256 would put 5 warps on
// one, leave 96 registers, and spill on compute capability 10.x.
#define SOFTMAX_CLUSTER_TYPES(K, T, G, suffix)                                 \
  K(softmax_loss_cluster_##suffix, evenkeel::SoftmaxLossParams, 480, 1,        \
    (evenkeel::cluster_body<T, G, false>))                                     \
  K(softmax_loss_cluster_##suffix##_full, evenkeel::SoftmaxLossParams, 480, 1, \
    (evenkeel::cluster_body<T, G, true>))
#define SOFTMAX_CLUSTER_KERNELS(K)                                    \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::bf16, evenkeel::bf16, bf16_bf16) \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::bf16, float, bf16_f32)           \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::f16, evenkeel::f16, f16_f16)     \
  SOFTMAX_CLUSTER_TYPES(K, evenkeel::f16, float, f16_f32)             \
  SOFTMAX_CLUSTER_TYPES(K, float, float, f32_f32)

EVENKEEL_EXPORT(loss_softmax_cluster, SOFTMAX_CLUSTER_KERNELS)
