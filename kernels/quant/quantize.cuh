// Values of X [rows, columns], from a source, to 8- or 4-bit elements and their scales: X itself,
// its transpose, or both. The mathematics is src/reference/quant/quantize.rs, bit for bit.
//
//   element = round(x / scale)     scale from the amax of a tensor, row, tile or block
//
// Never materialised: fp32 values, the transpose in 16 bits, amax of blocks.
//
// Traffic: one read of X and one write of each output, whatever the outputs; scales are 1/16 to
// 1/128 of the elements. Where scales follow from an amax that is only known at the end of a read
// (of a tensor, or of a column; of a row, which tiles share), quant_amax reads X before, and the
// second read comes from L2 where X fits there. Of two rotated
// outputs, the values wait for the second in shared memory: a rotation replaces those in registers.
//
// Predictions at 4.3 TB/s of an H200, bf16 of 16384 x 4096 (134 MB), nothing of which has been
// measured yet: 8-bit row-wise 201 MB and 47 us, both outputs 268 MB and 62 us; 4-bit 39 us and 47
// us; each read for an amax 31 us more. An H200 issues 132 x 128 lanes x 1.7 GHz = 28.7e12
// instructions a second: at 4.3 TB/s 20 for each element of 8 bits row-wise and 27 for both
// outputs, 17 and 20 of 4 bits. Counted in SASS of 90a (cuobjdump -sass), all instructions of a
// thread over its 64 elements, of this code with the format, bf16, alignment and whole tiles fixed
// at compile time, counts and amaxes not asked for, and the branches for rare values (scales out of
// range, elements that are not finite) left out:
//
//   row-wise, both     to nearest         at random
//   fp8-tensor, given  14.1, 26.8
//   MxFp8              12.4, 23.8
//   MxFp4              20.7, 38.3
//   NvFp4              30.1, 53.8         64.8, 101.6
//
// So memory decides for 8 bits; of 4 bits, whose elements Hopper has no conversion for, issue does:
// some 80% and 50% of the bandwidth are to be expected of MxFp4, 55% and 35% of NvFp4.
//
// Mapping: a block a tile of 128 x 128 (quant/tile.cuh). Its values stay in registers from the load
// to the last store, packed in 16 bits in narrow kernels, in fp32 in wide ones (fp32 input,
// rotations); 1 the amax of blocks goes to shared memory, 2 a thread makes four scales, 3 elements
// are divided, rounded, and stored (quant/scales.cuh, quant/elements.cuh). Rotated outputs go
// through these steps in a pass of their own.
#pragma once

#include "common/block_reduce.cuh"
#include "quant/dense_source.cuh"
#include "quant/elements.cuh"
#include "quant/hadamard.cuh"

namespace evenkeel {

EVENKEEL_DEVICE float warp_max(float value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  return value;
}

// Raises the amax of a block's group: one atomic a block, of the bits, whose order is that of
// numbers from 0 up. What each thread noted became shared.warp_amax before a barrier.
EVENKEEL_DEVICE void raise_amax(uint32_t* word, const QuantizeShared& shared) {
  if (word == nullptr || threadIdx.x != 0) return;
  uint32_t most = 0;
#pragma unroll
  for (uint32_t w = 0; w < kTileWarps; ++w) most = max(most, shared.warp_amax[w]);
  atomicMax(word, most);
}

EVENKEEL_DEVICE void add_counts(uint32_t* to, const QuantCounts& counts) {
  if (to == nullptr) return;
  const uint32_t saturated = warp_sum(counts.saturated);
  const uint32_t underflowed = warp_sum(counts.underflowed);
  if (threadIdx.x % 32 != 0) return;
  if (saturated != 0) atomicAdd(to, saturated);
  if (underflowed != 0) atomicAdd(to + 1, underflowed);
}

// Outputs in the order in which a tile's values serve them: those as they are, then the rotated
// ones.
struct Pass {
  bool rows;
  bool columns;

  // Whether a second pass rotates the values that the first did.
  EVENKEEL_DEVICE static bool rotate_twice(bool rows, uint32_t row_rotation, bool columns,
                                           uint32_t column_rotation) {
    return rows && row_rotation != 0 && columns && column_rotation != 0;
  }
  EVENKEEL_DEVICE static Pass of(int pass, bool rows, uint32_t row_rotation, bool columns,
                                 uint32_t column_rotation) {
    return {rows && (pass == 0 ? row_rotation == 0 : pass == 1 && row_rotation != 0),
            columns && (pass == 0 ? column_rotation == 0 : pass == 2 && column_rotation != 0)};
  }
};

template <int kBits, bool kStochastic, typename Source>
EVENKEEL_DEVICE void quantize_tile(const QuantizeGrid& grid, const QuantizeForm& form,
                                   const QuantizeOutput& rowwise, const QuantizeOutput& transposed,
                                   TilePlace& place, Rounding& rounding,
                                   const typename Source::Params& input) {
  QuantizeShared& shared = *reinterpret_cast<QuantizeShared*>(platform::dynamic_shared());
  constexpr bool kWide = Source::kWide;
  const bool grouped = grid.offsets != nullptr;
  const ScaleOf of = form.scale_of;
  const bool has_rows = rowwise.data != nullptr;
  bool has_columns = transposed.data != nullptr;
  uint32_t status = 0;
  if (kBits == 4 && has_columns && place.group_row % 2 != 0) {
    // The group begins inside a byte that belongs to the one before.
    has_columns = false;
    status |= kRaggedGroup;
  }
  const bool keep =
      Pass::rotate_twice(has_rows, rowwise.rotation, has_columns, transposed.rotation);
  MicroTile<kWide> x;
  Source::fill(input, place, keep, x);
  const int passes = kWide ? 3 * Source::tiles(input) : 1;
#pragma unroll 1
  for (int at = 0; at < passes; ++at) {
    if (at == 3) {
      // As the source left it: registers that hold it meanwhile would be spilled.
      place = shared.place;
      place.column_tile += grid.column_tiles;
      place.column += static_cast<uint64_t>(grid.column_tiles) * kTile;
      rounding.first_element += static_cast<uint64_t>(grid.column_tiles) * kTile;
      Source::second(x);
      // Thread 0 writes the new place next.
      __syncthreads();
    }
    const int index = at % 3;
    const Pass pass = Pass::of(index, has_rows, rowwise.rotation, has_columns, transposed.rotation);
    if (!pass.rows && !pass.columns) continue;
    if constexpr (kWide) {
      if (index == 1) rotate_rows({rowwise.rotation, rowwise.factor, rowwise.signs}, x);
      if (index == 2) {
        if (keep) Source::refill(input, place, x);
        rotate_columns({transposed.rotation, transposed.factor, transposed.signs}, place.rows,
                       shared.exchange, x);
        if (place.group_rows % transposed.rotation != 0) status |= kRaggedGroup;
      }
    }

    const bool raised = (pass.rows && rowwise.amax_out != nullptr) ||
                        (pass.columns && transposed.amax_out != nullptr);
    const bool whole = raised || of == ScaleOf::kTile;
    const bool note_of_rows = pass.rows && (has_blocks(of) || whole);
    const bool note_of_columns = pass.columns && (has_blocks(of) || (whole && !note_of_rows));
    float amax = 0.0f;
    if (note_of_rows) note_rows<kBits>(of, form.square != 0, x, shared, amax);
    if (note_of_columns) note_columns<kBits>(of, form.square != 0, x, shared, amax);
    if (raised) {
      amax = warp_max(amax);
      if (threadIdx.x % 32 == 0) shared.warp_amax[MicroPlace::warp()] = __float_as_uint(amax);
    }
    // From here on the place and the key come from shared memory. It spares registers; and the
    // compiler would else draw the words, which are the same in all passes, once and before them,
    // and keep all 64.
    if (threadIdx.x == 0) {
      shared.place = place;
      shared.key = rounding.key;
    }
    __syncthreads();
    if (raised) {
      if (pass.rows && rowwise.amax_out != nullptr) {
        raise_amax(rowwise.amax_out + place.group, shared);
      }
      if (pass.columns && transposed.amax_out != nullptr) {
        raise_amax(transposed.amax_out + place.group, shared);
      }
    }
    if (pass.rows) {
      status |= scale_rows<kBits>(form, rowwise, shared.place, grouped, shared);
    }
    if (pass.columns) {
      status |= scale_columns<kBits>(form, transposed, shared.place, grid.columns, grouped, shared);
    }
    __syncthreads();
    if constexpr (kStochastic) {
      rounding.again = &shared.key;
      QuantCounts of_rows;
      QuantCounts of_columns;
      quantize_random<kBits>(form, rowwise, transposed, pass.rows, pass.columns, place, rounding, x,
                             shared, of_rows, of_columns);
      if (pass.rows) add_counts(rowwise.counts, of_rows);
      if (pass.columns) add_counts(transposed.counts, of_columns);
    } else {
      if (pass.rows) {
        QuantCounts counts;
        quantize_rows<kBits>(form, rowwise, place, x, shared, counts);
        add_counts(rowwise.counts, counts);
      }
      if (pass.columns) {
        QuantCounts counts;
        quantize_columns<kBits>(form, transposed, x, shared, counts);
        add_counts(transposed.counts, counts);
      }
    }
    if (pass.columns) {
      __syncthreads();
      store_transposed<kBits>(transposed, place, shared);
    }
    // The next pass, or the next tile, writes where this one reads.
    if (kWide) __syncthreads();
  }
  if (status != 0) atomicOr(form.status, status);
}

// The kernel of a source.
template <int kBits, bool kStochastic, typename Source>
EVENKEEL_DEVICE void quantize_tiles(const QuantizeGrid& grid, const QuantizeForm& form,
                                    const QuantizeOutputs& outputs,
                                    const typename Source::Params& input) {
  // There are at least as many blocks as groups, some of which may have no tile.
  if (blockIdx.x < grid.groups && threadIdx.x < 2) {
    const QuantizeOutput& output = threadIdx.x == 0 ? outputs.rowwise : outputs.transposed;
    if (output.tensor_scale != nullptr) {
      output.tensor_scale[blockIdx.x] = tensor_scale<kBits>(form, output, blockIdx.x);
    }
  }
  TilePlace place;
  if (!find_tile(grid, form.status, place)) return;
  Rounding rounding = {};
  if constexpr (kStochastic) {
    rounding.key.seed = form.seed;
    rounding.key.offset = form.offset;
    if (form.device_offset != nullptr) {
      rounding.key.offset += static_cast<uint64_t>(*form.device_offset);
    }
    rounding.row_elements = outputs.row_elements;
  }
  rounding.first_element = outputs.first_element + place.row * outputs.row_elements + place.column;
  quantize_tile<kBits, kStochastic, Source>(grid, form, outputs.rowwise, outputs.transposed, place,
                                            rounding, input);
}

// What a source's values have for amax, ahead of scales that depend on all of it.
template <typename Source>
EVENKEEL_DEVICE void amax_tiles(const QuantizeGrid& grid, const AmaxOutputs& outputs,
                                const typename Source::Params& input, uint32_t* status) {
  QuantizeShared& shared = *reinterpret_cast<QuantizeShared*>(platform::dynamic_shared());
  constexpr bool kWide = Source::kWide;
  TilePlace place;
  if (!find_tile(grid, status, place)) return;
  const AmaxOutput& rowwise = outputs.rowwise;
  const AmaxOutput& transposed = outputs.transposed;
  const bool has_rows = rowwise.of != AmaxOf::kNothing;
  const bool has_columns =
      transposed.of != AmaxOf::kNothing && (transposed.pairs == 0 || place.group_row % 2 == 0);
  const bool keep =
      Pass::rotate_twice(has_rows, rowwise.rotation, has_columns, transposed.rotation);
  MicroTile<kWide> x;
  const uint32_t tiles = Source::tiles(input);
#pragma unroll 1
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    if (tile == 0) {
      Source::fill(input, place, keep, x);
    } else {
      place.column += static_cast<uint64_t>(grid.column_tiles) * kTile;
      Source::second(x);
    }
#pragma unroll 1
    for (int index = 0; index < (kWide ? 3 : 1); ++index) {
      const Pass pass =
          Pass::of(index, has_rows, rowwise.rotation, has_columns, transposed.rotation);
      if (!pass.rows && !pass.columns) continue;
      if constexpr (kWide) {
        if (index == 1) rotate_rows({rowwise.rotation, rowwise.factor, rowwise.signs}, x);
        if (index == 2) {
          if (keep) Source::refill(input, place, x);
          rotate_columns({transposed.rotation, transposed.factor, transposed.signs}, place.rows,
                         shared.exchange, x);
        }
      }
      const bool by_column = pass.columns && transposed.of == AmaxOf::kColumns;
      float amax = 0.0f;
      if (pass.rows || !by_column) {
        const bool by_row = pass.rows && rowwise.of == AmaxOf::kRows;
        note_rows<8>(by_row ? ScaleOf::k128 : ScaleOf::kTensor, false, x, shared, amax);
      }
      if (by_column) note_columns<8>(ScaleOf::k128, false, x, shared, amax);
      amax = warp_max(amax);
      if (threadIdx.x % 32 == 0) shared.warp_amax[MicroPlace::warp()] = __float_as_uint(amax);
      __syncthreads();
      const uint32_t at = threadIdx.x;
      if (pass.rows && rowwise.of == AmaxOf::kTensor)
        raise_amax(rowwise.words + place.group, shared);
      if (pass.columns && transposed.of == AmaxOf::kTensor) {
        raise_amax(transposed.words + place.group, shared);
      }
      if (pass.rows && rowwise.of == AmaxOf::kRows && at < place.rows) {
        uint32_t most = 0;
#pragma unroll
        for (uint32_t k = 0; k < 4; ++k) {
          const uint4 four = *reinterpret_cast<const uint4*>(shared.amax.rows + row_chunk(at, k));
          most = max(most, max(max(four.x, four.y), max(four.z, four.w)));
        }
        atomicMax(rowwise.words + place.row + at, most);
      }
      if (by_column && at < place.columns) {
        uint32_t most = 0;
#pragma unroll
        for (uint32_t w = 0; w < kTileWarps; ++w) {
          most = max(most, shared.amax.columns[w * kTile + column_entry(at)]);
        }
        atomicMax(transposed.words + place.group * grid.columns + place.column + at, most);
      }
      __syncthreads();
    }
  }
}

}  // namespace evenkeel
