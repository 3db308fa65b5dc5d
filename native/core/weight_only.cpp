#include "core/weight_only.hpp"

#include <algorithm>
#include <limits>

#include "core/float_pixels.hpp"
#include "core/float_scales.hpp"
#include "core/windows.hpp"

namespace vsquant {
namespace {

constexpr std::int64_t kRowsPerChunk = 96;
constexpr std::int64_t kFewestUnpacked = 7;  // rows from which on codes become floats once for many tiles
constexpr std::int64_t kBlocksAtOnce = 32;   // of unpacked floats, which then stay in the second cache
constexpr int kMostPanels = 4;

struct FloatMemory {
  Scratch values, scales, words, pointers, sums;
  Windows::Memory windows;
};

FloatMemory& float_memory() {
  static thread_local FloatMemory memory;
  return memory;
}

// Panels of one chunk with their scales.
struct Panels {
  std::int64_t first;
  int count;
  const float* scales;  // [panel][vectors][16], or null
  std::int64_t panel_scales;

  Panels(const Kernels& kernels, const PackedWeight& weight, std::int64_t group)
      : first(group * kernels.floats.panels),
        count(static_cast<int>(std::min<std::int64_t>(kernels.floats.panels, weight.panels() - first))),
        scales(nullptr),
        panel_scales(weight.vectors() * kPanelChannels) {
    if (!has_scales(weight)) return;
    auto* unpacked = float_memory().scales.get<float>(count * panel_scales);
    float_scales(kernels, weight, first, count, float_memory().words, unpacked);
    scales = unpacked;
  }
};

SettledChannels channels_of(const Panels& panels, const PackedWeight& weight) {
  return {panels.first * kPanelChannels, panels.count * kPanelChannels, weight.channels, nullptr, 0};
}

void run_few(const Kernels& kernels, const PackedWeight& weight, const Panels& panels, const FloatPixels& x,
             std::int64_t rows, const Outputs& outputs) {
  Settler settler(kernels, outputs, channels_of(panels, weight), 1.0f, kernels.floats.panels * kPanelChannels);
  alignas(64) float sums[kMostTileRows * kMostPanels * kPanelChannels];
  for (std::int64_t row = 0; row < rows;) {
    const int done = kernels.floats.few_tile(x.values + row * x.part, x.part, static_cast<int>(rows - row), weight,
                                             panels.first, panels.count, panels.scales, sums);
    settler(row, done, sums);
    row += done;
  }
}

// Tiles of rows [first_row, last_row), all of them over one run of unpacked weights after the other. A run is of several
// kernel positions, all their elements, or of some elements of one.
class Tiles {
 public:
  Tiles(const Kernels& kernels, const Windows& windows, std::int64_t positions, std::int64_t first_row,
        std::int64_t last_row)
      : floats_(kernels.floats), positions_(positions), first_row_(first_row), last_row_(last_row) {
    FloatMemory& memory = float_memory();
    width_ = floats_.panels * kPanelChannels;
    pointers_ = memory.pointers.get<const std::uint8_t*>((last_row - first_row) * positions);
    sums_ = memory.sums.get<float>((last_row - first_row) * width_);
    std::fill_n(sums_, (last_row - first_row) * width_, 0.0f);
    each([&](std::int64_t row, int rows) {
      windows.point(first_row_ + row, rows, pointers_ + row * positions_, nullptr, nullptr);
    });
  }

  // Calls body(row, rows) for every tile; row counts from the first one.
  template <class Body>
  void each(const Body& body) const {
    const std::int64_t count = last_row_ - first_row_, tiles = (count + floats_.rows - 1) / floats_.rows;
    for (std::int64_t tile = 0, row = 0; tile < tiles; ++tile) {
      const int rows = static_cast<int>((count - row + tiles - tile - 1) / (tiles - tile));
      body(row, rows);
      row += rows;
    }
  }

  // Adds the products of a run, but for its rows, from `position` on.
  void add(std::int64_t position, FloatRun run, int panels) const {
    each([&](std::int64_t row, int rows) {
      run.x = pointers_ + row * positions_ + position * rows;
      floats_.rows_tile(run, rows, panels, sums_ + row * width_);
    });
  }

  void settle(Settler& settler) const {
    each([&](std::int64_t row, int rows) { settler(first_row_ + row, rows, sums_ + row * width_); });
  }

 private:
  const FloatKernels& floats_;
  std::int64_t positions_, first_row_, last_row_, width_;
  const std::uint8_t** pointers_;
  float* sums_;
};

void run_many(const Kernels& kernels, const PackedWeight& weight, const Panels& panels, const Tiles& tiles,
              std::int64_t positions, std::int64_t elements, const Outputs& outputs) {
  constexpr std::int64_t kPanelValues = kBlocksAtOnce * kBlockCodes;
  auto* values = float_memory().values.get<float>(panels.count * kPanelValues);
  const std::int64_t blocks = weight.blocks / positions;
  const std::int64_t at_once = std::max<std::int64_t>(1, kBlocksAtOnce / std::max<std::int64_t>(1, blocks));
  for (std::int64_t position = 0; position < positions; position += at_once) {
    const std::int64_t together = std::min(at_once, positions - position);
    for (std::int64_t first = 0; first * kBlockElements < elements; first += kBlocksAtOnce) {
      const std::int64_t count = std::min(kBlocksAtOnce, blocks - first);
      for (int p = 0; p < panels.count; ++p)
        kernels.floats.unpack(weight, panels.first + p, position * blocks + first, together * count,
                              panels.scales == nullptr ? nullptr : panels.scales + p * panels.panel_scales,
                              values + p * kPanelValues);
      const std::int64_t some = std::min(elements - first * kBlockElements, count * kBlockElements);
      tiles.add(position, {nullptr, together, first * kBlockElements, some, values, count * kBlockCodes, kPanelValues},
                panels.count);
    }
  }
  Settler settler(kernels, outputs, channels_of(panels, weight), 1.0f, kernels.floats.panels * kPanelChannels);
  tiles.settle(settler);
}

// Whether output pixel n reads input pixel n alone, all of it.
bool reads_plain_rows(const Walk& walk) {
  const std::int64_t* p = walk.padding;
  return walk.groups == 1 && walk.positions() == 1 && walk.stride[0] == 1 && walk.stride[1] == 1 &&
         p[0] + p[1] + p[2] + p[3] == 0;
}

void run_group(const ThreadPool& pool, const Kernels& kernels, const PackedWeight& weight, const ConvShape& shape,
               const FloatPixels& x, const ActivationShape& pixels, const Windows& windows, const Outputs& outputs) {
  const std::int64_t rows = shape.samples * shape.out_pixels(), positions = shape.walk.positions();
  const std::int64_t row_chunks = (rows + kRowsPerChunk - 1) / kRowsPerChunk;
  const std::int64_t panel_groups = (weight.panels() + kernels.floats.panels - 1) / kernels.floats.panels;
  // Where nothing is spread, what pads the channels need not be multiplied.
  const std::int64_t elements = pixels.vector_size == 0 ? pixels.part() : pixels.padded_part();
  const bool plain = reads_plain_rows(shape.walk);
  for_each_chunk(pool, panel_groups * row_chunks, [&](std::int64_t chunk) {
    const Panels panels(kernels, weight, chunk % panel_groups);
    if (plain && rows < kFewestUnpacked) return run_few(kernels, weight, panels, x, rows, outputs);
    const std::int64_t first_row = chunk / panel_groups * kRowsPerChunk;
    const Tiles tiles(kernels, windows, positions, first_row, std::min(rows, first_row + kRowsPerChunk));
    run_many(kernels, weight, panels, tiles, positions, elements, outputs);
  });
}

}  // namespace

ConvShape linear_shape(std::int64_t rows, std::int64_t channels, std::int64_t outputs) {
  return {1, rows, 1, channels, outputs, {{1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1}};
}

void weight_only(const ThreadPool& pool, const Kernels& kernels, const LinearLayer& layer, const ConvShape& shape,
                 const void* data, DType dtype, Outputs outputs) {
  static constexpr float kOne = 1.0f;
  outputs.activation_coarse = &kOne;
  outputs.rows_per_coarse = std::numeric_limits<std::int64_t>::max();
  if (shape.samples * shape.out_pixels() == 0) return;
  const ActivationShape pixels = activation_shape(shape, layer);
  const FloatPixels x = float_pixels(pool, kernels, pixels, 1, data, dtype);
  const Activations rows = x.rows();
  const ActivationShape bytes = x.bytes(shape, shape.walk.groups);
  const Windows windows(rows, bytes, shape, 0, float_memory().windows);
  const auto run = [&](const ThreadPool& threads, std::int64_t group) {
    Windows here = windows;
    here.move_to_group(bytes, group);
    run_group(threads, kernels, weight_of_group(layer.weight, group), shape, x, pixels, here,
              outputs_of_group(outputs, group * layer.weight.channels));
  };
  if (shape.walk.groups == 1) return run(pool, 0);
  for_each_chunk(pool, shape.walk.groups, [&](std::int64_t group) { run(ThreadPool{}, group); });
}

}  // namespace vsquant
