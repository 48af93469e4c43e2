// The emulated side of the seam: compiled by the host's C++ compiler against the emulator.
#pragma once

#include <cuda_emulator.h>

#include <cstddef>

#define EVENKEEL_DEVICE __device__ __forceinline__

namespace evenkeel::platform {

EVENKEEL_DEVICE unsigned char* dynamic_shared() { return cuda_emulator::dynamic_shared(); }

}  // namespace evenkeel::platform

#define EVENKEEL_UNPAREN(...) __VA_ARGS__
#define EVENKEEL_DEFINE_KERNEL(name, Params, threads, blocks, body) \
  static void name(const void* params) {                            \
    EVENKEEL_UNPAREN body(*static_cast<const Params*>(params));     \
  }
#define EVENKEEL_LIST_KERNEL(name, Params, threads, blocks, body) \
  {#name, name, sizeof(Params), threads, __FILE__},

// The module's table, which the library hands to the emulator. A function and not a static
// constructor: the linker drops constructors of archive members that nothing refers to.
#define EVENKEEL_EXPORT(module, TABLE)                                                 \
  TABLE(EVENKEEL_DEFINE_KERNEL)                                                        \
  extern "C" const CudaEmulatorKernel* evenkeel_kernels_##module(std::size_t* count) { \
    static const CudaEmulatorKernel table[] = {TABLE(EVENKEEL_LIST_KERNEL)};           \
    *count = sizeof(table) / sizeof(table[0]);                                         \
    return table;                                                                      \
  }
