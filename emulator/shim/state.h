// What the hooks need to know about the emulated thread that runs on this OS thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../include/cuda_emulator/shim.h"

// Mirrored by ThreadInfo in src/exec/ffi.rs.
struct CudaEmulatorThreadInfo {
  uint3 thread_index, block_index, block_dim, grid_dim;
  uint3 cluster_index, cluster_grid, cluster_dim;
  uint32_t cluster_rank;
  uint32_t shared_bytes;
  unsigned char* shared;
};

// Mirrored by HookState in src/exec/ffi.rs.
struct CudaEmulatorState {
  uintptr_t stack_low;
  uintptr_t stack_bytes;
  int64_t steps_left;
  void* context;  // null outside a launch
  const CudaEmulatorThreadInfo* thread;
  const void** calls;  // return addresses of the functions entered, innermost last
  uint32_t call_depth;
};

// How many of them are kept; mirrored in src/exec/ffi.rs.
constexpr uint32_t kCallsKept = 16;

extern thread_local CudaEmulatorState cuda_emulator_state_storage
    __attribute__((tls_model("initial-exec")));

#define STATE cuda_emulator_state_storage
#define PC __builtin_return_address(0)
