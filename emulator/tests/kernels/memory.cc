// Accesses to global memory: bounds, lifetime, alignment, initialisation, races between blocks.
#include "test_kernel.h"

namespace {

__forceinline__ long long global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The grid is larger than the arrays.
template <bool kRight>
void reads_past(const Args& p) {
  const long long i = kRight ? global_thread() % p.n : global_thread();
  if (threadIdx.x > 0) return;
  const float value = p.in[i];  // reads-past
  p.out[i % p.n] = value;
}

template <bool kRight>
void writes_past(const Args& p) {
  const long long i = global_thread();
  if (kRight && i >= p.n) return;
  p.out[i] = 1;  // writes-past
}

// A pointer from nowhere.
template <bool kRight>
void wild(const Args& p) {
  float* out = kRight ? p.out : nullptr;
  out[threadIdx.x] = 1;  // wild
}

// Vector loads need their alignment.
template <bool kRight>
void misaligned(const Args& p) {
  const float4 v = *reinterpret_cast<const float4*>(p.in + (kRight ? 4 : 1));  // misaligned
  p.out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

// Parameters are read-only.
template <bool kRight>
void writes_params(const Args& p) {
  if (!kRight) const_cast<Args&>(p).n = 0;  // writes-params
  p.out[threadIdx.x] = static_cast<float>(p.n);
}

// The output is read before anybody wrote it.
template <bool kRight>
void accumulates(const Args& p) {
  const unsigned t = threadIdx.x;
  if (kRight) p.out[t] = 0;
  p.out[t] += p.in[t];  // accumulates
}

// Two blocks write the same place.
template <bool kRight>
void blocks_collide(const Args& p) {
  p.out[kRight ? global_thread() : threadIdx.x] = 1;  // blocks-collide
}

// Bytes of one word written by different threads: no race.
void bytes(const Args& p) {
  unsigned char* out = reinterpret_cast<unsigned char*>(p.out);
  out[threadIdx.x] = static_cast<unsigned char>(threadIdx.x);
}

// Copies of any size are checked.
template <bool kRight>
void library_copy(const Args& p) {
  if (threadIdx.x == 0) {
    const size_t size = static_cast<size_t>(p.n) * 4 + (kRight ? 0 : 4);
    std::memcpy(p.out, p.in, size);  // library-copy
  }
}

// A local array whose address is taken, and constants, are nobody's business.
__noinline__ float sum(const float* x, int n) {
  float s = 0;
  for (int i = 0; i < n; ++i) s += x[i];
  return s;
}
constexpr float kTable[8] = {1, 2, 3, 4, 5, 6, 7, 8};
void locals(const Args& p) {
  float local[8];
  for (int i = 0; i < 8; ++i) local[i] = p.in[i] * kTable[(i + threadIdx.x) % 8];
  p.out[threadIdx.x] = sum(local, 8) + sum(kTable, 8);
}

}  // namespace

WRONG_AND_RIGHT(reads_past)
WRONG_AND_RIGHT(writes_past)
WRONG_AND_RIGHT(wild)
WRONG_AND_RIGHT(misaligned)
WRONG_AND_RIGHT(writes_params)
WRONG_AND_RIGHT(accumulates)
WRONG_AND_RIGHT(blocks_collide)
WRONG_AND_RIGHT(library_copy)
CUDA_EMULATOR_ENTRY(bytes, Args, bytes)
CUDA_EMULATOR_ENTRY(locals, Args, locals)

CUDA_EMULATOR_TABLE(test_memory, ROWS(reads_past), ROWS(writes_past), ROWS(wild), ROWS(misaligned),
                    ROWS(writes_params), ROWS(accumulates), ROWS(blocks_collide),
                    ROWS(library_copy), ROW(bytes), ROW(locals))
