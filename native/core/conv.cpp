#include "core/conv.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/stem.hpp"

namespace vsquant {
namespace {

struct ConvMemory {
  Scratch offsets, zero_codes, zeros, whole;
};

ConvMemory& conv_memory() {
  static thread_local ConvMemory memory;
  return memory;
}

// Row n of the product reads the pixels under the window of output pixel n.
class Windows final : public RowSource {
 public:
  // `zero` is the byte of a code 0.
  Windows(const Activations& activations, const ActivationShape& rows, const ConvShape& shape, std::uint8_t zero,
          ConvMemory& memory)
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

  // Reads channels of a group from here on.
  void move_to_group(const ActivationShape& rows, std::int64_t group) {
    code_shift_ = group * rows.padded_part();
    vector_shift_ = group * (rows.vectors() / rows.groups);
  }

  void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
             const std::int16_t** scales) const override {
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

 private:
  // The first pixel of each row's window; true where all windows lie inside.
  bool corners(std::int64_t first_row, int rows, std::int64_t* pixel, std::int64_t* top, std::int64_t* left) const {
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
  void fill(const T* base, std::int64_t step, const std::int64_t* pixel, int rows, const T** out) const {
    for (std::int64_t p = 0; p < walk_.positions(); ++p, out += rows)
      for (int row = 0; row < rows; ++row) out[row] = base + (pixel[row] + offsets_[p]) * step;
  }

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

std::int64_t block_bytes(const PackedWeight& weight) {
  return weight.code_layout == CodeLayout::nibbles ? kBlockCodes / 2 : kBlockCodes;
}

std::int64_t scale_bytes(const PackedWeight& weight) {
  switch (weight.scale_layout) {
    case ScaleLayout::none: return 0;
    case ScaleLayout::nibbles: return 8;
    case ScaleLayout::bytes: return 16;
    case ScaleLayout::words: return 32;
  }
  return 0;
}

PackedWeight weight_of_group(PackedWeight weight, std::int64_t group) {
  weight.codes += group * weight.panels() * weight.blocks * block_bytes(weight);
  if (weight.scales != nullptr) weight.scales += group * weight.panels() * weight.vectors() * scale_bytes(weight);
  weight.sums += group * weight.channels;
  return weight;
}

template <class T>
T* shifted(T* data, DType dtype, std::int64_t elements) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return data == nullptr ? nullptr : static_cast<Byte*>(data) + elements * (dtype == DType::float32 ? 4 : 2);
}

Outputs outputs_of_group(Outputs outputs, std::int64_t first_channel) {
  outputs.weight_coarse += first_channel;
  if (outputs.bias != nullptr) outputs.bias += first_channel;
  outputs.residual = shifted(outputs.residual, outputs.residual_dtype, first_channel);
  outputs.y = shifted(outputs.y, outputs.dtype, first_channel);
  if (outputs.requantizer != nullptr) {
    outputs.codes.codes += first_channel;
    if (outputs.codes.sigma != nullptr)
      outputs.codes.sigma += first_channel / outputs.requantizer->format.vector_size;
  }
  return outputs;
}

ActivationShape activation_shape(const ConvShape& shape, const LinearLayer& layer) {
  return {shape.samples, shape.in_pixels(), shape.channels, static_cast<int>(shape.walk.groups),
          layer.vector_elements()};
}

// Groups that end with whole vectors lie as one does.
ActivationShape joined(ActivationShape rows) {
  if (rows.part() == rows.padded_part()) rows.groups = 1;
  return rows;
}

Multiplication multiplication_for(const Kernels& kernels, const LinearLayer& layer, const ConvShape& shape,
                                  const ActivationShape& rows) {
  Multiplication m = multiplication_of(kernels, layer, shape.samples * shape.out_pixels(),
                                       static_cast<int>(shape.walk.positions()), rows.padded_part() / kBlockElements);
  m.biased = m.codes_signed && m.plan.path == ProductPath::folded && !m.runs_few() && m.kernels->folded_bias != 0;
  return m;
}

// `rows` are those of one sample of the activations.
Outputs scaled(Outputs outputs, const ConvShape& shape, const Activations& activations, std::int64_t rows) {
  outputs.activation_coarse = activations.coarse;
  const std::int64_t samples = activations.rows_per_coarse / std::max<std::int64_t>(1, rows);
  outputs.rows_per_coarse = std::max<std::int64_t>(1, samples * shape.out_pixels());
  return outputs;
}

Fault run(const ThreadPool& pool, const Multiplication& m, const ConvShape& shape, const ActivationShape& rows,
          Activations activations, const Outputs& unscaled) {
  const Outputs outputs = scaled(unscaled, shape, activations, rows.rows);
  const bool stem = suits_stem(m, shape);
  Multiplication fitting = m;
  fitting.biased = m.biased && !stem;  // the stem's image is biased with its padding
  fit_activations(pool, fitting, joined(rows), activation_memory(), &activations);
  if (stem) {
    const Image image{activations.codes, rows.padded(), rows.padded() * shape.width};
    return stem_conv2d(pool, m, shape, image, outputs);
  }
  const Windows windows(activations, rows, shape, m.biased ? 128 : 0, conv_memory());
  const auto run_group = [&](const ThreadPool& threads, std::int64_t group) {
    Multiplication part = m;
    part.weight = weight_of_group(m.weight, group);
    Windows here = windows;
    here.move_to_group(rows, group);
    return multiply(threads, part, here, outputs_of_group(outputs, group * m.weight.channels));
  };
  if (shape.walk.groups == 1) return run_group(pool, 0);
  std::atomic<Fault> fault{Fault::none};
  for_each_chunk(pool, shape.walk.groups, [&](std::int64_t group) {
    const Fault here = run_group(ThreadPool{}, group);
    if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
  });
  return fault.load();
}

// The stem of a network on floats without vectors: rows of the image are quantized without padding their pixels.
Fault run_stem(const ThreadPool& pool, const Multiplication& m, const ConvShape& shape, const FloatInput& input,
               const Outputs& outputs) {
  const ActivationShape lines{shape.samples, shape.height, shape.width * shape.channels, 1, kBlockElements};
  Activations activations;
  const Fault fault = quantize_activations(pool, *m.kernels, input.how, lines, input.data, input.dtype, false,
                                           activation_memory(), &activations);
  if (fault != Fault::none) return fault;
  return stem_conv2d(pool, m, shape, {activations.codes, shape.channels, lines.padded()},
                     scaled(outputs, shape, activations, lines.rows));
}

}  // namespace

Fault conv2d(const ThreadPool& pool, const Kernels& kernels, const LinearLayer& layer, const ConvShape& shape,
             const FloatInput& input, Outputs outputs) {
  const ActivationShape rows = activation_shape(shape, layer);
  const Multiplication m = multiplication_for(kernels, layer, shape, rows);
  const bool plain = layer.activation_format.vector_size == 0;
  if (plain && suits_stem(m, shape)) return run_stem(pool, m, shape, input, outputs);
  Activations activations;
  // Without vectors a pixel is quantized as a whole, and its groups are padded afterwards.
  const bool spread = rows.part() != rows.padded_part() && rows.groups > 1 && plain;
  const bool sums = m.start_bias() != 0;
  ActivationShape quantized = spread ? rows : joined(rows);
  if (spread) quantized.groups = 1;
  const Fault fault = quantize_activations(pool, kernels, input.how, quantized, input.data, input.dtype,
                                           sums && !spread, activation_memory(), &activations);
  if (fault != Fault::none) return fault;
  if (spread) {
    // Without the padding of a whole pixel, which may be as long as that of its groups is.
    auto* whole = conv_memory().whole.get<std::uint8_t>(rows.all_rows() * rows.length);
    for (std::int64_t row = 0; row < rows.all_rows(); ++row)
      std::memcpy(whole + row * rows.length, activations.codes + row * quantized.padded(), rows.length);
    adopt_activations(pool, kernels, layer.activation_format, rows, whole, rows.length, sums, activation_memory(),
                      &activations);
  }
  return run(pool, m, shape, rows, activations, outputs);
}

Fault conv2d(const ThreadPool& pool, const Kernels& kernels, const LinearLayer& layer, const ConvShape& shape,
             const CodeInput& input, Outputs outputs) {
  const ActivationShape rows = activation_shape(shape, layer);
  const Multiplication m = multiplication_for(kernels, layer, shape, rows);
  if (input.scales == nullptr && suits_stem(m, shape)) {
    const Activations given{input.codes, nullptr, nullptr, input.coarse, input.rows_per_coarse};
    return stem_conv2d(pool, m, shape, {input.codes, input.length, input.length * shape.width},
                       scaled(outputs, shape, given, rows.rows));
  }
  Activations activations;
  adopt_activations(pool, kernels, layer.activation_format, rows, input.codes, input.length, m.start_bias() != 0,
                    activation_memory(), &activations);
  activations.scales = input.scales;
  activations.coarse = input.coarse;
  activations.rows_per_coarse = input.rows_per_coarse;
  return run(pool, m, shape, rows, activations, outputs);
}

}  // namespace vsquant
