#include "core/windows.hpp"

#include <cstring>

namespace vsquant {

Windows::Windows(const Activations& activations, const ActivationShape& rows, const ConvShape& shape, std::uint8_t zero,
        Memory& memory)
    : shape_(shape),
      walk_(shape.walk),
      activations_(activations),
      out_width_(shape.out_width()),
      out_pixels_(shape.out_pixels()),
      padded_(rows.padded()),
      vectors_(rows.vectors()),
      plain_(walk_.positions() == 1 && shape.out_height() == shape.height && shape.out_width() == shape.width &&
             walk_.padding[0] == 0 && walk_.padding[2] == 0 && walk_.stride[0] == 1 && walk_.stride[1] == 1) {
  offsets_ = memory.offsets.get<std::int64_t>(walk_.positions());
  for (std::int64_t r = 0, p = 0; r < walk_.kernel[0]; ++r)
    for (std::int64_t s = 0; s < walk_.kernel[1]; ++s, ++p)
      offsets_[p] = r * walk_.dilation[0] * shape.width + s * walk_.dilation[1];
  auto* codes = memory.zero_codes.get<std::uint8_t>(rows.padded_part());
  std::memset(codes, zero, rows.padded_part());
  zero_codes_ = codes;
  const std::size_t bytes = rows.vectors() * sizeof(std::int32_t);
  zeros_ = memory.zeros.get<std::uint8_t>(bytes);
  std::memset(zeros_, 0, bytes);
}

bool Windows::corners(std::int64_t first_row, int rows, std::int64_t* pixel, std::int64_t* top, std::int64_t* left) const {
  std::int64_t sample = first_row / out_pixels_;
  std::int64_t y = first_row % out_pixels_ / out_width_, x = first_row % out_width_;
  const std::int64_t last_y = shape_.height - (walk_.kernel[0] - 1) * walk_.dilation[0];
  const std::int64_t last_x = shape_.width - (walk_.kernel[1] - 1) * walk_.dilation[1];
  bool inside = true;
  for (int row = 0; row < rows; ++row) {
    top[row] = y * walk_.stride[0] - walk_.padding[0];
    left[row] = x * walk_.stride[1] - walk_.padding[2];
    inside &= top[row] >= 0 && top[row] < last_y && left[row] >= 0 && left[row] < last_x;
    pixel[row] = (sample * shape_.height + top[row]) * shape_.width + left[row];
    if (++x < out_width_) continue;
    x = 0;
    if (++y < out_pixels_ / out_width_) continue;
    y = 0;
    ++sample;
  }
  return inside;
}

template <class T>
void Windows::fill(const T* base, std::int64_t step, const std::int64_t* pixel, int rows, const T** out) const {
  for (std::int64_t p = 0; p < walk_.positions(); ++p, out += rows)
    for (int row = 0; row < rows; ++row) out[row] = base + (pixel[row] + offsets_[p]) * step;
}

void Windows::point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
           const std::int16_t** scales) const {
  std::int64_t pixel[kMostTileRows], top[kMostTileRows], left[kMostTileRows];
  if (plain_)
    for (int row = 0; row < rows; ++row) pixel[row] = first_row + row;
  const bool inside = plain_ || corners(first_row, rows, pixel, top, left);
  if (inside) {
    fill(activations_.codes + code_shift_, padded_, pixel, rows, codes);
    if (activations_.starts != nullptr) fill(activations_.starts + vector_shift_, vectors_, pixel, rows, starts);
    if (activations_.scales != nullptr) fill(activations_.scales + vector_shift_, vectors_, pixel, rows, scales);
    return;
  }
  for (std::int64_t r = 0, p = 0; r < walk_.kernel[0]; ++r) {
    for (std::int64_t s = 0; s < walk_.kernel[1]; ++s, ++p) {
      for (int row = 0; row < rows; ++row) {
        const std::int64_t y = top[row] + r * walk_.dilation[0], x = left[row] + s * walk_.dilation[1];
        const bool padding = static_cast<std::uint64_t>(y) >= static_cast<std::uint64_t>(shape_.height) ||
                             static_cast<std::uint64_t>(x) >= static_cast<std::uint64_t>(shape_.width);
        const std::int64_t at = pixel[row] + offsets_[p], to = p * rows + row;
        codes[to] = padding ? zero_codes_ : activations_.codes + code_shift_ + at * padded_;
        if (activations_.starts != nullptr)
          starts[to] = padding ? reinterpret_cast<const std::int32_t*>(zeros_)
                               : activations_.starts + vector_shift_ + at * vectors_;
        if (activations_.scales != nullptr)
          scales[to] = padding ? reinterpret_cast<const std::int16_t*>(zeros_)
                               : activations_.scales + vector_shift_ + at * vectors_;
      }
    }
  }
}

}  // namespace vsquant
