// The choices that make one kernel of the skeleton in hopper.cuh, and the layout of its shared
// memory.
#pragma once

#include "matmul/hopper_params.h"
#include "ptx/mma.cuh"

namespace evenkeel {

// What is multiplied: one 16-bit type, or any mix of the 8-bit ones, which are instructions of
// their own that a uniform branch chooses.
enum class HopperElements { kBf16, kF16, kFp8 };

// How sums come about:
//   kTensorCore  the tensor core adds all of K into the registers that the result is read from
//   kPromoted    it adds 128 of K, which fp32 fused multiply-adds take into the sum, each with its
//                row's scale of A times the tile's scale of B (1 where scales are not of blocks)
//   kColumns     the same with a scale of B for each column
enum class HopperSums { kTensorCore, kPromoted, kColumns };

template <HopperElements kElements_, HopperSums kSums_, int kTileM_, int kTileN_, int kStages_>
struct HopperConfig {
  static constexpr HopperElements kElements = kElements_;
  static constexpr HopperSums kSums = kSums_;
  static constexpr int kTileM = kTileM_;
  static constexpr int kTileN = kTileN_;
  static constexpr int kStages = kStages_;

  // A slice of K is as long as the swizzle's span.
  static constexpr int kSliceBytes = 128;
  static constexpr int kElementBytes = kElements == HopperElements::kFp8 ? 1 : 2;
  static constexpr int kSlice = kSliceBytes / kElementBytes;
  // Steps of one instruction in a slice: 32 bytes of K each.
  static constexpr int kSteps = 4;

  static constexpr int kProducers = 128;  // threads
  static constexpr int kConsumers = 256;
  static constexpr int kThreads = kProducers + kConsumers;
  // Registers of a thread: 128 x 40 + 256 x 232 of 65,536. The consumers' are what their sums, one
  // more set of partial sums and addresses take.
  static constexpr int kProducerRegisters = 40;
  static constexpr int kConsumerRegisters = 232;

  // 64 rows of an instruction, times these, are a consumer warpgroup's.
  static constexpr int kWaves = kTileM / 128;

  // A cluster of two shares the longer operand: each block loads one half of it for both. The
  // pair's tiles are neighbours along the other dimension.
  static constexpr bool kSharesB = kTileN >= kTileM;
  static constexpr int kBoxA = kSharesB ? kTileM : kTileM / 2;
  static constexpr int kBoxB = kSharesB ? kTileN / 2 : kTileN;

  static constexpr int kBytesA = kTileM * kSliceBytes;
  static constexpr int kBytesB = kTileN * kSliceBytes;

  static_assert(kTileM % 128 == 0 && kBoxA <= 256 && kBoxB <= 256);
  // One scale of 128 x 128 of B has to do for a tile.
  static_assert(kSums != HopperSums::kPromoted || kTileN == 128);
};

// What a consumer warp stages: 16 rows of 256 bytes.
inline constexpr int kHopperStagingBytes = 4096;

template <class Config>
struct HopperShared {
  // The swizzle's pattern wants tiles at multiples of 1024 bytes.
  unsigned char a[Config::kStages][Config::kBytesA];
  unsigned char b[Config::kStages][Config::kBytesB];
  unsigned char staging[Config::kConsumers / 32][kHopperStagingBytes];
  float column_scales[Config::kSums == HopperSums::kColumns ? Config::kStages : 1]
                     [Config::kSums == HopperSums::kColumns ? Config::kTileN : 4];
  uint64_t full[Config::kStages];   // a slice has landed
  uint64_t empty[Config::kStages];  // all its readers in the cluster are done
};

}  // namespace evenkeel
