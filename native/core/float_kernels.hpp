// What an instruction set implements for activations that stay floating point: a table that its `Kernels` holds.
#pragma once

#include <cstdint>

#include "core/products.hpp"

namespace vsquant {

// Elements [first, first + count) at each of some kernel positions: of rows, bytes of float32, and of unpacked weights.
struct FloatRun {
  const std::uint8_t* const* x;  // [position][row]
  std::int64_t positions, first, count;
  const float* weights;          // [panel][position][element][16]
  std::int64_t position_stride, panel_stride;
};

struct FloatKernels {
  int panels;  // most panels of a tile
  int rows;    // most rows of rows_tile

  // out[row][panels * 16] = sum of x * (q * s) over whole blocks, for the first of `rows` rows: as many as it returns.
  // Codes become floats in registers. `scales` are one panel after another, [vectors][16], or null.
  int (*few_tile)(const float* x, std::int64_t stride, int rows, const PackedWeight&, std::int64_t panel, int panels,
                  const float* scales, float* out);

  // Blocks [first, first + count) of one panel as floats q * s, [element][16]; `scales` are the panel's, or null.
  void (*unpack)(const PackedWeight&, std::int64_t panel, std::int64_t first, std::int64_t count, const float* scales,
                 float* out);
  // sums[row][panels * 16] += sum of a run's elements of x times unpacked weights.
  void (*rows_tile)(const FloatRun&, int rows, int panels, float* sums);

  // out[row][Channels::kMost] = sums of `count` channels (a multiple of 16) from `first` on, of up to 4 rows, each
  // reading at every kernel position a pixel whose channels, float32, lie as those of the weights [position][stride].
  void (*depthwise)(const std::uint8_t* const* x, int rows, int positions, const float* weights, std::int64_t stride,
                    std::int64_t first, int count, float* out);
};

}  // namespace vsquant
