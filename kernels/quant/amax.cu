// The amax of a matrix ahead of its quantisation: of the whole or each group, of each row, of each
// column of a group; of values as they are, or rotated. One read; writes nothing but the amaxes: at
// 4.3 TB/s of an H200, 16384 x 4096 are 134 MB and 31 us in bf16, 268 MB and 62 us in fp32,
// predicted and not yet measured.
//
// Mapping: a block a tile of 128 x 128, as quant/quantize.cuh; tiles meet in integer atomics on the
// bits of fp32, whose maximum has no order. quant_clear sets the words to 0
// first, and scales of which some belong to no block; quant_outside elements of no group.

#include "quant/quantize.cuh"

namespace evenkeel {
namespace {

template <bool kWide>
EVENKEEL_DEVICE void amax(const AmaxParams& params) {
  amax_tiles<DenseSource<kWide>>(params.grid, params.outputs, params.input, params.status);
}

EVENKEEL_DEVICE void clear(const ClearParams& params) {
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  const uint64_t first = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (const ClearRange& range : params.ranges) {
    // Scales of a byte begin anywhere: words from the first multiple of four on.
    const uint64_t head = min((4 - reinterpret_cast<uint64_t>(range.data) % 4) % 4, range.bytes);
    const uint64_t count = (range.bytes - head) / 4;
    const uint64_t tail = head + 4 * count;
    uint32_t* const words = reinterpret_cast<uint32_t*>(range.data + head);
    for (uint64_t i = first; i < count; i += stride) words[i] = 0;
    if (first < head) range.data[first] = 0;
    if (first < range.bytes - tail) range.data[tail + first] = 0;
  }
}

// Bytes `from` to `to` of each of `rows` rows, by all threads of the launch.
EVENKEEL_DEVICE void clear_bytes(uint8_t* data, int64_t stride, uint64_t rows, uint64_t from,
                                 uint64_t to) {
  if (from >= to) return;
  const uint64_t length = to - from;
  const uint64_t threads = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * length;
       i += threads) {
    const uint64_t row = i / length;
    data[static_cast<int64_t>(row) * stride + static_cast<int64_t>(from + i % length)] = 0;
  }
}

// Rows of no group; with offsets that are wrong, all. Nothing where groups are all there is.
EVENKEEL_DEVICE void outside(const OutsideParams& params) {
  const QuantizeGrid& grid = params.grid;
  uint32_t begun;
  const bool right = check_groups(grid, 0, begun);
  const auto offset = [&](uint32_t group) {
    return static_cast<uint64_t>(load_integer(grid.offsets, grid.offset_type, group));
  };
  const uint64_t begin = right ? offset(0) : grid.rows;
  const uint64_t end = right ? offset(grid.groups) : grid.rows;
  const auto bytes = [&](uint64_t elements) { return (elements * params.bits + 7) / 8; };
  if (params.rowwise.data != nullptr) {
    const OutsideOutput& output = params.rowwise;
    clear_bytes(output.data, output.stride, begin, 0, bytes(grid.columns));
    clear_bytes(output.data + static_cast<int64_t>(end) * output.stride, output.stride,
                grid.rows - end, 0, bytes(grid.columns));
  }
  if (params.transposed.data == nullptr) return;
  const OutsideOutput& output = params.transposed;
  clear_bytes(output.data, output.stride, grid.columns, 0, bytes(begin));
  clear_bytes(output.data, output.stride, grid.columns, bytes(end), bytes(grid.rows));
  if (params.bits == 8 || !right) return;
  // Groups that begin inside a byte: it belongs to the group before.
  for (uint32_t group = 0; group < grid.groups; ++group) {
    const uint64_t first = offset(group);
    if (first % 2 == 0) continue;
    clear_bytes(output.data, output.stride, grid.columns, bytes(first), bytes(offset(group + 1)));
  }
}

}  // namespace
}  // namespace evenkeel

#define AMAX_KERNELS(K)                                                       \
  K(quant_amax_narrow, evenkeel::AmaxParams, 256, 2, (evenkeel::amax<false>)) \
  K(quant_amax_wide, evenkeel::AmaxParams, 256, 1, (evenkeel::amax<true>))    \
  K(quant_clear, evenkeel::ClearParams, 256, 1, (evenkeel::clear))            \
  K(quant_outside, evenkeel::OutsideParams, 256, 1, (evenkeel::outside))

EVENKEEL_EXPORT(quant_amax, AMAX_KERNELS)
