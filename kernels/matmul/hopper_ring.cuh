// The ring of slices between the copy engine and the tensor cores, and those who fill it.
//
// Slot s has two barriers. `full` completes when a slice's bytes have landed, `empty` when every
// consumer warp of the cluster has done with what was there: a shared operand's half is written
// into both blocks' slots, so both blocks' readers must have left them.
#pragma once

#include "matmul/hopper_config.cuh"
#include "matmul/hopper_schedule.cuh"
#include "ptx/cluster.cuh"
#include "ptx/mbarrier.cuh"

namespace evenkeel {

// Where in the ring its user is: slots in order, the parity of the phase turning with each round.
// Both in one register, since consumers have none to spare.
template <class Config>
struct RingPlace {
  uint32_t packed = 0;  // 2 slot + parity

  EVENKEEL_DEVICE uint32_t slot() const { return packed / 2; }
  EVENKEEL_DEVICE uint32_t parity() const { return packed % 2; }
  EVENKEEL_DEVICE void advance() {
    packed += 2;
    if (packed >= 2 * Config::kStages) packed = (packed % 2) ^ 1;
  }
};

template <class Config>
EVENKEEL_DEVICE void init_ring(HopperShared<Config>& shared) {
  const uint32_t blocks = ptx::cluster_nctarank();
  for (int slot = 0; slot < Config::kStages; ++slot) {
    // The thread that asks for copies, and the warp that writes scales of columns.
    ptx::mbarrier_init(&shared.full[slot], Config::kSums == HopperSums::kColumns ? 2 : 1);
    ptx::mbarrier_init(&shared.empty[slot], Config::kConsumers / 32 * blocks);
  }
  ptx::fence_mbarrier_init();
}

// A consumer warp has read slot `slot` for the last time. All its lanes call it.
template <class Config>
EVENKEEL_DEVICE void release(HopperShared<Config>& shared, uint32_t slot) {
  const uint32_t lane = threadIdx.x % 32;
  if (lane == 0) ptx::mbarrier_arrive(&shared.empty[slot]);
  if (lane == 1 && ptx::cluster_nctarank() > 1) {
    ptx::mbarrier_arrive_remote(&shared.empty[slot], ptx::cluster_ctarank() ^ 1);
  }
}

// One operand's part of a slice: all of it, or where the cluster shares the operand this block's
// half for both.
template <int kBox, int kTile, bool kShared>
EVENKEEL_DEVICE void load_slice(unsigned char* destination, const ptx::TensorMap& map,
                                uint64_t* full, int32_t k, int32_t row) {
  if constexpr (!kShared) {
    static_assert(kBox == kTile);
    ptx::tensor_load_2d(destination, map, full, k, row);
  } else {
    static_assert(2 * kBox == kTile);
    constexpr int kHalfBytes = kBox * 128;
    if (ptx::cluster_nctarank() > 1) {
      const int32_t half = static_cast<int32_t>(ptx::cluster_ctarank());
      ptx::tensor_load_2d_multicast(destination + half * kHalfBytes, map, full, k,
                                    row + half * kBox, 3);
    } else {
      ptx::tensor_load_2d(destination, map, full, k, row);
      ptx::tensor_load_2d(destination + kHalfBytes, map, full, k, row + kBox);
    }
  }
}

// The producer: one thread, which asks for the slices of tile after tile as slots fall empty. What
// lies beyond a tensor arrives as zeros, and counts among the bytes.
template <class Config>
EVENKEEL_DEVICE void produce(const HopperParams& params, HopperShared<Config>& shared) {
  HopperSchedule<Config> schedule(params.shape, params.raster);
  RingPlace<Config> place;
  HopperTile tile;
  while (schedule.next(tile)) {
    const int32_t row_b = row_of_b(params.shape, tile);
#pragma unroll 1
    for (int32_t k = tile.k_begin; k < tile.k_end; k += Config::kSlice) {
      uint64_t* const full = &shared.full[place.slot()];
      ptx::mbarrier_wait_cluster(&shared.empty[place.slot()], place.parity() ^ 1);
      // Announced before anything can land: the other block's half cannot come sooner than this
      // block's readers let it, but it may come before this line, and is then counted ahead.
      ptx::mbarrier_arrive_expect_tx(full, Config::kBytesA + Config::kBytesB);
      load_slice<Config::kBoxA, Config::kTileM, !Config::kSharesB>(shared.a[place.slot()], params.a,
                                                                   full, k, tile.row);
      load_slice<Config::kBoxB, Config::kTileN, Config::kSharesB>(shared.b[place.slot()], params.b,
                                                                  full, k, row_b);
      place.advance();
    }
  }
}

// The scales of columns of one slice, four neighbours a lane; zeros beyond the product.
template <class Config>
EVENKEEL_DEVICE float4 load_column_scales(const HopperParams& params, const HopperTile& tile,
                                          int64_t block) {
  static_assert(Config::kTileN == 128);
  const MatmulOperand& b = params.operand_b;
  const int32_t lane_column = 4 * static_cast<int32_t>(threadIdx.x % 32);
  const int64_t row = row_of_b(params.shape, tile) + lane_column;
  const float* const scales = static_cast<const float*>(b.scales) + block * b.scale_block +
                              tile.group * b.scale_group + row * b.scale_row;
  const int32_t columns = static_cast<int32_t>(params.shape.n) - tile.column - lane_column;
  float4 x;
  x.x = columns > 0 ? scales[0] : 0.0f;
  x.y = columns > 1 ? scales[b.scale_row] : 0.0f;
  x.z = columns > 2 ? scales[2 * b.scale_row] : 0.0f;
  x.w = columns > 3 ? scales[3 * b.scale_row] : 0.0f;
  return x;
}

// A second producer, one warp: scales of columns by plain loads, which need no alignment, one slice
// ahead of the slot that they wait for.
template <class Config>
EVENKEEL_DEVICE void produce_column_scales(const HopperParams& params,
                                           HopperShared<Config>& shared) {
  HopperSchedule<Config> schedule(params.shape, params.raster);
  RingPlace<Config> place;
  HopperTile tile;
  const uint32_t lane = threadIdx.x % 32;
  while (schedule.next(tile)) {
    const int64_t first = first_block(params.shape, tile);
    const int32_t count = slices<Config>(tile);
    float4 scales = {};
    if (count > 0) scales = load_column_scales<Config>(params, tile, first);
    for (int32_t slice = 0; slice < count; ++slice) {
      float4 next = {};
      if (slice + 1 < count) next = load_column_scales<Config>(params, tile, first + slice + 1);
      ptx::mbarrier_wait_cluster(&shared.empty[place.slot()], place.parity() ^ 1);
      reinterpret_cast<float4*>(shared.column_scales[place.slot()])[lane] = scales;
      __syncwarp();
      if (lane == 0) ptx::mbarrier_arrive(&shared.full[place.slot()]);
      place.advance();
      scales = next;
    }
  }
}

}  // namespace evenkeel
