// Bits of a stream's status word, as src/error.rs has them.
#pragma once

#include <cstdint>

namespace evenkeel {

enum StatusBit : uint32_t {
  kTargetOutOfRange = 1,
  kNonFiniteRow = 2,
  kTargetMasked = 4,
  kSaturated = 8,
  kBadSequenceOffsets = 16,
  kPositionOutOfRange = 32,
  kZeroSigma = 64,
  kNonFiniteBlock = 128,
  kBadGroupOffsets = 256,
  kRaggedGroup = 512,
};

}  // namespace evenkeel
