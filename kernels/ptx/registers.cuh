// Registers a warpgroup holds (sm_90a and the families 100 and 120): setmaxnreg. Every warp of the
// warpgroup calls it, converged, with a multiple of 8 from 24 to 256.
#pragma once

#include "platform/platform.h"

namespace evenkeel::ptx {

// Asks for more, and waits until other warpgroups of the block have given enough back.
template <int kCount>
EVENKEEL_DEVICE void setmaxnreg_increase() {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
#if defined(__CUDACC__)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
#else
  cuda_emulator::setmaxnreg(kCount, true);
#endif
}

// Gives registers back.
template <int kCount>
EVENKEEL_DEVICE void setmaxnreg_decrease() {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
#if defined(__CUDACC__)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
#else
  cuda_emulator::setmaxnreg(kCount, false);
#endif
}

}  // namespace evenkeel::ptx
