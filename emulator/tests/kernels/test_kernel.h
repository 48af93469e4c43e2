// What the test kernels share: one parameter struct, and a table row.
#pragma once

#include "cuda_emulator.h"

struct Args {
  float* in;
  float* out;
  unsigned* words;
  long long n;
};

#define WRONG_AND_RIGHT(name)                          \
  CUDA_EMULATOR_ENTRY(name##_wrong, Args, name<false>) \
  CUDA_EMULATOR_ENTRY(name##_right, Args, name<true>)
#define ROWS(name) \
  CUDA_EMULATOR_KERNEL(name##_wrong, Args, 1024), CUDA_EMULATOR_KERNEL(name##_right, Args, 1024)
#define ROW(name) CUDA_EMULATOR_KERNEL(name, Args, 1024)
