// targets: 90a 100f
//
// Softmax, log-softmax and StableMax of rows that only a cluster's registers hold: see
// norm/softmax_forward.cuh and norm/softmax_backward.cuh.

#include "norm/softmax_backward.cuh"
#include "norm/softmax_forward.cuh"

#define SOFTMAX_FORWARD(K, name, chunk, units, spread, threads, blocks)                   \
  K(norm_softmax_forward_cluster_##name, evenkeel::SoftmaxForwardParams, threads, blocks, \
    (evenkeel::softmax_forward<evenkeel::RowLayout<chunk, units, spread>, evenkeel::ClusterTeam>))
#define SOFTMAX_BACKWARD(K, name, chunk, units, spread, threads, blocks)                    \
  K(norm_softmax_backward_cluster_##name, evenkeel::SoftmaxBackwardParams, threads, blocks, \
    (evenkeel::softmax_backward<evenkeel::RowLayout<chunk, units, spread>,                  \
                                evenkeel::ClusterTeam>))
#define SOFTMAX_KERNELS(K)                       \
  SOFTMAX_FORWARD(K, c8u4, 8, 4, false, 256, 3)  \
  SOFTMAX_FORWARD(K, c8u8, 8, 8, false, 256, 2)  \
  SOFTMAX_FORWARD(K, c4u8, 4, 8, false, 512, 1)  \
  SOFTMAX_FORWARD(K, s4u4, 4, 4, true, 512, 1)   \
  SOFTMAX_BACKWARD(K, c8u4, 8, 4, false, 256, 2) \
  SOFTMAX_BACKWARD(K, c8u8, 8, 8, false, 256, 2) \
  SOFTMAX_BACKWARD(K, c4u8, 4, 8, false, 512, 1) \
  SOFTMAX_BACKWARD(K, s4u4, 4, 4, true, 512, 1)

EVENKEEL_EXPORT(norm_softmax_cluster, SOFTMAX_KERNELS)
