// Warp-level primitives. Shuffles, votes, matches and reductions do not order memory; __syncwarp
// does.
#pragma once

#include "types.h"

namespace cuda_emulator {

template <class T>
__forceinline__ uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "warp primitives and atomics carry at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
__forceinline__ T from_bits(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

template <class T>
__forceinline__ T shuffle(code::Warp op, unsigned mask, T value, unsigned argument, int width) {
  return from_bits<T>(
      cuda_emulator_warp(op, mask, to_bits(value), argument, static_cast<unsigned>(width)));
}

template <class T>
struct Identity {
  using type = T;
};
}  // namespace cuda_emulator

__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu) {
  cuda_emulator_warp(cuda_emulator::code::kSyncwarp, mask, 0, 0, 0);
}
template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return cuda_emulator::shuffle(cuda_emulator::code::kShuffle, mask, value,
                                static_cast<unsigned>(source), width);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return cuda_emulator::shuffle(cuda_emulator::code::kShuffleUp, mask, value, delta, width);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return cuda_emulator::shuffle(cuda_emulator::code::kShuffleDown, mask, value, delta, width);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  return cuda_emulator::shuffle(cuda_emulator::code::kShuffleXor, mask, value,
                                static_cast<unsigned>(lanes), width);
}

__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(
      cuda_emulator_warp(cuda_emulator::code::kBallot, mask, predicate != 0, 0, 0));
}
__forceinline__ int __all_sync(unsigned mask, int predicate) {
  return static_cast<int>(
      cuda_emulator_warp(cuda_emulator::code::kAll, mask, predicate != 0, 0, 0));
}
__forceinline__ int __any_sync(unsigned mask, int predicate) {
  return static_cast<int>(
      cuda_emulator_warp(cuda_emulator::code::kAny, mask, predicate != 0, 0, 0));
}
template <class T>
__forceinline__ unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(cuda_emulator_warp(cuda_emulator::code::kMatchAny, mask,
                                                  cuda_emulator::to_bits(value), 0, 0));
}
template <class T>
__forceinline__ unsigned __match_all_sync(unsigned mask, T value, int* predicate) {
  const unsigned lanes = static_cast<unsigned>(cuda_emulator_warp(
      cuda_emulator::code::kMatchAll, mask, cuda_emulator::to_bits(value), 0, 0));
  *predicate = lanes != 0;
  return lanes;
}

#define CUDA_EMULATOR_REDUCE(name, type, op)                                                    \
  __forceinline__ type name(unsigned mask, type value) {                                        \
    return static_cast<type>(                                                                   \
        cuda_emulator_warp(cuda_emulator::code::op, mask, static_cast<unsigned>(value), 0, 0)); \
  }
CUDA_EMULATOR_REDUCE(__reduce_add_sync, unsigned, kReduceAdd)
CUDA_EMULATOR_REDUCE(__reduce_add_sync, int, kReduceAdd)
CUDA_EMULATOR_REDUCE(__reduce_min_sync, unsigned, kReduceMinU)
CUDA_EMULATOR_REDUCE(__reduce_min_sync, int, kReduceMinS)
CUDA_EMULATOR_REDUCE(__reduce_max_sync, unsigned, kReduceMaxU)
CUDA_EMULATOR_REDUCE(__reduce_max_sync, int, kReduceMaxS)
CUDA_EMULATOR_REDUCE(__reduce_and_sync, unsigned, kReduceAnd)
CUDA_EMULATOR_REDUCE(__reduce_or_sync, unsigned, kReduceOr)
CUDA_EMULATOR_REDUCE(__reduce_xor_sync, unsigned, kReduceXor)
#undef CUDA_EMULATOR_REDUCE

// The lanes that have come to this call while the rest of the warp waits elsewhere or has exited:
// the widest convergence hardware could show.
__forceinline__ unsigned __activemask() {
  return static_cast<unsigned>(cuda_emulator_warp(cuda_emulator::code::kActivemask, 0, 0, 0, 0));
}

namespace cuda_emulator {
// elect.sync with a full mask: true in one lane of the warp.
__forceinline__ bool elect_one() {
  return cuda_emulator_warp(code::kElect, 0xffffffffu, 0, 0, 0) != 0;
}
}  // namespace cuda_emulator
