// Convolutions of an image's few channels. A block holds 16 elements, so that three channels would be multiplied with
// thirteen zeros at every kernel position; here a pixel takes 4 or 8 bytes, and one row of the kernel is one position.
#pragma once

#include "core/conv.hpp"

namespace vsquant {

// Codes of an image as products read them once vector scales are folded: bytes between its pixels and its rows.
struct Image {
  const std::uint8_t* codes;
  std::int64_t pixel_bytes;
  std::int64_t row_bytes;
};

// Whether this way serves a convolution: few channels, one group, windows of neighbouring pixels, folded products.
bool suits_stem(const Multiplication&, const ConvShape&);

Fault stem_conv2d(const ThreadPool&, const Multiplication&, const ConvShape&, const Image&, const Outputs&);

}  // namespace vsquant
