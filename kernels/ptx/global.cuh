// Wide accesses to global memory that leave no line behind in L1: rows are touched once.
#pragma once

#include "platform/platform.h"

namespace evenkeel::ptx {

// ld.global.L1::no_allocate of 16 bytes (uint4) or 8 (uint2). Not .nc: operations in place write
// what they read.
template <typename C>
EVENKEEL_DEVICE C load_global(const void* address);

template <>
EVENKEEL_DEVICE uint4 load_global<uint4>(const void* address) {
#if defined(__CUDACC__)
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address)
               : "memory");
  return v;
#else
  return *static_cast<const uint4*>(address);
#endif
}

template <>
EVENKEEL_DEVICE uint2 load_global<uint2>(const void* address) {
#if defined(__CUDACC__)
  uint2 v;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(address)
               : "memory");
  return v;
#else
  return *static_cast<const uint2*>(address);
#endif
}

// ld.global of 16 or 8 bytes that are read again and again and stay in L1. Volatile, so that a
// loop's loads are not all brought forward: what they fill are registers.
template <typename C>
EVENKEEL_DEVICE C load_cached(const void* address);

template <>
EVENKEEL_DEVICE uint4 load_cached<uint4>(const void* address) {
#if defined(__CUDACC__)
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address)
               : "memory");
  return v;
#else
  return *static_cast<const uint4*>(address);
#endif
}

template <>
EVENKEEL_DEVICE uint2 load_cached<uint2>(const void* address) {
#if defined(__CUDACC__)
  uint2 v;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(address) : "memory");
  return v;
#else
  return *static_cast<const uint2*>(address);
#endif
}

// st.global.L1::no_allocate of 16 or 8 bytes.
EVENKEEL_DEVICE void store_global(void* address, uint4 v) {
#if defined(__CUDACC__)
  asm volatile("st.global.L1::no_allocate.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
#else
  *static_cast<uint4*>(address) = v;
#endif
}

EVENKEEL_DEVICE void store_global(void* address, uint2 v) {
#if defined(__CUDACC__)
  asm volatile("st.global.L1::no_allocate.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(v.x), "r"(v.y)
               : "memory");
#else
  *static_cast<uint2*>(address) = v;
#endif
}

}  // namespace evenkeel::ptx
