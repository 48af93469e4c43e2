// How the copy engine and the warpgroup's tensor cores scatter 16-byte pieces of a tile over the
// banks of shared memory: the low bits of a piece's place, counted in pieces from the start of an
// aligned pattern, are XORed with those of its 128-byte line.
#pragma once

#include "platform/platform.h"

namespace evenkeel::ptx {

// The span of a row within which pieces are exchanged; the values are those of a wgmma descriptor.
enum class Swizzle : uint32_t { kNone = 0, k128 = 1, k64 = 2, k32 = 3 };

// Bytes after which the pattern repeats, to which a tile is aligned.
template <Swizzle kSwizzle>
inline constexpr uint32_t kSwizzlePatternBytes = kSwizzle == Swizzle::k128  ? 1024
                                                 : kSwizzle == Swizzle::k64 ? 512
                                                 : kSwizzle == Swizzle::k32 ? 256
                                                                            : 128;

// Where the byte at `offset` of a tile lies; the tile starts at a multiple of the pattern. The row
// of a swizzled tile is as long as its span.
template <Swizzle kSwizzle>
EVENKEEL_DEVICE uint32_t swizzled(uint32_t offset) {
  if constexpr (kSwizzle == Swizzle::k128) return offset ^ ((offset >> 3) & 0x70u);
  if constexpr (kSwizzle == Swizzle::k64) return offset ^ ((offset >> 3) & 0x30u);
  if constexpr (kSwizzle == Swizzle::k32) return offset ^ ((offset >> 3) & 0x10u);
  return offset;
}

}  // namespace evenkeel::ptx
