// Rows of a product that are the windows of a convolution's output pixels.
#pragma once

#include "core/conv.hpp"

namespace vsquant {

// Row n reads the pixels under the window of output pixel n, where they lie; padding points at a row of zeros.
class Windows final : public RowSource {
 public:
  struct Memory {
    Scratch offsets, zero_codes, zeros;
  };
  // `zero` is the byte of a code 0. `rows` are the pixels of `activations`.
  Windows(const Activations& activations, const ActivationShape& rows, const ConvShape& shape, std::uint8_t zero, Memory&);

  // Reads channels of this group from here on.
  void move_to_group(const ActivationShape& rows, std::int64_t group) {
    code_shift_ = group * rows.padded_part();
    vector_shift_ = group * (rows.vectors() / rows.groups);
  }

  void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
             const std::int16_t** scales) const override;

 private:
  // The first pixel of each row's window; true where all windows lie inside.
  bool corners(std::int64_t first_row, int rows, std::int64_t* pixel, std::int64_t* top, std::int64_t* left) const;
  template <class T>
  void fill(const T* base, std::int64_t step, const std::int64_t* pixel, int rows, const T** out) const;

  const ConvShape& shape_;
  const Walk& walk_;
  const Activations& activations_;
  std::int64_t out_width_, out_pixels_, padded_, vectors_;
  bool plain_;  // output pixel n is input pixel n
  std::int64_t code_shift_ = 0, vector_shift_ = 0;
  std::int64_t* offsets_;
  const std::uint8_t* zero_codes_;
  std::uint8_t* zeros_;
};

}  // namespace vsquant
