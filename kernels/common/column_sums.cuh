// Sums over the rows of a block, one for each column: the first stage of the gradients of weights.
//
// Every thread adds up the columns that it holds of every row. What the teams of a block have is
// added in their order, and leaves as one row of partial sums; column_sum.cuh adds those of all
// blocks, in order. Nothing depends on which thread comes first.
#pragma once

#include "common/team.cuh"

namespace evenkeel {

// Where the sums of a block's teams are put together: `capacity` columns from `first_column` on for
// each team, in shared memory. Null: one team, whose sums are in registers, or in the row of
// partial sums itself.
struct SumsPlace {
  float* shared;
  uint32_t first_column;
  uint32_t capacity;
};

template <typename Layout>
class ColumnSums {
 public:
  // 16 columns a thread stay in registers; more of them, or columns that lie apart, in memory.
  static constexpr bool kInRegisters = Layout::kColumns <= 16 && !Layout::kSpread;

  // Before the first row: sums of 0. `partial` is the row of partial sums that finish() completes.
  template <typename Team>
  EVENKEEL_DEVICE void begin(const Team& team, const SumsPlace& place,
                             const Columns<Layout>& columns, uint32_t segments, float* partial) {
    if constexpr (kInRegisters) {
#pragma unroll
      for (int i = 0; i < static_cast<int>(Layout::kColumns); ++i) sums_[i] = 0.0f;
    } else {
      home_ = place.shared == nullptr ? partial
                                      : place.shared + team.index() * place.capacity -
                                            static_cast<int64_t>(place.first_column);
      for (uint32_t s = 0; s < segments; ++s) {
        const Columns<Layout> here = columns.segment(s);
#pragma unroll
        for (int u = 0; u < Layout::kUnits; ++u) {
#pragma unroll
          for (int e = 0; e < Layout::kChunk; ++e) {
            if (here.at(u, e) < here.end) home_[here.at(u, e)] = 0.0f;
          }
        }
      }
    }
  }

  // Adds elements 4q to 4q + 3 of a unit of a row.
  EVENKEEL_DEVICE void add(const Columns<Layout>& columns, int unit, int q,
                           const float (&values)[4]) {
    if constexpr (kInRegisters) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums_[unit * Layout::kChunk + 4 * q + e] += values[e];
    } else if constexpr (!Layout::kSpread) {
      float4* const sums = reinterpret_cast<float4*>(home_ + columns.at(unit, 4 * q));
      float4 four = *sums;
      four.x += values[0];
      four.y += values[1];
      four.z += values[2];
      four.w += values[3];
      *sums = four;
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t at = columns.at(unit, e);
        if (at < columns.end) home_[at] += values[e];
      }
    }
  }

  // After the last row, by all threads of the block: completes the row of partial sums.
  template <typename Team>
  EVENKEEL_DEVICE void finish(const Team& team, const SumsPlace& place,
                              const Columns<Layout>& columns, float* partial) {
    if constexpr (kInRegisters) {
      // One team needs no memory between.
      float* const to = team.count() == 1 ? partial + place.first_column
                                          : place.shared + team.index() * place.capacity;
#pragma unroll
      for (int u = 0; u < Layout::kUnits; ++u) {
        if (!columns.has(u)) continue;
#pragma unroll
        for (int e = 0; e < Layout::kChunk; ++e) {
          to[columns.at(u, e) - place.first_column] = sums_[u * Layout::kChunk + e];
        }
      }
      if (team.count() == 1) return;
    }
    if (place.shared == nullptr) return;  // they are where they belong
    // Publishes the teams' sums.
    __syncthreads();
    for (uint32_t i = threadIdx.x; place.first_column + i < columns.end; i += blockDim.x) {
      float sum = place.shared[i];
      for (uint32_t t = 1; t < team.count(); ++t) sum += place.shared[t * place.capacity + i];
      partial[place.first_column + i] = sum;
    }
    // The next rows' sums must not replace these while a thread still reads them.
    __syncthreads();
  }

 private:
  float* home_;  // of column 0; in memory alone
  float sums_[kInRegisters ? Layout::kColumns : 1];
};

}  // namespace evenkeel
