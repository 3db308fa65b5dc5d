#include "core/scaled.hpp"

#include <algorithm>
#include <atomic>

#include "core/float_scales.hpp"

namespace vsquant {
namespace {

constexpr std::int64_t kRowsPerChunk = 96;

struct ScaledMemory {
  Scratch codes, scales, words, code_pointers, scale_pointers;
};

ScaledMemory& scaled_memory() {
  static thread_local ScaledMemory memory;
  return memory;
}

// Panels [first, first + count) by rows [first_row, last_row).
Fault run_chunk(const Multiplication& m, const RowSource& source, const Outputs& outputs, std::int64_t first, int count,
                std::int64_t first_row, std::int64_t last_row) {
  const Kernels& kernels = *m.kernels;
  ScaledMemory& memory = scaled_memory();
  const std::int64_t panel_codes = unpacked_room(m.weight.blocks) * kBlockCodes;
  const std::int64_t panel_scales = m.weight.vectors() * kPanelChannels, stride = kernels.tile_panels * kPanelChannels;
  auto* codes = memory.codes.get<std::int8_t>(count * panel_codes);
  for (int p = 0; p < count; ++p)
    kernels.unpack_codes(m.weight, first + p, 0, m.weight.blocks, Unpacked::codes, codes + p * panel_codes);
  float* scales = has_scales(m.weight) ? memory.scales.get<float>(count * panel_scales) : nullptr;
  if (scales != nullptr) float_scales(kernels, m.weight, first, count, memory.words, scales);
  auto** code_pointers = memory.code_pointers.get<const std::uint8_t*>(m.positions * kMostTileRows);
  auto** scale_pointers = memory.scale_pointers.get<const std::int32_t*>(m.positions * kMostTileRows);
  Settler settler(kernels, outputs, {first * kPanelChannels, count * kPanelChannels, m.weight.channels, nullptr, 0},
                  m.power, stride);
  alignas(64) float sums[kMostTileRows * Channels::kMost];
  Fault fault = Fault::none;
  for (std::int64_t row = first_row; row < last_row; row += kernels.scaled_rows) {
    const int rows = static_cast<int>(std::min<std::int64_t>(kernels.scaled_rows, last_row - row));
    source.point(row, rows, code_pointers, scale_pointers, nullptr);
    const RowTile tile{code_pointers, m.scaled ? scale_pointers : nullptr, nullptr, rows, m.positions,
                       m.blocks_per_position, m.codes_signed};
    for (int p = 0; p < count; ++p)
      kernels.scaled_tile(tile, codes + p * panel_codes, scales ? scales + p * panel_scales : nullptr,
                          m.weight.blocks_per_vector, sums + p * kPanelChannels, stride);
    const Fault here = settler(row, rows, sums);
    if (here != Fault::none) fault = here;
  }
  return fault;
}

}  // namespace

Fault multiply_scaled(const ThreadPool& pool, const Multiplication& m, const RowSource& source,
                      const Outputs& outputs) {
  const std::int64_t step = m.kernels->tile_panels, panel_groups = (m.weight.panels() + step - 1) / step;
  const std::int64_t row_chunks = (m.rows + kRowsPerChunk - 1) / kRowsPerChunk;
  std::atomic<Fault> fault{Fault::none};
  for_each_chunk(pool, panel_groups * row_chunks, [&](std::int64_t chunk) {
    const std::int64_t first = chunk % panel_groups * step, first_row = chunk / panel_groups * kRowsPerChunk;
    const Fault here = run_chunk(m, source, outputs, first, static_cast<int>(std::min(step, m.weight.panels() - first)),
                                 first_row, std::min(m.rows, first_row + kRowsPerChunk));
    if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
  });
  return fault.load();
}

}  // namespace vsquant
