// Shared-window addresses, which the asynchronous instructions take in place of generic pointers.
#pragma once

#include "platform/platform.h"

#if defined(__CUDACC__)
namespace evenkeel::ptx {

EVENKEEL_DEVICE uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace evenkeel::ptx
#endif
