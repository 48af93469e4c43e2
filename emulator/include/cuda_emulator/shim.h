// The C interface between host-compiled kernels and the emulator. Kernels use the vocabulary of
// cuda_emulator.h; nothing here is meant to be called directly.
#pragma once

#include <cstddef>
#include <cstdint>

struct uint3 {
  unsigned x, y, z;
};

// One row of the table a kernel file exports: what the emulator needs to launch it.
struct CudaEmulatorKernel {
  const char* name;
  void (*entry)(const void* params);
  uint32_t params_bytes;
  uint32_t max_threads;
  const char* file;
};

// The codes below are mirrored in src/exec/codes.rs; a test compares them.
namespace cuda_emulator::code {
enum Warp : uint32_t {
  kSyncwarp,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAll,
  kAny,
  kMatchAny,
  kMatchAll,
  kReduceAdd,
  kReduceMinU,
  kReduceMaxU,
  kReduceMinS,
  kReduceMaxS,
  kReduceAnd,
  kReduceOr,
  kReduceXor,
  kElect,
  kActivemask
};
enum Barrier : uint32_t {
  kSyncthreads,
  kSyncthreadsCount,
  kSyncthreadsAnd,
  kSyncthreadsOr,
  kBarSync,
  kBarArrive
};
enum Cluster : uint32_t { kClusterArrive, kClusterWait };
enum Mbarrier : uint32_t {
  kInit,
  kInval,
  kArrive,
  kArriveExpectTx,
  kExpectTx,
  kArriveRemote,
  kArriveRemoteExpectTx,
  kTryWaitParity,
  kTestWaitParity
};
enum Fence : uint32_t {
  kFenceCta,
  kFenceCluster,
  kFenceGpu,
  kFenceSys,
  kFenceProxyAsync,
  kFenceMbarrierInit
};
enum Atomic : uint32_t {
  kLoad,
  kStore,
  kExchange,
  kCas,
  kAdd,
  kSub,
  kAnd,
  kOr,
  kXor,
  kMinS,
  kMaxS,
  kMinU,
  kMaxU,
  kInc,
  kDec,
  kAddF32,
  kAddF64,
  kNand
};
enum Order : uint32_t { kRelaxed, kAcquire, kRelease, kAcqRel };
enum Scope : uint32_t { kScopeCta, kScopeCluster, kScopeGpu, kScopeSys };
enum Copy : uint32_t {
  kCpAsync,
  kBulkGlobalToShared,
  kBulkMulticast,
  kBulkSharedToGlobal,
  kBulkSharedToShared,
  kStAsync
};
enum Group : uint32_t {
  kCpCommit,
  kCpWait,
  kCpMbarrierArrive,
  kCpMbarrierArriveNoinc,
  kBulkCommit,
  kBulkWait,
  kBulkWaitRead
};
enum Element : uint32_t { kBf16, kF16, kE4m3, kE5m2 };
enum Matrix : uint32_t { kLoadMatrix, kLoadMatrixTranspose, kStoreMatrix, kStoreMatrixTranspose };
enum Tensor : uint32_t { kTensorLoad, kTensorMulticast, kTensorStore, kTensorReduceAdd };
enum Wgmma : uint32_t { kWgmmaFence, kWgmmaCommit, kWgmmaWait };
}  // namespace cuda_emulator::code

extern "C" {
// Constant for the whole life of an emulated thread, so the compiler may merge the calls.
__attribute__((const)) uint3 cuda_emulator_thread_index();
__attribute__((const)) uint3 cuda_emulator_block_index();
__attribute__((const)) uint3 cuda_emulator_block_dim();
__attribute__((const)) uint3 cuda_emulator_grid_dim();
__attribute__((const)) uint3 cuda_emulator_cluster_index();
__attribute__((const)) uint3 cuda_emulator_cluster_grid();
__attribute__((const)) uint3 cuda_emulator_cluster_dim();
__attribute__((const)) uint32_t cuda_emulator_cluster_rank();
__attribute__((const)) unsigned char* cuda_emulator_shared();
__attribute__((const)) uint32_t cuda_emulator_shared_bytes();

uint64_t cuda_emulator_warp(uint32_t op, uint32_t mask, uint64_t value, uint32_t argument,
                            uint32_t width);
uint32_t cuda_emulator_barrier(uint32_t op, int32_t id, int32_t threads, int32_t predicate);
void cuda_emulator_cluster_barrier(uint32_t op, uint32_t flag);
uint64_t cuda_emulator_mbarrier(uint32_t op, void* bar, uint64_t argument, uint32_t scope);
void cuda_emulator_fence(uint32_t op);
uint64_t cuda_emulator_atomic(uint32_t op, const volatile void* address, uint32_t size,
                              uint64_t value, uint64_t compare, uint32_t order, uint32_t scope);
void cuda_emulator_copy(uint32_t op, void* destination, const void* source, uint32_t bytes,
                        void* bar, uint32_t argument);
void cuda_emulator_group(uint32_t op, int32_t pending, void* bar);
void cuda_emulator_matrix(uint32_t op, uint32_t count, uint32_t* registers, void* row);
void cuda_emulator_mma(uint32_t a_type, uint32_t b_type, float* d, const uint32_t* a,
                       const uint32_t* b);
void cuda_emulator_tensor(uint32_t op, void* shared, const void* map, void* bar,
                          const int32_t* coordinates, uint32_t dimensions, uint32_t blocks);
// `a_registers` is null where a lies in shared memory; `flags`: 1 transposes a, 2 b, 4 accumulates.
void cuda_emulator_wgmma(uint32_t a_type, uint32_t b_type, uint32_t columns, uint32_t flags,
                         float* d, const uint32_t* a_registers, uint64_t a, uint64_t b);
void cuda_emulator_wgmma_group(uint32_t op, int32_t pending);
void* cuda_emulator_map_shared(void* own, uint32_t rank);
void cuda_emulator_setmaxnreg(int32_t count, uint32_t increase);
void cuda_emulator_pause(uint32_t nanoseconds);
[[noreturn]] void cuda_emulator_trap(const char* message);
long long cuda_emulator_clock();

void* cuda_emulator_memcpy(void* destination, const void* source, size_t bytes);
void* cuda_emulator_memmove(void* destination, const void* source, size_t bytes);
void* cuda_emulator_memset(void* destination, int value, size_t bytes);
}
