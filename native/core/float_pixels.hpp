// Activations that stay floating point, as the tiles read them: float32, every pixel's channels padded.
#pragma once

#include "core/conv.hpp"

namespace vsquant {

// Pixels whose groups take `part` floats each: the channels of a group, vector after vector as its weights lie, and zeros.
struct FloatPixels {
  const float* values;
  std::int64_t part;
  // Pixels of `groups` groups as rows of bytes, for Windows.
  ActivationShape bytes(const ConvShape&, std::int64_t groups) const;
  Activations rows() const;
};

// Converts and copies. `shape` says how channels are grouped and padded; each of them is repeated `repeats` times.
FloatPixels float_pixels(const ThreadPool&, const Kernels&, const ActivationShape& shape, std::int64_t repeats,
                         const void* x, DType);

}  // namespace vsquant
