// Registers that warpgroups hand to one another.
#include "test_kernel.h"

namespace {
using namespace cuda_emulator;

enum Mistake { kNone, kTooMany, kNeverGiven, kNoMultiple, kTooFew, kWrongWay };

template <Mistake kMistake>
void registers(const Args& p) {
  // Three warpgroups of 168 registers a thread: one gives 128, two take 64 each.
  if (threadIdx.x < 128) {
    if (kMistake == kWrongWay) {
      setmaxnreg(176, false);  // wrong-way
    } else if (kMistake != kNeverGiven) {
      setmaxnreg(40, false);
    }
  } else {
    setmaxnreg(kMistake == kTooMany ? 240 : 232, true);  // take
  }
  if (kMistake == kNoMultiple) setmaxnreg(100, true);  // no-multiple
  if (kMistake == kTooFew) setmaxnreg(16, false);      // too-few
  p.words[threadIdx.x] = 1;
}
void registers_right(const Args& p) { registers<kNone>(p); }
void registers_too_many(const Args& p) { registers<kTooMany>(p); }
void registers_never_given(const Args& p) { registers<kNeverGiven>(p); }
void registers_no_multiple(const Args& p) { registers<kNoMultiple>(p); }
void registers_too_few(const Args& p) { registers<kTooFew>(p); }
void registers_one_warp(const Args& p) {
  if (threadIdx.x < 32) setmaxnreg(40, false);
  p.words[threadIdx.x] = 1;
}
void registers_wrong_way(const Args& p) { registers<kWrongWay>(p); }

}  // namespace

#define ALL(K)             \
  K(registers_right)       \
  K(registers_too_many)    \
  K(registers_never_given) \
  K(registers_no_multiple) K(registers_too_few) K(registers_one_warp) K(registers_wrong_way)
#define ENTRY(name) CUDA_EMULATOR_ENTRY(name, Args, name)
ALL(ENTRY)
#define ROW_COMMA(name) ROW(name),
CUDA_EMULATOR_TABLE(test_registers, ALL(ROW_COMMA))
