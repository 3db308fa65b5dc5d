#include "core/multiply.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/scaled.hpp"
#include "core/scratch.hpp"

namespace vsquant {
namespace {

constexpr std::int64_t kRowsPerChunk = 384;     // enough that unpacking a panel costs a few percent of using it
constexpr std::int64_t kFewestRowsPerChunk = 48;
constexpr std::int64_t kChunksPerThread = 4;
constexpr std::int64_t kMostFoldedFewRows = 24;  // from here on unpacking costs less than folding for every tile anew

// The chunks of one multiplication: panel groups, the inner index, by blocks of rows.
struct Grid {
  std::int64_t panel_groups, rows_per_chunk, row_chunks;

  Grid(const Multiplication& m, int threads) {
    panel_groups = (m.weight.panels() + m.kernels->tile_panels - 1) / m.kernels->tile_panels;
    rows_per_chunk = kRowsPerChunk;
    const std::int64_t wanted = threads > 1 ? threads * kChunksPerThread : 1;
    while (rows_per_chunk > kFewestRowsPerChunk && panel_groups * ((m.rows + rows_per_chunk - 1) / rows_per_chunk) < wanted)
      rows_per_chunk /= 2;
    row_chunks = (m.rows + rows_per_chunk - 1) / rows_per_chunk;
  }
  std::int64_t count() const { return panel_groups * row_chunks; }
};

// One thread's memory: unpacked panels, pointers of a tile, sums of a tile.
struct Workspace {
  Scratch codes, scales, code_pointers, start_pointers, scale_pointers, sums;
};

Workspace& workspace() {
  static thread_local Workspace mine;
  return mine;
}

struct Pointers {
  const std::uint8_t** codes;
  const std::int32_t** starts;
  const std::int16_t** scales;
};

Pointers tile_pointers(Workspace& mine, const Multiplication& m) {
  const std::size_t count = static_cast<std::size_t>(m.positions) * kMostTileRows;
  return {mine.code_pointers.get<const std::uint8_t*>(count), mine.start_pointers.get<const std::int32_t*>(count),
          mine.scale_pointers.get<const std::int16_t*>(count)};
}

// Panels of one chunk as the tiles read them.
struct Panels {
  std::int64_t first;
  int count;
  const std::int8_t* codes[4];
  const std::int16_t* scales[4];
  bool has_scales;
};

Unpacked form_of(const Multiplication& m) {
  if (m.plan.fold_weights) return m.weight.scale_layout == ScaleLayout::none ? Unpacked::codes : Unpacked::folded;
  return m.plan.path == ProductPath::vectors ? m.plan.vectors.form : Unpacked::codes;
}

void unpack(Workspace& mine, const Multiplication& m, Panels& panels) {
  const PackedWeight& weight = m.weight;
  const Unpacked form = form_of(m);
  const bool in_place =
      m.kernels->reads_bytes_in_place && weight.code_layout == CodeLayout::bytes && form == Unpacked::codes;
  panels.has_scales = m.plan.path == ProductPath::vectors && !m.plan.fold_weights &&
                      weight.scale_layout != ScaleLayout::none;
  const std::int64_t panel_codes = unpacked_room(weight.blocks) * kBlockCodes;
  const std::int64_t panel_scales = unpacked_room(weight.vectors()) * kPanelChannels;
  std::int8_t* codes = in_place ? nullptr : mine.codes.get<std::int8_t>(panels.count * panel_codes);
  std::int16_t* scales = panels.has_scales ? mine.scales.get<std::int16_t>(panels.count * panel_scales) : nullptr;
  for (int p = 0; p < panels.count; ++p) {
    if (in_place) {
      panels.codes[p] = reinterpret_cast<const std::int8_t*>(weight.codes) + (panels.first + p) * weight.blocks * kBlockCodes;
    } else {
      std::int8_t* out = codes + p * panel_codes;
      m.kernels->unpack_codes(weight, panels.first + p, 0, weight.blocks, form, out);
      panels.codes[p] = out;
    }
    if (!panels.has_scales) continue;
    std::int16_t* out = scales + p * panel_scales;
    m.kernels->unpack_scales(weight, panels.first + p, form, out);
    panels.scales[p] = out;
  }
}

Fault run_tiles(Workspace& mine, const Multiplication& m, const RowSource& source, const Outputs& outputs,
                const Panels& panels, std::int64_t first_row, std::int64_t last_row) {
  const Kernels& kernels = *m.kernels;
  const bool few = m.runs_few(), folded_few = m.runs_folded_few();
  const Pointers pointers = tile_pointers(mine, m);
  const std::size_t tile_sums = static_cast<std::size_t>(kMostTileRows) * kernels.tile_panels * kPanelChannels;
  auto* sums64 = mine.sums.get<std::int64_t>(tile_sums);
  auto* sums32 = reinterpret_cast<std::int32_t*>(sums64);
  const std::int64_t first = panels.first * kPanelChannels;
  const bool corrected = m.plan.path == ProductPath::folded && m.codes_signed;
  const SettledChannels channels{first, panels.count * kPanelChannels, m.weight.channels,
                                 corrected ? m.weight.sums : nullptr, kernels.folded_bias};
  Settler settler(kernels, outputs, channels, m.power, kernels.tile_panels * kPanelChannels);
  // Tiles of equal height: 16 rows are 6 + 5 + 5, not 6 + 6 + 4.
  const std::int64_t most = few ? kernels.few_rows
                            : folded_few ? kernels.folded_few_rows
                            : m.plan.path == ProductPath::folded ? kernels.folded_rows
                                                                 : kernels.vector_rows;
  const std::int64_t tiles = (last_row - first_row + most - 1) / most;
  Fault fault = Fault::none;
  for (std::int64_t tile = 0, row = first_row; tile < tiles; ++tile) {
    const int rows = static_cast<int>((last_row - row + tiles - tile - 1) / (tiles - tile));
    settler.foresee(row, rows);
    source.point(row, rows, pointers.codes, pointers.starts, pointers.scales);
    const RowTile view{pointers.codes, pointers.starts, m.scaled ? pointers.scales : nullptr, rows, m.positions,
                       m.blocks_per_position, m.codes_signed && !m.biased};
    Fault here;
    if (few) {
      kernels.few_tile(view, m.weight, panels.first, panels.count, m.plan.few_vectors, sums64);
      here = settler(row, rows, sums64);
    } else if (folded_few) {
      kernels.folded_few_tile(view, m.weight, panels.first, panels.count, sums32);
      here = settler(row, rows, sums32);
    } else if (m.plan.path == ProductPath::folded) {
      kernels.folded_tile(view, panels.codes, panels.count, sums32);
      here = settler(row, rows, sums32);
    } else {
      kernels.vector_tile(view, panels.codes, panels.has_scales ? panels.scales : nullptr, panels.count,
                          m.plan.vectors, sums64);
      here = settler(row, rows, sums64);
    }
    if (here != Fault::none) fault = here;
    row += rows;
  }
  return fault;
}

}  // namespace

bool Multiplication::runs_folded_few() const {
  return plan.path == ProductPath::folded && !runs_few() && kernels->folded_few_rows > 0 &&
         rows <= kMostFoldedFewRows && (biased || !codes_signed) && weight.code_layout == CodeLayout::nibbles &&
         (weight.scale_layout == ScaleLayout::none || weight.scale_layout == ScaleLayout::nibbles);
}

int Multiplication::start_bias() const {
  if (float_scaled) return 0;
  if (runs_few()) return 8;
  return codes_signed && plan.path == ProductPath::vectors ? kernels->vector_bias : 0;
}

Fault multiply(const ThreadPool& pool, const Multiplication& m, const RowSource& source, const Outputs& outputs) {
  if (m.float_scaled) return multiply_scaled(pool, m, source, outputs);
  const Grid grid(m, pool.threads);
  std::atomic<Fault> fault{Fault::none};
  for_each_chunk(pool, grid.count(), [&](std::int64_t chunk) {
    Workspace& mine = workspace();
    const std::int64_t first_row = chunk / grid.panel_groups * grid.rows_per_chunk;
    Panels panels{};
    panels.first = chunk % grid.panel_groups * m.kernels->tile_panels;
    panels.count = static_cast<int>(std::min<std::int64_t>(m.kernels->tile_panels, m.weight.panels() - panels.first));
    if (!m.runs_few() && !m.runs_folded_few()) unpack(mine, m, panels);
    const std::int64_t last_row = std::min(first_row + grid.rows_per_chunk, m.rows);
    const Fault here = run_tiles(mine, m, source, outputs, panels, first_row, last_row);
    if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
  });
  return fault.load();
}

}  // namespace vsquant
