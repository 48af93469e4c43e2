// Built-in types and thread coordinates of CUDA.
#pragma once

#include "shim.h"

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __cluster_dims__(...)
// Blocks of one cluster share an operating-system thread, so a static array would be one array
// for all of them: use cuda_emulator::dynamic_shared().
#define __shared__ static_assert(false, "the emulator has dynamic shared memory only");

#define CUDA_EMULATOR_VECTOR(name, type, alignment2, alignment4)                                  \
  struct alignas(alignment2) name##2 {                                                            \
    type x, y;                                                                                    \
  };                                                                                              \
  struct alignas(alignment4) name##4 {                                                            \
    type x, y, z, w;                                                                              \
  };                                                                                              \
  inline __attribute__((always_inline)) name##2 make_##name##2(type x, type y) { return {x, y}; } \
  inline __attribute__((always_inline)) name##4 make_##name##4(type x, type y, type z, type w) {  \
    return {x, y, z, w};                                                                          \
  }

CUDA_EMULATOR_VECTOR(char, signed char, 2, 4)
CUDA_EMULATOR_VECTOR(uchar, unsigned char, 2, 4)
CUDA_EMULATOR_VECTOR(short, short, 4, 8)
CUDA_EMULATOR_VECTOR(ushort, unsigned short, 4, 8)
CUDA_EMULATOR_VECTOR(int, int, 8, 16)
CUDA_EMULATOR_VECTOR(uint, unsigned, 8, 16)
CUDA_EMULATOR_VECTOR(float, float, 8, 16)
CUDA_EMULATOR_VECTOR(longlong, long long, 16, 16)
CUDA_EMULATOR_VECTOR(ulonglong, unsigned long long, 16, 16)
CUDA_EMULATOR_VECTOR(double, double, 16, 16)
#undef CUDA_EMULATOR_VECTOR

struct int3 {
  int x, y, z;
};
struct float3 {
  float x, y, z;
};
inline __attribute__((always_inline)) uint3 make_uint3(unsigned x, unsigned y, unsigned z) {
  return {x, y, z};
}
inline __attribute__((always_inline)) int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline __attribute__((always_inline)) float3 make_float3(float x, float y, float z) {
  return {x, y, z};
}

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

#define threadIdx (::cuda_emulator_thread_index())
#define blockIdx (::cuda_emulator_block_index())
#define blockDim (::cuda_emulator_block_dim())
#define gridDim (::cuda_emulator_grid_dim())
inline constexpr int warpSize = 32;
