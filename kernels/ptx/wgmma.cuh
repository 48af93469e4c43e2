// The warpgroup's tensor-core product, wgmma (sm_90a): d[64, N] (+)= a[64, K] b[N, K]^T in fp32, K
// = 32 bytes of elements. All 128 threads of an aligned warpgroup take part. Operands lie in shared
// memory and are named by descriptors; a may lie in registers.
//
// The product is asynchronous. In this order:
//   wgmma_fence()            after the last write to accumulators or register operands by anything
//                            but wgmma, and before the first product
//   wgmma<...>(...)          any number, K step by K step
//   wgmma_commit_group()
//   wgmma_wait_group<n>()    until at most n groups are unfinished: only then may accumulators be
//                            read and operands be overwritten
// Operands written by st.shared need fence_proxy_async by their writers before; those that the copy
// engine wrote do not.
//
// Accumulator i of thread t (of the warpgroup), with w = t / 32, g = t % 32 / 4 and c = t % 4:
//   row 16w + g + 8 (i / 2 % 2), column 8 (i / 4) + 2c + i % 2
// which is mma.sync's layout, repeated over columns. An operand in registers is mma.sync's a for
// rows 16w to 16w + 15.
#pragma once

#include "platform/platform.h"
#include "ptx/mma.cuh"
#include "ptx/shared_address.cuh"
#include "ptx/swizzle.cuh"

namespace evenkeel::ptx {

// Names an operand in shared memory, `start` being where its first row's (or column's) bytes of
// this K step begin. All three numbers are multiples of 16 below 2^18.
//
// Rows of K (K-major), a row as long as the swizzle's span, 8 rows a pattern: `stride_bytes` from
// one 8 rows to the next (span x 8 where they are packed); `leading_bytes` is not used. Further K
// steps within the span begin 32 bytes on (wgmma_advance). Without a swizzle: 8 rows x 16 bytes lie
// packed, `stride_bytes` between such pieces along rows, `leading_bytes` along K.
//
// Columns of K (MN-major, 16-bit elements only, kTranspose): a line of the span's bytes along M or
// N, one K after the other, 8 K a pattern: `leading_bytes` from one span to the next along M or N,
// `stride_bytes` from one 8 of K to the next.
EVENKEEL_DEVICE uint64_t wgmma_descriptor(const void* start, Swizzle swizzle,
                                          uint32_t leading_bytes, uint32_t stride_bytes) {
#if defined(__CUDACC__)
  const uint32_t address = shared_address(start);
#else
  const uint32_t address = cuda_emulator::shared_offset(start);
#endif
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) |
         (static_cast<uint64_t>((leading_bytes & 0x3ffffu) >> 4) << 16) |
         (static_cast<uint64_t>((stride_bytes & 0x3ffffu) >> 4) << 32) |
         (static_cast<uint64_t>(swizzle) << 62);
}

// The descriptor of what lies `bytes` (a multiple of 16) further on.
EVENKEEL_DEVICE uint64_t wgmma_advance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Orders register writes of the warpgroup before the products that follow.
EVENKEEL_DEVICE void wgmma_fence() {
#if defined(__CUDACC__)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  cuda_emulator::wgmma_fence();
#endif
}

// Closes the group of the products since the last one.
EVENKEEL_DEVICE void wgmma_commit_group() {
#if defined(__CUDACC__)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  cuda_emulator::wgmma_commit_group();
#endif
}

// Waits until at most the `kPending` latest groups are unfinished.
template <int kPending>
EVENKEEL_DEVICE void wgmma_wait_group() {
#if defined(__CUDACC__)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#else
  cuda_emulator::wgmma_wait_group(kPending);
#endif
}

// Keeps the compiler from moving accesses to these registers across it: around a fence and after a
// wait, since the products between them are not visible to it.
template <int kCount>
EVENKEEL_DEVICE void wgmma_hold([[maybe_unused]] float (&accumulators)[kCount]) {
#if defined(__CUDACC__)
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(accumulators[i])::"memory");
#endif
}
EVENKEEL_DEVICE void wgmma_hold([[maybe_unused]] uint32_t (&operand)[4]) {
#if defined(__CUDACC__)
#pragma unroll
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(operand[i])::"memory");
#endif
}

#if defined(__CUDACC__)
#define EVENKEEL_PLACES_4 "%0, %1, %2, %3"
#define EVENKEEL_PLACES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define EVENKEEL_PLACES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define EVENKEEL_PLACES_32 \
  EVENKEEL_PLACES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define EVENKEEL_PLACES_48 \
  EVENKEEL_PLACES_32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define EVENKEEL_PLACES_64 \
  EVENKEEL_PLACES_48       \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define EVENKEEL_PLACES_80 \
  EVENKEEL_PLACES_64       \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define EVENKEEL_PLACES_96 \
  EVENKEEL_PLACES_80       \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define EVENKEEL_PLACES_112                                                                  \
  EVENKEEL_PLACES_96                                                                         \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
  "%111"
#define EVENKEEL_PLACES_128                                                                \
  EVENKEEL_PLACES_112                                                                      \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, " \
  "%126, %127"
#define EVENKEEL_HELD_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define EVENKEEL_HELD_8(i) EVENKEEL_HELD_4(i), EVENKEEL_HELD_4(i + 4)
#define EVENKEEL_HELD_16(i) EVENKEEL_HELD_8(i), EVENKEEL_HELD_8(i + 8)
#define EVENKEEL_HELD_32(i) EVENKEEL_HELD_16(i), EVENKEEL_HELD_16(i + 16)
#define EVENKEEL_HELD_48(i) EVENKEEL_HELD_32(i), EVENKEEL_HELD_16(i + 32)
#define EVENKEEL_HELD_64(i) EVENKEEL_HELD_32(i), EVENKEEL_HELD_32(i + 32)
#define EVENKEEL_HELD_80(i) EVENKEEL_HELD_64(i), EVENKEEL_HELD_16(i + 64)
#define EVENKEEL_HELD_96(i) EVENKEEL_HELD_64(i), EVENKEEL_HELD_32(i + 64)
#define EVENKEEL_HELD_112(i) EVENKEEL_HELD_96(i), EVENKEEL_HELD_16(i + 96)
#define EVENKEEL_HELD_128(i) EVENKEEL_HELD_64(i), EVENKEEL_HELD_64(i + 64)

// Whether operands lie along M or N, in the 16-bit types' instructions alone.
template <int kElementBytes, bool kRegisters, bool kTransposeA, bool kTransposeB>
struct WgmmaMajor {
  static constexpr char kWords[] = "";
};
template <>
struct WgmmaMajor<2, false, false, false> {
  static constexpr char kWords[] = ", 0, 0";
};
template <>
struct WgmmaMajor<2, false, false, true> {
  static constexpr char kWords[] = ", 0, 1";
};
template <>
struct WgmmaMajor<2, false, true, false> {
  static constexpr char kWords[] = ", 1, 0";
};
template <>
struct WgmmaMajor<2, false, true, true> {
  static constexpr char kWords[] = ", 1, 1";
};
template <>
struct WgmmaMajor<2, true, false, false> {
  static constexpr char kWords[] = ", 0";
};
template <>
struct WgmmaMajor<2, true, false, true> {
  static constexpr char kWords[] = ", 1";
};

// One instruction: the product's columns, its registers (half of them), and the places in the text
// of the operands after those.
#define EVENKEEL_WGMMA(columns, held, pa, pb, pp, pk, pta, ptb, pmajor)                          \
  if constexpr (kColumns == columns) {                                                           \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #pp                      \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k%" #pk ".f32.%" #pta       \
                 ".%" #ptb " {" EVENKEEL_PLACES_##held "}, %" #pa ", %" #pb                      \
                                                       ", accumulate, 1, 1%" #pmajor ";\n}"      \
                 : EVENKEEL_HELD_##held(0)                                                       \
                 : "l"(a), "l"(b), "r"(static_cast<uint32_t>(accumulate)), "C"(MmaWord<kA>::kK), \
                   "C"(MmaWord<kA>::kName), "C"(MmaWord<kB>::kName), "C"(Major::kWords));        \
  }
#define EVENKEEL_WGMMA_REGISTERS(columns, held, p0, p1, p2, p3, pb, pp, pk, pta, ptb, pmajor)    \
  if constexpr (kColumns == columns) {                                                           \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #pp                      \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k%" #pk ".f32.%" #pta       \
                 ".%" #ptb " {" EVENKEEL_PLACES_##held "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 \
                                                       "}, %" #pb ", accumulate, 1, 1%" #pmajor  \
                                                       ";\n}"                                    \
                 : EVENKEEL_HELD_##held(0)                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                           \
                   "r"(static_cast<uint32_t>(accumulate)), "C"(MmaWord<kA>::kK),                 \
                   "C"(MmaWord<kA>::kName), "C"(MmaWord<kB>::kName), "C"(Major::kWords));        \
  }
#endif

// The widths there are: those whose instruction is spelt out below.
template <int kN>
inline constexpr bool kWgmmaHasColumns =
    kN == 8 || kN == 16 || kN == 32 || kN == 64 || kN == 96 || kN == 128 || kN == 160 ||
    kN == 192 || kN == 224 || kN == 256;

// d = a b^T for 32 bytes of K, added to d where `accumulate`. Both operands in shared memory.
template <MmaType kA, MmaType kB, int kColumns, bool kTransposeA = false, bool kTransposeB = false>
EVENKEEL_DEVICE void wgmma(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kMmaTypesMatch<kA, kB> && kWgmmaHasColumns<kColumns>);
  static_assert(kMmaElementBytes<kA> == 2 || (!kTransposeA && !kTransposeB));
#if defined(__CUDACC__)
  using Major = WgmmaMajor<kMmaElementBytes<kA>, false, kTransposeA, kTransposeB>;
  EVENKEEL_WGMMA(8, 4, 4, 5, 6, 7, 8, 9, 10)
  EVENKEEL_WGMMA(16, 8, 8, 9, 10, 11, 12, 13, 14)
  EVENKEEL_WGMMA(32, 16, 16, 17, 18, 19, 20, 21, 22)
  EVENKEEL_WGMMA(64, 32, 32, 33, 34, 35, 36, 37, 38)
  EVENKEEL_WGMMA(96, 48, 48, 49, 50, 51, 52, 53, 54)
  EVENKEEL_WGMMA(128, 64, 64, 65, 66, 67, 68, 69, 70)
  EVENKEEL_WGMMA(160, 80, 80, 81, 82, 83, 84, 85, 86)
  EVENKEEL_WGMMA(192, 96, 96, 97, 98, 99, 100, 101, 102)
  EVENKEEL_WGMMA(224, 112, 112, 113, 114, 115, 116, 117, 118)
  EVENKEEL_WGMMA(256, 128, 128, 129, 130, 131, 132, 133, 134)
#else
  cuda_emulator::wgmma(static_cast<cuda_emulator::code::Element>(kA),
                       static_cast<cuda_emulator::code::Element>(kB), kColumns, kTransposeA,
                       kTransposeB, d, nullptr, a, b, accumulate);
#endif
}

// With a in registers, which may not be written before the product has been waited for.
template <MmaType kA, MmaType kB, int kColumns, bool kTransposeB = false>
EVENKEEL_DEVICE void wgmma(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b,
                           bool accumulate) {
  static_assert(kMmaTypesMatch<kA, kB> && kWgmmaHasColumns<kColumns>);
  static_assert(kMmaElementBytes<kA> == 2 || !kTransposeB);
#if defined(__CUDACC__)
  using Major = WgmmaMajor<kMmaElementBytes<kA>, true, false, kTransposeB>;
  EVENKEEL_WGMMA_REGISTERS(8, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
  EVENKEEL_WGMMA_REGISTERS(16, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
  EVENKEEL_WGMMA_REGISTERS(32, 16, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)
  EVENKEEL_WGMMA_REGISTERS(64, 32, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41)
  EVENKEEL_WGMMA_REGISTERS(96, 48, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57)
  EVENKEEL_WGMMA_REGISTERS(128, 64, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73)
  EVENKEEL_WGMMA_REGISTERS(160, 80, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89)
  EVENKEEL_WGMMA_REGISTERS(192, 96, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105)
  EVENKEEL_WGMMA_REGISTERS(224, 112, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121)
  EVENKEEL_WGMMA_REGISTERS(256, 128, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137)
#else
  cuda_emulator::wgmma(static_cast<cuda_emulator::code::Element>(kA),
                       static_cast<cuda_emulator::code::Element>(kB), kColumns, false, kTransposeB,
                       d, a, 0, b, accumulate);
#endif
}

#if defined(__CUDACC__)
#undef EVENKEEL_WGMMA
#undef EVENKEEL_WGMMA_REGISTERS
#undef EVENKEEL_PLACES_4
#undef EVENKEEL_HELD_4
#undef EVENKEEL_PLACES_8
#undef EVENKEEL_HELD_8
#undef EVENKEEL_PLACES_16
#undef EVENKEEL_HELD_16
#undef EVENKEEL_PLACES_32
#undef EVENKEEL_HELD_32
#undef EVENKEEL_PLACES_48
#undef EVENKEEL_HELD_48
#undef EVENKEEL_PLACES_64
#undef EVENKEEL_HELD_64
#undef EVENKEEL_PLACES_80
#undef EVENKEEL_HELD_80
#undef EVENKEEL_PLACES_96
#undef EVENKEEL_HELD_96
#undef EVENKEEL_PLACES_112
#undef EVENKEEL_HELD_112
#undef EVENKEEL_PLACES_128
#undef EVENKEEL_HELD_128
#endif

}  // namespace evenkeel::ptx
