#include "core/weight_only.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/scratch.hpp"

namespace vsquant {
namespace {

constexpr std::int64_t kRowsPerChunk = 96;
constexpr int kMostPanels = 4;
constexpr std::int64_t kFewestCopied = 8, kLineElements = 16;

struct FloatMemory {
  Scratch values, scales;
};

FloatMemory& float_memory() {
  static thread_local FloatMemory memory;
  return memory;
}

struct PaddedRows {
  const float* values;
  std::int64_t stride;
};

// The rows as float32, zeros up to whole blocks: as they lie, or copied. Rows of a tile whose distance is a power of
// two would share the first cache's sets, so that copies lie a line further apart.
PaddedRows padded_rows(const ThreadPool& pool, const Kernels& kernels, const FloatRows& x, std::int64_t padded) {
  if (x.dtype == DType::float32 && x.length == padded && x.rows < kFewestCopied)
    return {static_cast<const float*>(x.data), padded};
  const std::int64_t stride = padded + kLineElements;
  auto* values = float_memory().values.get<float>(x.rows * stride);
  for_each_chunk(pool, x.rows, [&](std::int64_t row) {
    float* to = values + row * stride;
    if (x.dtype == DType::float32)
      std::memcpy(to, static_cast<const float*>(x.data) + row * x.length, x.length * sizeof(float));
    else
      kernels.quantize.to_float(x.dtype, static_cast<const std::uint16_t*>(x.data) + row * x.length, x.length, to);
    std::fill(to + x.length, to + padded, 0.0f);
  });
  return {values, stride};
}

}  // namespace

void weight_only_linear(const ThreadPool& pool, const Kernels& kernels, const PackedWeight& weight, const FloatRows& x,
                        Outputs outputs) {
  static constexpr float kOne = 1.0f;
  outputs.activation_coarse = &kOne;
  outputs.rows_per_coarse = std::numeric_limits<std::int64_t>::max();
  const std::int64_t padded = weight.blocks * kBlockElements, step = kernels.float_panels;
  const PaddedRows rows_of = padded_rows(pool, kernels, x, padded);
  const std::int64_t panel_groups = (weight.panels() + step - 1) / step;
  const std::int64_t row_chunks = (x.rows + kRowsPerChunk - 1) / kRowsPerChunk;
  for_each_chunk(pool, panel_groups * row_chunks, [&](std::int64_t chunk) {
    const std::int64_t panel = chunk % panel_groups * step, first_row = chunk / panel_groups * kRowsPerChunk;
    const std::int64_t last_row = std::min(x.rows, first_row + kRowsPerChunk);
    const int panels = static_cast<int>(std::min(step, weight.panels() - panel));
    const std::int64_t panel_scales = weight.vectors() * kPanelChannels;
    const bool scaled = weight.scale_layout != ScaleLayout::none;
    std::int16_t* unpacked = scaled ? float_memory().scales.get<std::int16_t>(panels * panel_scales) : nullptr;
    const std::int16_t* scales[kMostPanels] = {};
    for (int p = 0; scaled && p < panels; ++p) {
      kernels.unpack_scales(weight, panel + p, Unpacked::codes, unpacked + p * panel_scales);
      scales[p] = unpacked + p * panel_scales;
    }
    Settler settler(kernels, outputs, {panel * kPanelChannels, panels * kPanelChannels, weight.channels, nullptr, 0}, 1.0f,
                    step * kPanelChannels);
    alignas(64) float sums[kMostTileRows * kMostPanels * kPanelChannels];
    for (std::int64_t row = first_row; row < last_row;) {
      const int most = static_cast<int>(std::min<std::int64_t>(kMostTileRows, last_row - row));
      const int done = kernels.float_tile(rows_of.values + row * rows_of.stride, rows_of.stride, most, weight, panel,
                                          panels, scaled ? scales : nullptr, sums);
      settler(row, done, sums);
      row += done;
    }
  });
}

}  // namespace vsquant
