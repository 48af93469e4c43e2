// Rows in FP8 with a scale for each, from one read.
//
//   scale = amax / largest, or the power of two above      element = x / scale, rounded
//
// Never materialised: the rows' largest magnitudes. The mathematics is src/reference/quant/.
//
// Traffic: each element is read once, in rows that the registers of a block hold (16384 columns of
// 16 bits, 8192 of fp32); longer rows are read a second time, from L2 where that holds the rows in
// flight. One byte an element and a scale a row are written. At 4.3 TB/s, nine tenths of an H200's
// nominal bandwidth, 16384 x 4096 in bf16 are 201 MB and 47 us, 16384 x 14336 705 MB and 164 us:
// predictions, nothing of this has been measured yet.
//
// Mapping: a team of threads a row (common/team.cuh), blocks persistent; the elements leave by
// common/quantized_rows.cuh.

#include "common/quantized_rows.cuh"
#include "common/team.cuh"

namespace evenkeel {

// Mirrored in src/quant/kernels/rows.rs.
struct QuantizeRowsParams {
  RowGrid grid;
  RowTensor x;
  RowTensor y;
  QuantizedRows to;
  uint32_t* status;
};
static_assert(sizeof(QuantizeRowsParams) == 208, "src/quant/kernels/rows.rs mirrors it");

namespace {

template <typename Layout>
EVENKEEL_DEVICE void quantize_rows(const QuantizeRowsParams& params) {
  const RowGrid& grid = params.grid;
  LocalTeam team(grid, *reinterpret_cast<TeamShared*>(platform::dynamic_shared()));
  StoreQuantized<Layout> store(params.to, grid, nullptr);
  const Columns<Layout> all = team.columns<Layout>(grid);
  for (uint32_t first = team.worker() * team.count(); first < grid.rows;
       first += team.workers() * team.count()) {
    const uint32_t index = first + team.index();
    const RowPlace place = row_place(grid, index);
    Columns<Layout> columns = all;
    if (index >= grid.rows) columns.end = 0;
    typename Layout::Units x;
    const auto value = [&](int u, typename Layout::Unit& y) {
      unpack_unit(unit_of<Layout>(x, u), params.x.type, y);
    };
    for (uint32_t s = 0; s < grid.segments; ++s) {
      fetch(params.x, place, columns.segment(s), x);
      store.look(columns.segment(s), value);
    }
    store.settle(team);
    for (uint32_t s = 0; s < grid.segments; ++s) {
      if (grid.segments > 1) fetch(params.x, place, columns.segment(s), x);
      store.row(params.y, place, columns.segment(s), team, value);
    }
  }
  store.finish(params.status);
}

}  // namespace
}  // namespace evenkeel

// Most threads and least blocks a multiprocessor, as norm/rows_block.cu has them; no measurement
// chose these yet.
#define QUANTIZE_ROWS(K, name, chunk, units, spread, threads, blocks) \
  K(quant_rows_##name, evenkeel::QuantizeRowsParams, threads, blocks, \
    (evenkeel::quantize_rows<evenkeel::RowLayout<chunk, units, spread>>))
#define QUANT_ROWS_KERNELS(K)                 \
  QUANTIZE_ROWS(K, c8u4, 8, 4, false, 256, 2) \
  QUANTIZE_ROWS(K, c8u8, 8, 8, false, 256, 2) \
  QUANTIZE_ROWS(K, c4u4, 4, 4, false, 256, 3) \
  QUANTIZE_ROWS(K, c4u8, 4, 8, false, 256, 2) \
  QUANTIZE_ROWS(K, s4u4, 4, 4, true, 512, 1)

EVENKEEL_EXPORT(quant_rows, QUANT_ROWS_KERNELS)
