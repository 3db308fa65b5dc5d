#include "core/float_pixels.hpp"

#include <algorithm>

namespace vsquant {
namespace {

constexpr std::int64_t kRowsPerChunk = 32;
// Rows of a tile whose distance is a power of two would share the first cache's sets: they lie a line further apart.
constexpr std::int64_t kLineFloats = 16;

struct PixelMemory {
  Scratch values, row;
};

PixelMemory& pixel_memory() {
  static thread_local PixelMemory memory;
  return memory;
}

// One group's channels, its vectors spread to whole blocks, and zeros up to the end.
void place(const float* from, const ActivationShape& shape, std::int64_t repeats, float* to, std::int64_t part) {
  const std::int64_t size = shape.vector_length();
  float* at = to;
  for (std::int64_t first = 0; first < shape.part(); first += size, at += shape.vector_elements) {
    const std::int64_t count = std::min(size, shape.part() - first);
    for (std::int64_t i = 0; i < count; ++i) at[i] = from[(first + i) / repeats];
    std::fill(at + count, at + shape.vector_elements, 0.0f);
  }
  std::fill(at, to + part, 0.0f);
}

}  // namespace

ActivationShape FloatPixels::bytes(const ConvShape& shape, std::int64_t groups) const {
  constexpr int kFloat = sizeof(float);
  return {shape.samples, shape.in_pixels(), groups * part * kFloat, static_cast<int>(groups), kFloat};
}

Activations FloatPixels::rows() const {
  Activations rows;
  rows.codes = reinterpret_cast<const std::uint8_t*>(values);
  return rows;
}

FloatPixels float_pixels(const ThreadPool& pool, const Kernels& kernels, const ActivationShape& shape,
                         std::int64_t repeats, const void* x, DType dtype) {
  const std::int64_t part = shape.padded_part() + kLineFloats, rows = shape.all_rows(), length = shape.length / repeats;
  const std::int64_t bytes = dtype == DType::float32 ? 4 : 2;
  auto* values = pixel_memory().values.get<float>(rows * shape.groups * part);
  for_each_chunk(pool, (rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](std::int64_t chunk) {
    auto* copy = pixel_memory().row.get<float>(length);
    for (std::int64_t row = chunk * kRowsPerChunk; row < std::min(rows, (chunk + 1) * kRowsPerChunk); ++row) {
      const void* at = static_cast<const char*>(x) + row * length * bytes;
      const auto* from = static_cast<const float*>(at);
      if (dtype != DType::float32) {
        kernels.quantize.to_float(dtype, at, length, copy);
        from = copy;
      }
      for (int group = 0; group < shape.groups; ++group)
        place(from + group * shape.part() / repeats, shape, repeats, values + (row * shape.groups + group) * part, part);
    }
  });
  return {values, part};
}

}  // namespace vsquant
