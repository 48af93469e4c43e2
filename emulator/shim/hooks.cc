// The hooks g++ and clang emit under -fsanitize=thread and -fsanitize-coverage=trace-pc. This file
// itself is compiled without either.
#include "state.h"

thread_local CudaEmulatorState cuda_emulator_state_storage;

extern "C" {

CudaEmulatorState* cuda_emulator_state() { return &STATE; }

// Implemented in Rust (src/exec/ffi.rs).
void cuda_emulator_core_access(void* context, const volatile void* address, size_t bytes,
                               uint32_t flags, const void* pc);
uint64_t cuda_emulator_core_atomic(void* context, uint32_t op, const volatile void* address,
                                   uint32_t size, uint64_t value, uint64_t compare, uint32_t order,
                                   uint32_t scope, const void* pc);
void cuda_emulator_core_fence(void* context, uint32_t op, const void* pc);
void cuda_emulator_core_out_of_steps(void* context, const void* pc);
void cuda_emulator_core_stack_overflow(void* context, const void* pc);
}

namespace {

// Mirrored in src/exec/codes.rs.
constexpr uint32_t kWrite = 1, kUnaligned = 2, kRange = 4, kVolatile = 8;

// Stack frames left for library functions the kernel may call (printf, libm).
constexpr uintptr_t kStackReserve = 12 * 1024;

__attribute__((always_inline)) inline void access(const volatile void* address, size_t bytes,
                                                  uint32_t flags, const void* pc) {
  CudaEmulatorState& state = STATE;
  if (reinterpret_cast<uintptr_t>(address) - state.stack_low < state.stack_bytes) return;
  if (!state.context) return;
  cuda_emulator_core_access(state.context, address, bytes, flags, pc);
}

// Host code in a kernel file (the guard of a static, say) may use atomics outside a launch.
template <class T>
T plain_atomic(uint32_t op, const volatile void* address, T value, T compare) {
  using namespace cuda_emulator::code;
  T* p = static_cast<T*>(const_cast<void*>(address));
  switch (op) {
    case kLoad:
      return __atomic_load_n(p, __ATOMIC_SEQ_CST);
    case kStore:
      __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
      return value;
    case kExchange:
      return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);
    case kCas:
      __atomic_compare_exchange_n(p, &compare, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      return compare;
    case kAdd:
      return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
    case kSub:
      return __atomic_fetch_sub(p, value, __ATOMIC_SEQ_CST);
    case kAnd:
      return __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);
    case kOr:
      return __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);
    case kXor:
      return __atomic_fetch_xor(p, value, __ATOMIC_SEQ_CST);
    default:
      return __atomic_fetch_nand(p, value, __ATOMIC_SEQ_CST);
  }
}

template <class T>
T atomic(uint32_t op, const volatile void* address, uint64_t value, uint64_t compare, int order,
         const void* pc) {
  using namespace cuda_emulator::code;
  CudaEmulatorState& state = STATE;
  if (!state.context) {
    return plain_atomic<T>(op, address, static_cast<T>(value), static_cast<T>(compare));
  }
  // relaxed, consume, acquire, release, acq_rel, seq_cst
  static constexpr uint32_t orders[] = {kRelaxed, kAcquire, kAcquire, kRelease, kAcqRel, kAcqRel};
  return static_cast<T>(cuda_emulator_core_atomic(state.context, op, address, sizeof(T), value,
                                                  compare, orders[order & 7], kScopeSys, pc));
}

}  // namespace

extern "C" {

void __tsan_init() {}

void __tsan_func_entry(void* call_pc) {
  CudaEmulatorState& state = STATE;
  if (!state.context) return;
  if (state.call_depth < kCallsKept) state.calls[state.call_depth] = call_pc;
  ++state.call_depth;
  const uintptr_t frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  if (__builtin_expect(frame - state.stack_low < kStackReserve, 0)) {
    cuda_emulator_core_stack_overflow(state.context, PC);
  }
}
void __tsan_func_exit() {
  if (STATE.context) --STATE.call_depth;
}

void __sanitizer_cov_trace_pc() {
  CudaEmulatorState& state = STATE;
  if (__builtin_expect(--state.steps_left < 0, 0) && state.context) {
    cuda_emulator_core_out_of_steps(state.context, PC);
  }
}

#define ACCESS(size)                                                                               \
  void __tsan_read##size(void* p) { access(p, size, 0, PC); }                                      \
  void __tsan_write##size(void* p) { access(p, size, kWrite, PC); }                                \
  void __tsan_unaligned_read##size(void* p) { access(p, size, kUnaligned, PC); }                   \
  void __tsan_unaligned_write##size(void* p) { access(p, size, kWrite | kUnaligned, PC); }         \
  void __tsan_volatile_read##size(void* p) { access(p, size, kVolatile, PC); }                     \
  void __tsan_volatile_write##size(void* p) { access(p, size, kWrite | kVolatile, PC); }           \
  void __tsan_unaligned_volatile_read##size(void* p) { access(p, size, kVolatile, PC); }           \
  void __tsan_unaligned_volatile_write##size(void* p) { access(p, size, kWrite | kVolatile, PC); } \
  void __tsan_read_write##size(void* p) {                                                          \
    access(p, size, 0, PC);                                                                        \
    access(p, size, kWrite, PC);                                                                   \
  }                                                                                                \
  void __tsan_unaligned_read_write##size(void* p) {                                                \
    access(p, size, kUnaligned, PC);                                                               \
    access(p, size, kWrite | kUnaligned, PC);                                                      \
  }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

void __tsan_read_range(void* p, size_t bytes) { access(p, bytes, kRange, PC); }
void __tsan_write_range(void* p, size_t bytes) { access(p, bytes, kWrite | kRange, PC); }
void __tsan_vptr_read(void** p) { access(p, sizeof(void*), 0, PC); }
void __tsan_vptr_update(void** p, void*) { access(p, sizeof(void*), kWrite, PC); }

// clang turns the copies of the C library into these.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  access(from, bytes, kRange, PC);
  access(to, bytes, kWrite | kRange, PC);
  return __builtin_memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  access(from, bytes, kRange, PC);
  access(to, bytes, kWrite | kRange, PC);
  return __builtin_memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  access(to, bytes, kWrite | kRange, PC);
  return __builtin_memset(to, value, bytes);
}
void* cuda_emulator_memcpy(void* to, const void* from, size_t bytes) {
  access(from, bytes, kRange, PC);
  access(to, bytes, kWrite | kRange, PC);
  return __builtin_memcpy(to, from, bytes);
}
void* cuda_emulator_memmove(void* to, const void* from, size_t bytes) {
  access(from, bytes, kRange, PC);
  access(to, bytes, kWrite | kRange, PC);
  return __builtin_memmove(to, from, bytes);
}
void* cuda_emulator_memset(void* to, int value, size_t bytes) {
  access(to, bytes, kWrite | kRange, PC);
  return __builtin_memset(to, value, bytes);
}

#define ATOMIC(bits, type)                                                                    \
  type __tsan_atomic##bits##_load(const volatile type* p, int order) {                        \
    return atomic<type>(cuda_emulator::code::kLoad, p, 0, 0, order, PC);                      \
  }                                                                                           \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int order) {                     \
    atomic<type>(cuda_emulator::code::kStore, p, v, 0, order, PC);                            \
  }                                                                                           \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int order) {                  \
    return atomic<type>(cuda_emulator::code::kExchange, p, v, 0, order, PC);                  \
  }                                                                                           \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int order) {                 \
    return atomic<type>(cuda_emulator::code::kAdd, p, v, 0, order, PC);                       \
  }                                                                                           \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int order) {                 \
    return atomic<type>(cuda_emulator::code::kSub, p, v, 0, order, PC);                       \
  }                                                                                           \
  type __tsan_atomic##bits##_fetch_and(volatile type* p, type v, int order) {                 \
    return atomic<type>(cuda_emulator::code::kAnd, p, v, 0, order, PC);                       \
  }                                                                                           \
  type __tsan_atomic##bits##_fetch_or(volatile type* p, type v, int order) {                  \
    return atomic<type>(cuda_emulator::code::kOr, p, v, 0, order, PC);                        \
  }                                                                                           \
  type __tsan_atomic##bits##_fetch_xor(volatile type* p, type v, int order) {                 \
    return atomic<type>(cuda_emulator::code::kXor, p, v, 0, order, PC);                       \
  }                                                                                           \
  type __tsan_atomic##bits##_fetch_nand(volatile type* p, type v, int order) {                \
    return atomic<type>(cuda_emulator::code::kNand, p, v, 0, order, PC);                      \
  }                                                                                           \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* expected, type v, \
                                                    int order, int) {                         \
    const type old = atomic<type>(cuda_emulator::code::kCas, p, v, *expected, order, PC);     \
    const bool same = old == *expected;                                                       \
    *expected = old;                                                                          \
    return same;                                                                              \
  }                                                                                           \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* p, type* expected, type v,   \
                                                  int order, int) {                           \
    const type old = atomic<type>(cuda_emulator::code::kCas, p, v, *expected, order, PC);     \
    const bool same = old == *expected;                                                       \
    *expected = old;                                                                          \
    return same;                                                                              \
  }                                                                                           \
  type __tsan_atomic##bits##_compare_exchange_val(volatile type* p, type expected, type v,    \
                                                  int order, int) {                           \
    return atomic<type>(cuda_emulator::code::kCas, p, v, expected, order, PC);                \
  }
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

void __tsan_atomic_thread_fence(int) {
  if (STATE.context) cuda_emulator_core_fence(STATE.context, cuda_emulator::code::kFenceSys, PC);
}
void __tsan_atomic_signal_fence(int) {}
}
