// Rows of which nothing is summed up: threads keep to their columns and walk down the rows, a few
// of them in flight, so that what belongs to columns (weights, sums) stays in registers.
//
// A team of threads has a run of columns, one unit a thread; several teams share a block where a
// run is short. Blocks are, in this order, a group of rows each (a weight of a batch), a slice of
// its rows, a run. Rows belong to a slice by their number alone: what is summed over a slice is the
// same on every device. The launches are those of src/norm/kernels/walk.rs.
#pragma once

#include "common/team.cuh"

namespace evenkeel {

// Rows that a thread has in flight.
inline constexpr int kWalkRows = 4;

template <typename Layout>
struct Walk {
  Columns<Layout> columns;
  uint32_t begin;  // of the run
  uint32_t group;
  uint32_t slice;   // of all groups' slices
  uint32_t first;   // row of the group
  uint32_t stride;  // from a row in flight to the next
  uint32_t step;    // from the first rows in flight to the next ones

  EVENKEEL_DEVICE static Walk of(const RowGrid& grid, uint32_t slices, const LocalTeam& team) {
    const uint32_t slice = blockIdx.x / grid.segments;
    const uint32_t run = blockIdx.x - slice * grid.segments;
    const uint32_t group = slice / slices;
    const uint32_t capacity = team.threads() * Layout::kColumns;
    const uint32_t begin = run * capacity;
    const uint32_t end = min(begin + capacity, grid.columns);
    const uint32_t rows = team.count() * kWalkRows;
    return {Columns<Layout>::of(team.rank(), team.threads(), begin, end),
            begin,
            group,
            slice,
            (slice - group * slices) * rows + team.index(),
            team.count(),
            slices * rows};
  }

  // A row in flight, counted over all groups; no columns where there is no such row.
  struct Row {
    RowPlace place;
    Columns<Layout> columns;
  };
  EVENKEEL_DEVICE Row row(const RowGrid& grid, uint32_t from, int in_flight) const {
    const uint32_t index = from + static_cast<uint32_t>(in_flight) * stride;
    const uint32_t row = group * grid.rows + index;
    Row there = {{row, row, 0}, columns};
    if (index >= grid.rows) there.columns.end = 0;
    return there;
  }

  // The thread's unit of a row.
  EVENKEEL_DEVICE static uint4 fetch(const RowTensor& tensor, const Row& row) {
    return fetch_unit(row_address<Layout>(tensor, row.place), tensor.type, row.columns, 0);
  }
  EVENKEEL_DEVICE static void store(const RowTensor& tensor, const Row& row,
                                    const typename Layout::Unit& values) {
    store_unit(row_address<Layout>(tensor, row.place), tensor.type, row.columns, 0,
               pack_unit(values, tensor.type));
  }
};

}  // namespace evenkeel
