// What Hopper's kernels are told beside what all kernels of products are: the tensor maps of what
// the copy engine moves. Mirrored field by field in src/matmul/hopper_params.rs.
#pragma once

#include "matmul/params.h"
#include "ptx/tensor_map.cuh"

namespace evenkeel {

// How results leave. By elements: every epilogue, any rows. The others are for results that are the
// scaled sums themselves, rounded once: a warp's 16 rows at a time by the copy engine, which stores
// them or adds them, in fp32, to what is there.
enum class HopperStore : uint32_t { kElements, kTiles, kTilesAdded };

struct HopperParams {
  ptx::TensorMap a;    // boxes of 128 bytes of K and Config::kBoxA rows, swizzled over 128 bytes
  ptx::TensorMap b;    // the same of Config::kBoxB rows
  ptx::TensorMap out;  // boxes of 128 bytes and 16 rows, swizzled; unless by elements
  MatmulShape shape;
  MatmulOperand operand_a;
  MatmulOperand operand_b;
  MatmulEpilogue epilogue;
  uint32_t* status;
  HopperStore store;
  uint32_t raster;  // rows of tiles (of pairs of tiles) that are walked side by side
};

static_assert(sizeof(HopperParams) == 704, "src/matmul/hopper_params.rs mirrors it");

}  // namespace evenkeel
