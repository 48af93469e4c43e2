// Who of a warp does the work of one thread, and how a kernel begins before its predecessor ends
// (sm_90 on).
#pragma once

#include "platform/platform.h"

namespace evenkeel::ptx {

// True in one lane of a warp of which all 32 lanes call it: elect.sync. The same lane every time.
EVENKEEL_DEVICE bool elect_one() {
#if defined(__CUDACC__)
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred elected;\n"
      "elect.sync _|elected, 0xffffffff;\n"
      "selp.b32 %0, 1, 0, elected;\n"
      "}"
      : "=r"(elected));
  return elected != 0;
#else
  return cuda_emulator::elect_one();
#endif
}

// Lets kernels that depend on this one be launched: griddepcontrol.launch_dependents.
EVENKEEL_DEVICE void launch_dependents() {
#if defined(__CUDACC__)
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the kernels this one depends on have ended and their writes are visible:
// griddepcontrol.wait. The emulator starts a kernel after that.
EVENKEEL_DEVICE void wait_for_prerequisites() {
#if defined(__CUDACC__)
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace evenkeel::ptx
