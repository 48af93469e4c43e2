// Atomics, and loads and stores with an order and a scope.
#pragma once

#include "warp.h"

namespace cuda_emulator {
using code::Order;
using code::Scope;
using enum code::Order;
using enum code::Scope;

template <class T>
__forceinline__ T atomic(code::Atomic op, const volatile T* address, T value, T compare,
                         Order order, Scope scope) {
  return from_bits<T>(
      cuda_emulator_atomic(op, address, sizeof(T), to_bits(value), to_bits(compare), order, scope));
}

template <class T>
__forceinline__ T ld_acquire(const T* address, Scope scope) {
  return atomic<T>(code::kLoad, address, T(), T(), code::kAcquire, scope);
}
template <class T>
__forceinline__ T ld_relaxed(const T* address, Scope scope) {
  return atomic<T>(code::kLoad, address, T(), T(), code::kRelaxed, scope);
}
template <class T>
__forceinline__ T ld_volatile(const T* address) {
  return atomic<T>(code::kLoad, address, T(), T(), code::kRelaxed, code::kScopeSys);
}
template <class T>
__forceinline__ void st_release(T* address, typename Identity<T>::type value, Scope scope) {
  atomic<T>(code::kStore, address, value, T(), code::kRelease, scope);
}
template <class T>
__forceinline__ void st_relaxed(T* address, typename Identity<T>::type value, Scope scope) {
  atomic<T>(code::kStore, address, value, T(), code::kRelaxed, scope);
}
template <class T>
__forceinline__ void st_volatile(T* address, typename Identity<T>::type value) {
  atomic<T>(code::kStore, address, value, T(), code::kRelaxed, code::kScopeSys);
}
template <class T>
__forceinline__ constexpr code::Atomic add_code() {
  if constexpr (__is_same(T, float)) {
    return code::kAddF32;
  } else if constexpr (__is_same(T, double)) {
    return code::kAddF64;
  } else {
    return code::kAdd;
  }
}
// atom.add with an order: returns the old value.
template <class T>
__forceinline__ T atom_add(T* address, typename Identity<T>::type value, Order order, Scope scope) {
  return atomic<T>(add_code<T>(), address, value, T(), order, scope);
}
template <class T>
__forceinline__ T atom_exch(T* address, typename Identity<T>::type value, Order order,
                            Scope scope) {
  return atomic<T>(code::kExchange, address, value, T(), order, scope);
}
template <class T>
__forceinline__ T atom_cas(T* address, typename Identity<T>::type compare,
                           typename Identity<T>::type value, Order order, Scope scope) {
  return atomic<T>(code::kCas, address, value, compare, order, scope);
}
// red.add: no result.
template <class T>
__forceinline__ void red_add(T* address, typename Identity<T>::type value, Order order,
                             Scope scope) {
  atomic<T>(add_code<T>(), address, value, T(), order, scope);
}
}  // namespace cuda_emulator

#define CUDA_EMULATOR_ATOMIC_SCOPED(name, type, op, scope)                                         \
  __forceinline__ type name(type* address, type value) {                                           \
    return cuda_emulator::atomic<type>(cuda_emulator::code::op, address, value, value,             \
                                       cuda_emulator::code::kRelaxed, cuda_emulator::code::scope); \
  }
#define CUDA_EMULATOR_ATOMIC(name, type, op)                     \
  CUDA_EMULATOR_ATOMIC_SCOPED(name, type, op, kScopeGpu)         \
  CUDA_EMULATOR_ATOMIC_SCOPED(name##_block, type, op, kScopeCta) \
  CUDA_EMULATOR_ATOMIC_SCOPED(name##_system, type, op, kScopeSys)
#define CUDA_EMULATOR_ATOMIC_INTEGERS(name, op_signed, op_unsigned) \
  CUDA_EMULATOR_ATOMIC(name, int, op_signed)                        \
  CUDA_EMULATOR_ATOMIC(name, unsigned, op_unsigned)                 \
  CUDA_EMULATOR_ATOMIC(name, long long, op_signed)                  \
  CUDA_EMULATOR_ATOMIC(name, unsigned long long, op_unsigned)       \
  CUDA_EMULATOR_ATOMIC(name, unsigned long, op_unsigned)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicAdd, kAdd, kAdd)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicSub, kSub, kSub)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicExch, kExchange, kExchange)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicMin, kMinS, kMinU)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicMax, kMaxS, kMaxU)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicAnd, kAnd, kAnd)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicOr, kOr, kOr)
CUDA_EMULATOR_ATOMIC_INTEGERS(atomicXor, kXor, kXor)
CUDA_EMULATOR_ATOMIC(atomicAdd, float, kAddF32)
CUDA_EMULATOR_ATOMIC(atomicAdd, double, kAddF64)
CUDA_EMULATOR_ATOMIC(atomicExch, float, kExchange)
CUDA_EMULATOR_ATOMIC(atomicInc, unsigned, kInc)
CUDA_EMULATOR_ATOMIC(atomicDec, unsigned, kDec)
#undef CUDA_EMULATOR_ATOMIC_INTEGERS
#undef CUDA_EMULATOR_ATOMIC
#undef CUDA_EMULATOR_ATOMIC_SCOPED

#define CUDA_EMULATOR_CAS(type)                                                            \
  __forceinline__ type atomicCAS(type* address, type compare, type value) {                \
    return cuda_emulator::atomic<type>(cuda_emulator::code::kCas, address, value, compare, \
                                       cuda_emulator::code::kRelaxed,                      \
                                       cuda_emulator::code::kScopeGpu);                    \
  }
CUDA_EMULATOR_CAS(int)
CUDA_EMULATOR_CAS(unsigned)
CUDA_EMULATOR_CAS(unsigned short)
CUDA_EMULATOR_CAS(long long)
CUDA_EMULATOR_CAS(unsigned long long)
#undef CUDA_EMULATOR_CAS
