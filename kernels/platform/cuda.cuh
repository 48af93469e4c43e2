// The device side of the seam: compiled by nvcc.
#pragma once

#define EVENKEEL_DEVICE __device__ __forceinline__

namespace evenkeel::platform {

// Dynamic shared memory only: its size is the launch's, and a cluster's blocks share one layout.
EVENKEEL_DEVICE unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char evenkeel_shared[];
  return evenkeel_shared;
}

}  // namespace evenkeel::platform

#define EVENKEEL_UNPAREN(...) __VA_ARGS__
#define EVENKEEL_DEFINE_KERNEL(name, Params, threads, blocks, body) \
  extern "C" __global__ void __launch_bounds__(threads, blocks)     \
      name(const __grid_constant__ Params params) {                 \
    EVENKEEL_UNPAREN body(params);                                  \
  }

// A module's kernels, each under its exported name.
#define EVENKEEL_EXPORT(module, TABLE) TABLE(EVENKEEL_DEFINE_KERNEL)
