// The one seam between a kernel and what runs it: CUDA's compiler for a GPU, or the host's C++
// compiler for the emulator. Both sides define the same vocabulary:
//
//   EVENKEEL_DEVICE             a function that runs in kernels, inlined
//   platform::dynamic_shared()  the base of the block's dynamic shared memory, 1024-byte aligned
//   EVENKEEL_EXPORT(m, TABLE)   the kernels of module m, from a table of
//                               K(exported name, parameter struct, most threads, least blocks per
//                               multiprocessor, body)
//
// beside what CUDA itself defines (threadIdx, __syncthreads, __shfl_xor_sync, ...).
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include "platform/cuda.cuh"
#else
#include "platform/host.h"
#endif
