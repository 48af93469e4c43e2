// The scalar intrinsics of CUDA that <cmath> lacks.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>

#include "warp.h"

template <class T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcs(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcg(const T* address) {
  return *address;
}
template <class T>
__forceinline__ void __stcs(T* address, typename cuda_emulator::Identity<T>::type value) {
  *address = value;
}
template <class T>
__forceinline__ void __stcg(T* address, typename cuda_emulator::Identity<T>::type value) {
  *address = value;
}

__forceinline__ unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
__forceinline__ int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
__forceinline__ float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
__forceinline__ float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
__forceinline__ long long __double_as_longlong(double x) {
  return __builtin_bit_cast(long long, x);
}
__forceinline__ double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }

__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ int __ffsll(long long x) { return __builtin_ffsll(x); }
__forceinline__ int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
__forceinline__ int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
__forceinline__ unsigned __brev(unsigned x) {
  x = ((x >> 1) & 0x55555555u) | ((x & 0x55555555u) << 1);
  x = ((x >> 2) & 0x33333333u) | ((x & 0x33333333u) << 2);
  x = ((x >> 4) & 0x0f0f0f0fu) | ((x & 0x0f0f0f0fu) << 4);
  return __builtin_bswap32(x);
}
__forceinline__ unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<unsigned>((both << (shift & 31)) >> 32);
}
__forceinline__ unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
__forceinline__ unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned pick = (selector >> (4 * i)) & 0xf;
    unsigned byte = static_cast<unsigned>(both >> (8 * (pick & 7))) & 0xff;
    if (pick & 8) byte = (byte & 0x80) ? 0xff : 0x00;  // the sign of the byte, replicated
    result |= byte << (8 * i);
  }
  return result;
}
__forceinline__ unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
__forceinline__ int __mulhi(int a, int b) {
  return static_cast<int>((static_cast<int64_t>(a) * b) >> 32);
}

__forceinline__ float rsqrtf(float x) { return 1.0f / sqrtf(x); }
__forceinline__ double rsqrt(double x) { return 1.0 / sqrt(x); }
__forceinline__ float __saturatef(float x) { return x >= 1.0f ? 1.0f : (x > 0.0f ? x : 0.0f); }
__forceinline__ float __fdividef(float a, float b) { return a / b; }
__forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
__forceinline__ float __frcp_rn(float a) { return 1.0f / a; }
__forceinline__ float __fsqrt_rn(float a) { return sqrtf(a); }
__forceinline__ float __fadd_rn(float a, float b) { return a + b; }
__forceinline__ float __fsub_rn(float a, float b) { return a - b; }
__forceinline__ float __fmul_rn(float a, float b) { return a * b; }
__forceinline__ float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
__forceinline__ float __expf(float x) { return expf(x); }
__forceinline__ float __logf(float x) { return logf(x); }
__forceinline__ float __log2f(float x) { return log2f(x); }
// glibc declares exp10f under _GNU_SOURCE, which g++ always defines.
__forceinline__ float __exp10f(float x) { return exp10f(x); }
__forceinline__ int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
__forceinline__ int __float2int_rz(float x) { return static_cast<int>(x); }

#define CUDA_EMULATOR_MIN_MAX(type)                                  \
  __forceinline__ type min(type a, type b) { return b < a ? b : a; } \
  __forceinline__ type max(type a, type b) { return a < b ? b : a; }
CUDA_EMULATOR_MIN_MAX(int)
CUDA_EMULATOR_MIN_MAX(unsigned)
CUDA_EMULATOR_MIN_MAX(long)
CUDA_EMULATOR_MIN_MAX(unsigned long)
CUDA_EMULATOR_MIN_MAX(long long)
CUDA_EMULATOR_MIN_MAX(unsigned long long)
#undef CUDA_EMULATOR_MIN_MAX
__forceinline__ float min(float a, float b) { return fminf(a, b); }
__forceinline__ float max(float a, float b) { return fmaxf(a, b); }
__forceinline__ double min(double a, double b) { return fmin(a, b); }
__forceinline__ double max(double a, double b) { return fmax(a, b); }

__forceinline__ void __trap() { cuda_emulator_trap("__trap()"); }
__forceinline__ void __nanosleep(unsigned nanoseconds) { cuda_emulator_pause(nanoseconds); }
// A counter of the launch that grows with every step: no time, but deterministic.
__forceinline__ long long clock64() { return cuda_emulator_clock(); }

// The compiler turns copies of constant size into accesses it instruments; every other size goes
// through a checked function.
namespace std {
using ::cuda_emulator_memcpy;
using ::cuda_emulator_memmove;
using ::cuda_emulator_memset;
}  // namespace std
#define memcpy cuda_emulator_memcpy
#define memmove cuda_emulator_memmove
#define memset cuda_emulator_memset
// A failed assertion is a finding of the launch, not the end of the process.
#include <cassert>
#undef assert
#define assert(condition) ((condition) ? (void)0 : ::cuda_emulator_trap("assert(" #condition ")"))
