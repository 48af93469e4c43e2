// Sums of columns that the threads of a block hold in registers, each over its team's rows: added
// in the order of the teams.
#pragma once

#include "common/team.cuh"

namespace evenkeel {

// Writes sums[at] for the columns of a run that begins at `begin`. `shared` holds a run for each
// team of the block; one team needs none. Called by all threads of the block, again at once if need
// be.
template <typename Layout>
EVENKEEL_DEVICE void store_team_sums(const LocalTeam& team, const Columns<Layout>& columns,
                                     uint32_t begin,
                                     const float (&mine)[Layout::kUnits][Layout::kChunk],
                                     float* shared, float* sums) {
  const bool alone = team.count() == 1;
  const uint32_t length = team.threads() * Layout::kColumns;
  float* const to = alone ? sums : shared + team.index() * length - static_cast<int64_t>(begin);
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
#pragma unroll
    for (int e = 0; e < Layout::kChunk; ++e) {
      const uint32_t at = columns.at(u, e);
      if (at < columns.end) to[at] = mine[u][e];
    }
  }
  if (alone) return;
  // Publishes the teams' sums.
  __syncthreads();
  for (uint32_t at = begin + threadIdx.x; at < columns.end; at += blockDim.x) {
    float sum = shared[at - begin];
    for (uint32_t t = 1; t < team.count(); ++t) sum += shared[t * length + at - begin];
    sums[at] = sum;
  }
  // The next sums must not replace these while a thread still reads them.
  __syncthreads();
}

}  // namespace evenkeel
