// The primitives of the headers: each takes the caller's address and hands over to the scheduler.
#include "state.h"

extern "C" {
// Implemented in Rust (src/exec/ffi.rs).
uint64_t cuda_emulator_core_warp(void* context, uint32_t op, uint32_t mask, uint64_t value,
                                 uint32_t argument, uint32_t width, const void* pc);
uint32_t cuda_emulator_core_barrier(void* context, uint32_t op, int32_t id, int32_t threads,
                                    int32_t predicate, const void* pc);
void cuda_emulator_core_cluster_barrier(void* context, uint32_t op, uint32_t flag, const void* pc);
uint64_t cuda_emulator_core_mbarrier(void* context, uint32_t op, void* bar, uint64_t argument,
                                     uint32_t scope, const void* pc);
void cuda_emulator_core_fence(void* context, uint32_t op, const void* pc);
uint64_t cuda_emulator_core_atomic(void* context, uint32_t op, const volatile void* address,
                                   uint32_t size, uint64_t value, uint64_t compare, uint32_t order,
                                   uint32_t scope, const void* pc);
void cuda_emulator_core_copy(void* context, uint32_t op, void* destination, const void* source,
                             uint32_t bytes, void* bar, uint32_t argument, const void* pc);
void cuda_emulator_core_group(void* context, uint32_t op, int32_t pending, void* bar,
                              const void* pc);
void cuda_emulator_core_matrix(void* context, uint32_t op, uint32_t count, uint32_t* registers,
                               void* row, const void* pc);
void cuda_emulator_core_mma(void* context, uint32_t a_type, uint32_t b_type, float* d,
                            const uint32_t* a, const uint32_t* b, const void* pc);
void cuda_emulator_core_tensor(void* context, uint32_t op, void* shared, const void* map, void* bar,
                               const int32_t* coordinates, uint32_t dimensions, uint32_t blocks,
                               const void* pc);
void cuda_emulator_core_wgmma(void* context, uint32_t types, uint32_t columns, uint32_t flags,
                              float* d, const uint32_t* a_registers, uint64_t a, uint64_t b,
                              const void* pc);
void cuda_emulator_core_wgmma_group(void* context, uint32_t op, int32_t pending, const void* pc);
void* cuda_emulator_core_map_shared(void* context, void* own, uint32_t rank, const void* pc);
void cuda_emulator_core_setmaxnreg(void* context, int32_t count, uint32_t increase, const void* pc);
void cuda_emulator_core_pause(void* context, const void* pc);
[[noreturn]] void cuda_emulator_core_trap(void* context, const char* message, const void* pc);
[[noreturn]] void cuda_emulator_core_outside(const char* what);

uint3 cuda_emulator_thread_index() { return STATE.thread->thread_index; }
uint3 cuda_emulator_block_index() { return STATE.thread->block_index; }
uint3 cuda_emulator_block_dim() { return STATE.thread->block_dim; }
uint3 cuda_emulator_grid_dim() { return STATE.thread->grid_dim; }
uint3 cuda_emulator_cluster_index() { return STATE.thread->cluster_index; }
uint3 cuda_emulator_cluster_grid() { return STATE.thread->cluster_grid; }
uint3 cuda_emulator_cluster_dim() { return STATE.thread->cluster_dim; }
uint32_t cuda_emulator_cluster_rank() { return STATE.thread->cluster_rank; }
unsigned char* cuda_emulator_shared() { return STATE.thread->shared; }
uint32_t cuda_emulator_shared_bytes() { return STATE.thread->shared_bytes; }

uint64_t cuda_emulator_warp(uint32_t op, uint32_t mask, uint64_t value, uint32_t argument,
                            uint32_t width) {
  return cuda_emulator_core_warp(STATE.context, op, mask, value, argument, width, PC);
}
uint32_t cuda_emulator_barrier(uint32_t op, int32_t id, int32_t threads, int32_t predicate) {
  return cuda_emulator_core_barrier(STATE.context, op, id, threads, predicate, PC);
}
void cuda_emulator_cluster_barrier(uint32_t op, uint32_t flag) {
  cuda_emulator_core_cluster_barrier(STATE.context, op, flag, PC);
}
uint64_t cuda_emulator_mbarrier(uint32_t op, void* bar, uint64_t argument, uint32_t scope) {
  return cuda_emulator_core_mbarrier(STATE.context, op, bar, argument, scope, PC);
}
void cuda_emulator_fence(uint32_t op) { cuda_emulator_core_fence(STATE.context, op, PC); }
uint64_t cuda_emulator_atomic(uint32_t op, const volatile void* address, uint32_t size,
                              uint64_t value, uint64_t compare, uint32_t order, uint32_t scope) {
  return cuda_emulator_core_atomic(STATE.context, op, address, size, value, compare, order, scope,
                                   PC);
}
void cuda_emulator_copy(uint32_t op, void* destination, const void* source, uint32_t bytes,
                        void* bar, uint32_t argument) {
  cuda_emulator_core_copy(STATE.context, op, destination, source, bytes, bar, argument, PC);
}
void cuda_emulator_group(uint32_t op, int32_t pending, void* bar) {
  cuda_emulator_core_group(STATE.context, op, pending, bar, PC);
}
void cuda_emulator_matrix(uint32_t op, uint32_t count, uint32_t* registers, void* row) {
  cuda_emulator_core_matrix(STATE.context, op, count, registers, row, PC);
}
void cuda_emulator_mma(uint32_t a_type, uint32_t b_type, float* d, const uint32_t* a,
                       const uint32_t* b) {
  cuda_emulator_core_mma(STATE.context, a_type, b_type, d, a, b, PC);
}
void cuda_emulator_tensor(uint32_t op, void* shared, const void* map, void* bar,
                          const int32_t* coordinates, uint32_t dimensions, uint32_t blocks) {
  cuda_emulator_core_tensor(STATE.context, op, shared, map, bar, coordinates, dimensions, blocks,
                            PC);
}
void cuda_emulator_wgmma(uint32_t a_type, uint32_t b_type, uint32_t columns, uint32_t flags,
                         float* d, const uint32_t* a_registers, uint64_t a, uint64_t b) {
  cuda_emulator_core_wgmma(STATE.context, a_type | b_type << 8, columns, flags, d, a_registers, a,
                           b, PC);
}
void cuda_emulator_wgmma_group(uint32_t op, int32_t pending) {
  cuda_emulator_core_wgmma_group(STATE.context, op, pending, PC);
}
void* cuda_emulator_map_shared(void* own, uint32_t rank) {
  return cuda_emulator_core_map_shared(STATE.context, own, rank, PC);
}
void cuda_emulator_setmaxnreg(int32_t count, uint32_t increase) {
  cuda_emulator_core_setmaxnreg(STATE.context, count, increase, PC);
}
void cuda_emulator_pause(uint32_t) { cuda_emulator_core_pause(STATE.context, PC); }
void cuda_emulator_trap(const char* message) {
  cuda_emulator_core_trap(STATE.context, message, PC);
}
long long cuda_emulator_clock() { return -STATE.steps_left; }
}
