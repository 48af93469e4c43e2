// Warp primitives and atomics.
#include "test_kernel.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;

// Every shuffle, written as one row of 12 numbers a lane.
void shuffles(const Args& p) {
  const unsigned lane = threadIdx.x;
  unsigned* row = p.words + lane * 12;
  row[0] = __shfl_sync(kFull, lane * 10, 5);
  row[1] = __shfl_up_sync(kFull, lane, 3);
  row[2] = __shfl_down_sync(kFull, lane, 3);
  row[3] = __shfl_xor_sync(kFull, lane, 9);
  row[4] = __shfl_sync(kFull, lane, 9, 8);
  row[5] = __shfl_up_sync(kFull, lane, 2, 8);
  row[6] = __shfl_down_sync(kFull, lane, 2, 8);
  row[7] = __shfl_xor_sync(kFull, lane, 12, 8);
  row[8] = static_cast<unsigned>(__shfl_sync(kFull, static_cast<double>(lane) * 1e9, 7) / 1e9);
  row[9] = static_cast<unsigned>(__shfl_sync(kFull, static_cast<long long>(lane) << 40, 6) >> 40);
  row[10] = static_cast<unsigned>(__shfl_xor_sync(kFull, static_cast<float>(lane), 1));
  row[11] = static_cast<unsigned>(-__shfl_sync(kFull, -static_cast<int>(lane), 31));
}

void votes(const Args& p) {
  const unsigned lane = threadIdx.x;
  unsigned* row = p.words + lane * 16;
  const int v = static_cast<int>(lane) - 16;
  int same = -1;
  row[0] = __ballot_sync(kFull, lane % 3 == 0);
  row[1] = static_cast<unsigned>(__all_sync(kFull, lane < 32) * 2 + __all_sync(kFull, lane < 31));
  row[2] = static_cast<unsigned>(__any_sync(kFull, lane == 7) * 2 + __any_sync(kFull, lane == 99));
  row[3] = __match_any_sync(kFull, lane / 8);
  row[4] = __match_all_sync(kFull, 5, &same);
  row[5] = static_cast<unsigned>(same);
  row[6] = __match_all_sync(kFull, lane, &same);
  row[7] = static_cast<unsigned>(same);
  row[8] = __reduce_add_sync(kFull, lane);
  row[9] = __reduce_min_sync(kFull, lane + 3);
  row[10] = __reduce_max_sync(kFull, lane + 3);
  row[11] = static_cast<unsigned>(__reduce_min_sync(kFull, v));
  row[12] = static_cast<unsigned>(__reduce_max_sync(kFull, v));
  row[13] = __reduce_and_sync(kFull, lane | 0x80u);
  row[14] = __reduce_or_sync(kFull, 1u << lane);
  row[15] = __reduce_xor_sync(kFull, lane);
}

// Two halves of a warp, each with a mask of its own, at the same time.
void halves(const Args& p) {
  const unsigned lane = threadIdx.x;
  unsigned mask = lane < 12 ? 0x00000fffu : 0xfffff000u;
  unsigned total;
  if (lane < 12) {
    total = __reduce_add_sync(mask, lane);
  } else {
    total = __reduce_add_sync(mask, lane * 100);
    total += __shfl_sync(mask, lane, 12) - 12;
  }
  __syncwarp();
  p.words[lane] = total;
}

void active(const Args& p) {
  const unsigned lane = threadIdx.x;
  unsigned mask = __activemask();
  if (lane % 2 == 0) mask = __activemask();
  p.words[lane] = mask;
  p.words[32 + lane] = cuda_emulator::elect_one();
}

template <bool kRight>
void lacks_caller(const Args& p) {
  const unsigned lane = threadIdx.x;
  const unsigned value = __shfl_sync(kRight ? kFull : 0x0000ffffu, lane, 0);  // lacks-caller
  p.words[lane] = value;
}

// A lane named in the mask takes the other branch and leaves.
template <bool kRight>
void never_arrives(const Args& p) {
  const unsigned lane = threadIdx.x;
  if (lane == 9) return;
  p.words[lane] = __shfl_xor_sync(kRight ? kFull & ~(1u << 9) : kFull, lane,  // never-arrives
                                  kRight ? 0 : 1);
}

template <bool kRight>
void inactive_lane(const Args& p) {
  const unsigned lane = threadIdx.x;
  if (lane < 8) {
    p.words[lane] = __shfl_sync(0xffu, lane, kRight ? 3 : 20);  // inactive-lane
  }
}

// Lanes of one warp in two primitives whose masks overlap.
template <bool kRight>
void masks_clash(const Args& p) {
  const unsigned lane = threadIdx.x;
  unsigned value;
  if (lane < 16) {
    value = __ballot_sync(kRight ? 0x0000ffffu : kFull, 1);
  } else {
    value = __ballot_sync(0xffff0000u, 1);
  }
  p.words[lane] = value;
}

void atomics(const Args& p) {
  const unsigned t = threadIdx.x + blockIdx.x * blockDim.x;
  unsigned* w = p.words;
  atomicAdd(w + 0, 1u);
  atomicSub(w + 1, 1u);
  atomicMax(reinterpret_cast<int*>(w + 2), static_cast<int>(t) - 50);
  atomicMin(reinterpret_cast<int*>(w + 3), -static_cast<int>(t));
  atomicOr(w + 4, 1u << (t % 32));
  atomicAnd(w + 5, ~(1u << (t % 32)));
  atomicXor(w + 6, t);
  atomicInc(w + 7, 4u);
  atomicDec(w + 8, 6u);
  atomicAdd(reinterpret_cast<float*>(w + 9), 0.5f);
  atomicAdd(reinterpret_cast<double*>(w + 10), 0.25);
  atomicAdd(reinterpret_cast<unsigned long long*>(w + 12), 1ull << 33);
  unsigned seen = atomicCAS(w + 14, 0u, 0u), want;
  do {
    want = seen;
    seen = atomicCAS(w + 14, want, want * 3 + 1);
  } while (seen != want);
  if (t == 0) atomicExch(w + 15, 77u);
  atomicMax(w + 16, t);
  // Each ticket is drawn once.
  p.words[32 + atomicAdd(w + 17, 1u)] = 1;
}

void standard_atomics(const Args& p) {
  __atomic_fetch_add(p.words, 2u, __ATOMIC_RELAXED);
  __atomic_fetch_or(p.words + 1, 1u << threadIdx.x, __ATOMIC_ACQ_REL);
}

}  // namespace

CUDA_EMULATOR_ENTRY(shuffles, Args, shuffles)
CUDA_EMULATOR_ENTRY(votes, Args, votes)
CUDA_EMULATOR_ENTRY(halves, Args, halves)
CUDA_EMULATOR_ENTRY(active, Args, active)
WRONG_AND_RIGHT(lacks_caller)
WRONG_AND_RIGHT(never_arrives)
WRONG_AND_RIGHT(inactive_lane)
WRONG_AND_RIGHT(masks_clash)
CUDA_EMULATOR_ENTRY(atomics, Args, atomics)
CUDA_EMULATOR_ENTRY(standard_atomics, Args, standard_atomics)

CUDA_EMULATOR_TABLE(test_warp, ROW(shuffles), ROW(votes), ROW(halves), ROW(active),
                    ROWS(lacks_caller), ROWS(never_arrives), ROWS(inactive_lane), ROWS(masks_clash),
                    ROW(atomics), ROW(standard_atomics))
