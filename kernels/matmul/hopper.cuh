// Products on Hopper's tensor cores: one skeleton, of which every kernel is an instance.
//
// Computes the products of matmul/params.h, out = epilogue(sum_k a[m, k] b[n, k]), without ever
// writing sums to global memory: tiles of kTileM x kTileN, each in the registers of one block.
//
// Threads. A block is one producer warpgroup, of which one thread asks the copy engine for slices
// of 128 bytes of K through tensor maps (and one warp fetches scales of columns, where there are
// such), and two consumer warpgroups with half of the tile's rows each, which hold 232 registers a
// thread where the producer keeps 40. Between them is a ring of kStages slices
// (hopper_ring.cuh). The grid is one block a multiprocessor, which takes tile after tile
// (hopper_schedule.cuh); the ring runs on across tiles, so that the next tile's slices arrive while
// results leave. Clusters of two blocks share the longer operand: each block loads half of it for
// both. The cluster's size is the launch's; one kernel serves 1 and 2.
//
// Tails. The copy engine writes zeros for what lies beyond a tensor, so M, N and K are any; a
// group's end along K inside a slice is zeroed by the consumers (zero_tail). It asks for rows at
// multiples of 16 bytes: operands of another pitch are the portable kernel's.
//
// Predicted, not measured (H200: 132 multiprocessors at 1.755 GHz, a multiprocessor multiplying
// 2,048 pairs of bf16 or 4,096 of FP8 a clock; not yet run on hardware). A wave's four instructions
// of a slice, 64 x N x 128 bytes of K, take 2 N cycles. Shared memory gives them (64 + N) x 32
// bytes an instruction of N / 2 cycles: 80 bytes a clock at N = 256 and 96 at N = 128, of 128.
//   tile          slice   promotion                        L2 bytes a clock (alone, paired)
//   128 x 256     1,024   none                             48, 32
//   256 x 128     1,024   2 x 2 x ~90 issue cycles, hidden  48, 32
//                         behind the other warpgroup
//   128 x 128       512   2 x ~90 (columns: ~130), hidden   64, 48
// A tile of 128 x 256 whose result leaves as bf16 through the copy engine spends some 700 cycles
// between its last product and the next tile's first: 1% at K = 4,096 of bf16 (65,536 cycles), 2%
// of FP8. The first slice of a launch comes ~1,500 cycles after its start, and the last wave of
// tiles is what hopper_config.rs chooses tiles against. Of 989 and 1,979 TFLOP/s at 1.755 GHz power
// leaves less: public kernels reach about 790 and 1,500 on random data.
#pragma once

#include "common/status.h"
#include "matmul/hopper_store.cuh"
#include "ptx/control.cuh"
#include "ptx/registers.cuh"

namespace evenkeel {

template <class Config>
EVENKEEL_DEVICE void consume(const HopperParams& params, HopperShared<Config>& shared) {
  const uint32_t consumer = threadIdx.x - Config::kProducers;
  const int32_t warpgroup = static_cast<int32_t>(__shfl_sync(0xffffffffu, consumer / 128, 0));
  const HopperConsumer self = {
      warpgroup, static_cast<int32_t>(warpgroup * Config::kWaves * 64 + consumer % 128 / 32 * 16 +
                                      consumer % 32 / 4)};
  HopperSchedule<Config> schedule(params.shape, params.raster);
  const SliceReader<Config> reader(shared, warpgroup);
  RingPlace<Config> place;
  HopperTile tile;
  while (schedule.next(tile)) {
    HopperSumsOf<Config> sums;
    if constexpr (Config::kSums == HopperSums::kTensorCore) {
      sum_in_tensor_core(params, shared, self, reader, place, tile, sums);
    } else {
      sum_promoted(params, shared, self, reader, place, tile, sums);
    }
    store_sums<Config>(params, tile, self, shared.staging[consumer / 32], sums);
  }
  // Shared memory must outlive what the copy engine still reads of it, and the grid its stores.
  if (threadIdx.x % 32 == 0) ptx::bulk_wait_group<0>();
}

template <class Config>
EVENKEEL_DEVICE void hopper_matmul(const HopperParams& params) {
  auto& shared = *reinterpret_cast<HopperShared<Config>*>(platform::dynamic_shared());
  const uint32_t warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    ptx::prefetch_tensor_map(params.a);
    ptx::prefetch_tensor_map(params.b);
    if (params.store != HopperStore::kElements) ptx::prefetch_tensor_map(params.out);
    init_ring(shared);
  }
  const bool sound = offsets_ascend(params.shape);
  if (!sound && blockIdx.x == 0 && threadIdx.x == 0) atomicOr(params.status, kBadGroupOffsets);
  // Barriers are there before anyone, in either block, arrives at them.
  ptx::cluster_sync();
  if (sound) {
    if (warp < Config::kProducers / 32) {
      ptx::setmaxnreg_decrease<Config::kProducerRegisters>();
      if (warp == 0) {
        if (ptx::elect_one()) produce(params, shared);
        // Brings the warp together for barrier.cluster.aligned.
        __syncwarp();
      } else if (Config::kSums == HopperSums::kColumns && warp == 1) {
        if constexpr (Config::kSums == HopperSums::kColumns) {
          produce_column_scales(params, shared);
        }
      }
    } else {
      ptx::setmaxnreg_increase<Config::kConsumerRegisters>();
      consume(params, shared);
    }
  }
  // The other block may still arrive at this one's barriers, and write into its slots.
  ptx::cluster_sync();
}

}  // namespace evenkeel
