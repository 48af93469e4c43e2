// Results of the partial sums of a contraction that was split among blocks, which small products
// need to fill a GPU: out = epilogue(partial 0 + partial 1 + ...), in this order whatever the order
// in which blocks came.
//
// Traffic: splits x M x N x 4 bytes read, of which nothing that fits L2 comes from memory, C read,
// results written.
//
// Mapping: a thread for eight neighbouring columns of a row; neighbours side by side.

#include "matmul/epilogue.cuh"

namespace evenkeel {

struct SplitParams {
  MatmulEpilogue epilogue;
  const float* partials;  // [splits, rows, columns rounded up to 8]
  uint64_t rows;
  uint64_t columns;
  uint32_t splits;
  uint32_t unused;
};
static_assert(sizeof(SplitParams) == 152, "src/matmul/params.rs mirrors it");

namespace {

EVENKEEL_DEVICE void reduce_splits(const SplitParams& params) {
  const uint64_t row_units = (params.columns + 7) / 8;
  const uint64_t unit = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
  Epilogue epilogue(params.epilogue, params.columns, 0);
  if (unit < params.rows * row_units) {
    const uint64_t row = unit / row_units;
    const uint64_t column = (unit - row * row_units) * 8;
    const unsigned char* from = reinterpret_cast<const unsigned char*>(params.partials + unit * 8);
    const uint64_t stride = params.rows * row_units * 32;
    float sums[8] = {};
#pragma unroll 4
    for (uint32_t split = 0; split < params.splits; ++split) {
      uint32_t words[8];
      load_words<32>(from + split * stride, words);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[i] += __uint_as_float(words[i]);
    }
    epilogue.store(row, column, sums);
  }
  epilogue.finish();
}

}  // namespace
}  // namespace evenkeel

#define SPLIT_KERNELS(K) \
  K(matmul_split_reduce, evenkeel::SplitParams, 256, 2, (evenkeel::reduce_splits))

EVENKEEL_EXPORT(matmul_split, SPLIT_KERNELS)
