// The pipeline of the portable kernels: stages of 128 rows x 128 bytes of each operand in shared
// memory, filled by cp.async while earlier ones are multiplied.
//
// A row lies in its stage as eight pieces of 16 bytes, which change places by a number of the row:
// piece p of row r is at p ^ turn(r). Both ways of access are free of bank conflicts: copies, in
// which eight lanes write a row, whatever turn is; and ldmatrix, whose eight rows' pieces must have
// eight places. For A these are neighbouring rows, turn(r) = r mod 8. Of B, a thread is to have
// eight neighbouring columns of the result, where mma gives it columns 2 t and 2 t + 1 of each
// eight: so column 2 t + i of mma's tile j of a warp's 32 columns is column 8 t + 2 j + i of them,
// whose rows' turns are those of t and i: turn(r) = 2 ((r / 8) mod 4) + r mod 2.
#pragma once

#include "matmul/tile.cuh"
#include "ptx/cp_async.cuh"

namespace evenkeel {

inline constexpr uint32_t kStages = 3;
inline constexpr uint32_t kOperandStage = kProductTile * kStageBytes;

struct PortableShared {
  unsigned char a[kStages][kOperandStage];
  unsigned char b[kStages][kOperandStage];
  // Of the 128 rows of A, then those of B: fp32, or four E8M0.
  uint32_t scales[kStages][2 * kProductTile];

  EVENKEEL_DEVICE static PortableShared& get() {
    return *reinterpret_cast<PortableShared*>(platform::dynamic_shared());
  }
};
// All that a block has on compute capability 8.6 and 8.9.
static_assert(sizeof(PortableShared) == 101376, "src/matmul/launch.rs has it");

EVENKEEL_DEVICE uint32_t turn_of_a(uint32_t row) { return row % 8; }
EVENKEEL_DEVICE uint32_t turn_of_b(uint32_t row) { return row / 8 % 4 * 2 + row % 2; }

// A thread's part of an operand's stages: piece threadIdx.x mod 8 of rows threadIdx.x / 8 + 32 i,
// so that a warp reads four times 128 neighbouring bytes.
template <int kElementBytes>
struct OperandCopy {
  const unsigned char* source;  // its piece of its first row, in the contraction's first stage
  int64_t stride;               // of 32 rows
  uint64_t bytes;               // of the contraction, from that piece on
  uint32_t rows;                // how many of its four there are
  uint32_t place;               // in a stage
  bool aligned;

  EVENKEEL_DEVICE static OperandCopy of(const MatmulOperand& operand, uint64_t row, uint32_t rows,
                                        uint64_t k, uint64_t k_size, bool is_b) {
    OperandCopy copy;
    const uint32_t first = threadIdx.x / 8;
    const uint32_t piece = threadIdx.x % 8;
    const unsigned char* const base = static_cast<const unsigned char*>(operand.data) +
                                      static_cast<int64_t>(row) * operand.stride +
                                      static_cast<int64_t>(k * kElementBytes);
    // One row has none after it, and its stride need not be one of 16 bytes.
    const int64_t stride = rows > 1 ? operand.stride : 0;
    copy.source = base + first * stride + piece * 16;
    copy.stride = 32 * stride;
    const uint64_t bytes = k_size * kElementBytes;
    copy.bytes = bytes > piece * 16 ? bytes - piece * 16 : 0;
    copy.rows = rows > first ? (rows - first + 31) / 32 : 0;
    const uint32_t turn = is_b ? turn_of_b(first) : turn_of_a(first);
    copy.place = first * kStageBytes + (piece ^ turn) * 16;
    const uint64_t low_bits = reinterpret_cast<uint64_t>(base) | static_cast<uint64_t>(stride);
    copy.aligned = low_bits % 16 == 0;
    return copy;
  }

  // Asks for stage `index` of the contraction; zeros where it has ended, and for missing rows.
  EVENKEEL_DEVICE void fetch(uint64_t index, unsigned char* stage) const {
    const uint64_t before = index * kStageBytes;
    const uint32_t left =
        bytes > before ? static_cast<uint32_t>(min(bytes - before, static_cast<uint64_t>(16))) : 0;
    if (aligned) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        ptx::cp_async_16(stage + place + i * 32 * kStageBytes, source + i * stride + before,
                         i < rows ? left : 0);
      }
      return;
    }
#pragma unroll 1
    for (uint32_t i = 0; i < 4; ++i) {
      *reinterpret_cast<uint4*>(stage + place + i * 32 * kStageBytes) =
          gather(source + static_cast<int64_t>(i) * stride + before, i < rows ? left : 0);
    }
  }

  // Up to 16 bytes, element by element.
  EVENKEEL_DEVICE static uint4 gather(const unsigned char* from, uint32_t count) {
    uint32_t words[4] = {};
#pragma unroll
    for (uint32_t e = 0; e < 16 / kElementBytes; ++e) {
      const uint32_t at = e * kElementBytes;
      if (at >= count) continue;
      const uint32_t element =
          kElementBytes == 2 ? *reinterpret_cast<const uint16_t*>(from + at) : from[at];
      words[at / 4] |= element << (8 * (at % 4));
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

// A thread's part of the scales of blocks: row threadIdx.x of A, or threadIdx.x - 128 of B. Of 1 x
// 128 and 128 x 128 a stage of FP8 needs one number a row, of 1 x 32 four bytes.
struct ScaleCopy {
  const unsigned char* source;  // of the contraction's first block; null: this thread has none
  int64_t stride;               // bytes from a block to the next
  uint64_t blocks;              // how many there are
  bool bytes;                   // E8M0

  EVENKEEL_DEVICE static bool is_of_blocks(OperandScale scale) {
    return scale == OperandScale::k1x128 || scale == OperandScale::k128x128 ||
           scale == OperandScale::k1x32;
  }

  EVENKEEL_DEVICE static ScaleCopy of(const PortableParams& params, const ProductTile& tile) {
    const bool is_b = threadIdx.x >= kProductTile;
    const MatmulOperand& operand = is_b ? params.b : params.a;
    const uint32_t row = threadIdx.x % kProductTile;
    ScaleCopy copy = {};
    copy.bytes = operand.scale == OperandScale::k1x32;
    if (!is_of_blocks(operand.scale) || row >= (is_b ? tile.columns : tile.rows)) return copy;
    const uint64_t block = copy.bytes ? 32 : 128;
    const uint64_t first_block =
        tile.k / block + (params.shape.grouping == Grouping::kContraction ? tile.group : 0);
    uint64_t at = (is_b ? tile.b_row : tile.a_row) + row;
    if (operand.scale == OperandScale::k128x128) {
      at = (tile.b_row - tile.column) / 128 + (tile.column + row) / 128;
    }
    const int64_t index = static_cast<int64_t>(at) * operand.scale_row +
                          static_cast<int64_t>(first_block) * operand.scale_block +
                          static_cast<int64_t>(tile.group) * operand.scale_group;
    const int64_t size = copy.bytes ? 1 : 4;
    copy.source = static_cast<const unsigned char*>(operand.scales) + index * size;
    copy.stride = operand.scale_block * size;
    copy.blocks = (tile.k_size + block - 1) / block;
    return copy;
  }

  // The word of a stage; that of scales of 1 where there is nothing to scale.
  EVENKEEL_DEVICE uint32_t fetch(uint64_t index) const {
    if (!bytes) {
      if (source == nullptr || index >= blocks) return 0x3f800000u;
      return *reinterpret_cast<const uint32_t*>(source + static_cast<int64_t>(index) * stride);
    }
    uint32_t word = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint64_t at = 4 * index + i;
      const bool there = source != nullptr && at < blocks;
      word |= (there ? source[static_cast<int64_t>(at) * stride] : 127u) << (8 * i);
    }
    return word;
  }
};

}  // namespace evenkeel
