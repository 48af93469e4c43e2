// The CUDA vocabulary for kernels compiled for the host and run under the emulator.
//
// Compile with the flags the crate hands over (DEP_EVENKEEL_EMULATOR_FLAGS): every load and store
// of the kernel then arrives at the emulator through the hooks of -fsanitize=thread, so kernel
// code needs no wrappers. Shared memory is dynamic only.
//
//   struct Params { const float* x; float* y; long n; };
//   void body(const Params& p) { ... }
//   CUDA_EMULATOR_ENTRY(scale, Params, body)
//   CUDA_EMULATOR_TABLE(my_kernels, CUDA_EMULATOR_KERNEL(scale, Params, 256))
#pragma once

#include "cuda_emulator/async.h"
#include "cuda_emulator/atomic.h"
#include "cuda_emulator/cluster.h"
#include "cuda_emulator/math.h"
#include "cuda_emulator/shim.h"
#include "cuda_emulator/sync.h"
#include "cuda_emulator/tensor.h"
#include "cuda_emulator/types.h"
#include "cuda_emulator/warp.h"

// Defines the function the emulator calls in every thread; the body takes the parameters by const
// reference, from memory that is read-only to the kernel, as __grid_constant__ is.
#define CUDA_EMULATOR_ENTRY(name, Params, ...)                     \
  extern "C" void cuda_emulator_entry_##name(const void* params) { \
    (__VA_ARGS__)(*static_cast<const Params*>(params));            \
  }
// One row of a table.
#define CUDA_EMULATOR_KERNEL(name, Params, threads) \
  { #name, &cuda_emulator_entry_##name, sizeof(Params), threads, __FILE__ }
// Defines `extern "C" const CudaEmulatorKernel* function(size_t* count)`.
#define CUDA_EMULATOR_TABLE(function, ...)                       \
  extern "C" const CudaEmulatorKernel* function(size_t* count) { \
    static const CudaEmulatorKernel table[] = {__VA_ARGS__};     \
    *count = sizeof(table) / sizeof(table[0]);                   \
    return table;                                                \
  }
