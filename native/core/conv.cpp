#include "core/conv.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <type_traits>

#include "core/stem.hpp"
#include "core/windows.hpp"

namespace vsquant {
namespace {

struct ConvMemory {
  Windows::Memory windows;
  Scratch whole;
};

ConvMemory& conv_memory() {
  static thread_local ConvMemory memory;
  return memory;
}

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

template <class T>
T* shifted(T* data, DType dtype, std::int64_t elements) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return data == nullptr ? nullptr : static_cast<Byte*>(data) + elements * (dtype == DType::float32 ? 4 : 2);
}

}  // namespace

PackedWeight weight_of_group(PackedWeight weight, std::int64_t group) {
  weight.codes += group * weight.panels() * weight.blocks * block_bytes(weight);
  if (weight.scales != nullptr) weight.scales += group * weight.panels() * weight.vectors() * scale_bytes(weight);
  if (weight.float_scales != nullptr)
    weight.float_scales = static_cast<const char*>(weight.float_scales) +
                          group * weight.panels() * weight.vectors() * kPanelChannels * (weight.half_scales ? 2 : 4);
  weight.sums += group * weight.channels;
  return weight;
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
          layer.vector_elements(), layer.vector_size};
}

namespace {

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

// Signed codes that a function kept from being negative are unsigned ones as well, which need no bias.
bool any_negative(const std::uint8_t* codes, std::int64_t count) {
  constexpr std::int64_t kStep = 4096;
  for (std::int64_t first = 0; first < count; first += kStep) {
    std::uint8_t all = 0;
    for (std::int64_t i = first; i < std::min(first + kStep, count); ++i) all |= codes[i];
    if (all > 127) return true;
  }
  return false;
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
  const bool stem = rows.vector_size == 0 && suits_stem(m, shape);
  Multiplication fitting = m;
  fitting.biased = m.biased && !stem;  // the stem's image is biased with its padding
  fit_activations(pool, fitting, joined(rows), activation_memory(), &activations);
  if (stem) {
    const Image image{activations.codes, rows.padded(), rows.padded() * shape.width};
    return stem_conv2d(pool, m, shape, image, outputs);
  }
  const Windows windows(activations, rows, shape, m.biased ? 128 : 0, conv_memory().windows);
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
  if (plain && rows.vector_size == 0 && suits_stem(m, shape)) return run_stem(pool, m, shape, input, outputs);
  Activations activations;
  // Without vectors a pixel is quantized as a whole, and its groups are padded afterwards.
  const bool spread = rows.part() != rows.padded_part() && rows.groups > 1 && plain;
  const bool sums = m.start_bias() != 0;
  ActivationShape quantized = spread ? rows : joined(rows);
  if (spread) quantized = {rows.samples, rows.rows, rows.length, 1, kBlockElements};
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
  Multiplication m = multiplication_for(kernels, layer, shape, rows);
  if (m.biased && input.scales == nullptr && !any_negative(input.codes, rows.all_rows() * input.length))
    m.codes_signed = m.biased = false;
  if (input.scales == nullptr && rows.vector_size == 0 && suits_stem(m, shape)) {
    const Activations given{input.codes, nullptr, nullptr, input.coarse, input.rows_per_coarse};
    return stem_conv2d(pool, m, shape, {input.codes, input.length, input.length * shape.width},
                       scaled(outputs, shape, given, rows.rows));
  }
  Activations activations;
  adopt_activations(pool, kernels, layer.activation_format, rows, input.codes, input.length, m.start_bias() != 0,
                    activation_memory(), &activations);
  activations.scales = input.scales;
  if (input.steps != nullptr) activations.starts = reinterpret_cast<const std::int32_t*>(input.steps);
  activations.coarse = input.coarse;
  activations.rows_per_coarse = input.rows_per_coarse;
  return run(pool, m, shape, rows, activations, outputs);
}

}  // namespace vsquant
