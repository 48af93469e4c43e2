// Softmax, log-softmax and StableMax on teams of lanes or warps within a block: see
// norm/softmax_forward.cuh and norm/softmax_backward.cuh.

#include "norm/softmax_backward.cuh"
#include "norm/softmax_forward.cuh"

// Most threads and least blocks a multiprocessor, as norm/rows_block.cu; the backward holds two
// tensors. No measurement chose these yet.
#define SOFTMAX_FORWARD(K, name, chunk, units, spread, threads, blocks)           \
  K(norm_softmax_forward_##name, evenkeel::SoftmaxForwardParams, threads, blocks, \
    (evenkeel::softmax_forward<evenkeel::RowLayout<chunk, units, spread>, evenkeel::LocalTeam>))
#define SOFTMAX_BACKWARD(K, name, chunk, units, spread, threads, blocks)            \
  K(norm_softmax_backward_##name, evenkeel::SoftmaxBackwardParams, threads, blocks, \
    (evenkeel::softmax_backward<evenkeel::RowLayout<chunk, units, spread>, evenkeel::LocalTeam>))
#define SOFTMAX_KERNELS(K)                       \
  SOFTMAX_FORWARD(K, c8u2, 8, 2, false, 256, 4)  \
  SOFTMAX_FORWARD(K, c8u4, 8, 4, false, 256, 3)  \
  SOFTMAX_FORWARD(K, c8u8, 8, 8, false, 256, 2)  \
  SOFTMAX_FORWARD(K, c4u4, 4, 4, false, 256, 3)  \
  SOFTMAX_FORWARD(K, c4u8, 4, 8, false, 256, 2)  \
  SOFTMAX_FORWARD(K, s4u4, 4, 4, true, 512, 1)   \
  SOFTMAX_BACKWARD(K, c8u2, 8, 2, false, 256, 4) \
  SOFTMAX_BACKWARD(K, c8u4, 8, 4, false, 256, 2) \
  SOFTMAX_BACKWARD(K, c8u8, 8, 8, false, 256, 2) \
  SOFTMAX_BACKWARD(K, c4u4, 4, 4, false, 256, 2) \
  SOFTMAX_BACKWARD(K, c4u8, 4, 8, false, 256, 2) \
  SOFTMAX_BACKWARD(K, s4u4, 4, 4, true, 512, 1)

EVENKEEL_EXPORT(norm_softmax_block, SOFTMAX_KERNELS)
