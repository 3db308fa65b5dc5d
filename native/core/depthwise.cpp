#include "core/depthwise.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

#include "core/float_pixels.hpp"
#include "core/windows.hpp"

namespace vsquant {
namespace {

constexpr int kRows = 4;  // of a tile, as core/isa/depthwise.inl has them
constexpr std::int64_t kRowsPerChunk = 64;

struct DepthwiseMemory {
  Windows::Memory windows;
  Scratch repeated, pointers, weights;
};

DepthwiseMemory& depthwise_memory() {
  static thread_local DepthwiseMemory memory;
  return memory;
}

ActivationShape pixels(const ConvShape& shape, std::int64_t channels) {
  return {shape.samples, shape.in_pixels(), channels, 1, kBlockElements};
}

// Every channel as many times as output channels read it.
void repeat(const ThreadPool& pool, const ActivationShape& from, const ActivationShape& to, std::int64_t multiplier,
            DepthwiseMemory& memory, Activations* activations) {
  auto* repeated = memory.repeated.get<std::uint8_t>(to.all_rows() * to.padded());
  const std::uint8_t* codes = activations->codes;
  for_each_chunk(pool, (to.all_rows() + kRowsPerChunk - 1) / kRowsPerChunk, [&](std::int64_t chunk) {
    const std::int64_t last = std::min(to.all_rows(), (chunk + 1) * kRowsPerChunk);
    for (std::int64_t row = chunk * kRowsPerChunk; row < last; ++row) {
      std::uint8_t* out = repeated + row * to.padded();
      for (std::int64_t c = 0; c < from.length; ++c)
        std::fill_n(out + c * multiplier, multiplier, codes[row * from.padded() + c]);
      std::fill(out + to.length, out + to.padded(), std::uint8_t{0});
    }
  });
  activations->codes = repeated;
}

void run_float_rows(const Kernels& kernels, const DepthwiseLayer& layer, const ConvShape& shape, const float* weights,
                    const Windows& windows, const Outputs& outputs, std::int64_t first_row, std::int64_t last_row) {
  const int positions = static_cast<int>(shape.walk.positions());
  const auto** pointers = depthwise_memory().pointers.get<const std::uint8_t*>(kRows * positions);
  alignas(64) float sums[kRows * Channels::kMost];
  for (std::int64_t row = first_row; row < last_row; row += kRows) {
    const int rows = static_cast<int>(std::min<std::int64_t>(kRows, last_row - row));
    windows.point(row, rows, pointers, nullptr, nullptr);
    for (std::int64_t channel = 0; channel < shape.outputs; channel += Channels::kMost) {
      const int count = static_cast<int>(std::min<std::int64_t>(Channels::kMost, layer.stride - channel));
      Settler settler(kernels, outputs, {channel, count, shape.outputs, nullptr, 0}, 1.0f, Channels::kMost);
      kernels.floats.depthwise(pointers, rows, positions, weights, layer.stride, channel, count, sums);
      settler(row, rows, sums);
    }
  }
}

Fault run_rows(const Kernels& kernels, const DepthwiseLayer& layer, const ConvShape& shape, const Windows& windows,
               const Outputs& outputs, std::int64_t first_row, std::int64_t last_row) {
  const int positions = static_cast<int>(shape.walk.positions());
  const auto** pointers = depthwise_memory().pointers.get<const std::uint8_t*>(kRowsPerChunk * positions);
  for (std::int64_t row = first_row; row < last_row; row += kRows)
    windows.point(row, static_cast<int>(std::min<std::int64_t>(kRows, last_row - row)),
                  pointers + (row - first_row) * positions, nullptr, nullptr);
  alignas(64) std::int32_t sums[kRows * Channels::kMost];
  Fault fault = Fault::none;
  for (std::int64_t channel = 0; channel < shape.outputs; channel += Channels::kMost) {
    const int count = static_cast<int>(std::min<std::int64_t>(Channels::kMost, layer.stride - channel));
    Settler settler(kernels, outputs, {channel, count, shape.outputs, nullptr, 0}, 1.0f, Channels::kMost);
    for (std::int64_t row = first_row; row < last_row; row += kRows) {
      const int rows = static_cast<int>(std::min<std::int64_t>(kRows, last_row - row));
      settler.foresee(row, rows);
      const Format& format = layer.activation_format;
      const RowTile tile{pointers + (row - first_row) * positions, nullptr, nullptr, rows, positions, 1,
                         format.is_signed || format.bits < 8};
      kernels.depthwise_tile(tile, layer.weights, layer.stride, channel, count, sums);
      const Fault here = settler(row, rows, sums);
      if (here != Fault::none) fault = here;
    }
  }
  return fault;
}

Fault run(const ThreadPool& pool, const Kernels& kernels, const DepthwiseLayer& layer, const ConvShape& shape,
          Activations activations, Outputs outputs) {
  const ActivationShape given = pixels(shape, shape.channels), read = pixels(shape, shape.outputs);
  if (layer.multiplier != 1) repeat(pool, given, read, layer.multiplier, depthwise_memory(), &activations);
  outputs.activation_coarse = activations.coarse;
  const std::int64_t samples = activations.rows_per_coarse / std::max<std::int64_t>(1, given.rows);
  outputs.rows_per_coarse = std::max<std::int64_t>(1, samples * shape.out_pixels());
  const Windows windows(activations, read, shape, 0, depthwise_memory().windows);
  const std::int64_t rows = shape.samples * shape.out_pixels();
  std::atomic<Fault> fault{Fault::none};
  for_each_chunk(pool, (rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](std::int64_t chunk) {
    const std::int64_t first = chunk * kRowsPerChunk;
    const Fault here = run_rows(kernels, layer, shape, windows, outputs, first, std::min(rows, first + kRowsPerChunk));
    if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
  });
  return fault.load();
}

}  // namespace

Fault depthwise_conv2d(const ThreadPool& pool, const Kernels& kernels, const DepthwiseLayer& layer,
                       const ConvShape& shape, const FloatInput& input, Outputs outputs) {
  Activations activations;
  const Fault fault = quantize_activations(pool, kernels, input.how, pixels(shape, shape.channels), input.data,
                                           input.dtype, false, activation_memory(), &activations);
  return fault != Fault::none ? fault : run(pool, kernels, layer, shape, activations, outputs);
}

Fault depthwise_conv2d(const ThreadPool& pool, const Kernels& kernels, const DepthwiseLayer& layer,
                       const ConvShape& shape, const CodeInput& input, Outputs outputs) {
  Activations activations;
  adopt_activations(pool, kernels, layer.activation_format, pixels(shape, shape.channels), input.codes, input.length,
                    false, activation_memory(), &activations);
  activations.coarse = input.coarse;
  activations.rows_per_coarse = input.rows_per_coarse;
  return run(pool, kernels, layer, shape, activations, outputs);
}

void depthwise_weight_only(const ThreadPool& pool, const Kernels& kernels, const DepthwiseLayer& layer,
                           const ConvShape& shape, const void* data, DType dtype, Outputs outputs) {
  static constexpr float kOne = 1.0f;
  outputs.activation_coarse = &kOne;
  outputs.rows_per_coarse = std::numeric_limits<std::int64_t>::max();
  const FloatPixels x =
      float_pixels(pool, kernels, pixels(shape, shape.outputs), layer.multiplier, data, dtype);
  const Activations read = x.rows();
  const Windows windows(read, x.bytes(shape, 1), shape, 0, depthwise_memory().windows);
  auto* weights = depthwise_memory().weights.get<float>(shape.walk.positions() * layer.stride);
  std::copy_n(layer.weights, shape.walk.positions() * layer.stride, weights);
  const std::int64_t rows = shape.samples * shape.out_pixels();
  for_each_chunk(pool, (rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](std::int64_t chunk) {
    const std::int64_t first = chunk * kRowsPerChunk;
    run_float_rows(kernels, layer, shape, weights, windows, outputs, first, std::min(rows, first + kRowsPerChunk));
  });
}

}  // namespace vsquant
