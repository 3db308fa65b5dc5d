#include "torch/layers.hpp"

#include <algorithm>

#include "core/dispatch.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

std::int64_t whole(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit; }

ScaleLayout scale_layout(const Format& format) {
  if (format.scale != ScaleKind::integer) return ScaleLayout::none;
  return format.scale_bits <= 4 ? ScaleLayout::nibbles : format.scale_bits <= 8 ? ScaleLayout::bytes : ScaleLayout::words;
}

// Blocks of a weight that the tensor of its codes holds, checked.
std::int64_t blocks_of(const Tensor& codes, const Format& format, const WeightShape& shape, std::int64_t panels) {
  const bool nibbles = format.bits <= 4;
  require_dtype(codes, "weight_codes", nibbles ? ScalarType::Byte : ScalarType::Char);
  require_contiguous(codes, "weight_codes");
  const std::int64_t bytes = nibbles ? kBlockCodes / 2 : kBlockCodes;
  const std::int64_t unit = format.vector_size == 0 ? kBlockElements : format.vector_size;
  const auto blocks = [&](std::int64_t channels) {
    return shape.positions * whole(channels, unit) * whole(unit, kBlockElements);
  };
  const std::int64_t most = blocks(shape.channels), fewest = blocks(shape.fewest_channels);
  const std::int64_t given = codes.dim() == 3 ? codes.size(1) : -1;
  const bool fits = given >= fewest && given <= most && (given == most || given % shape.positions == 0);
  require_shape(codes, "weight_codes", {panels, fits ? given : most, bytes});
  return given;
}

const std::uint8_t* scales_of(const Tensor& scale, const Format& format, std::int64_t panels, std::int64_t blocks) {
  const ScaleLayout layout = scale_layout(format);
  if (layout == ScaleLayout::none) return nullptr;
  require_dtype(scale, "weight_scale", layout == ScaleLayout::words ? ScalarType::Short : ScalarType::Byte);
  require_shape(scale, "weight_scale",
                {panels, blocks / whole(format.vector_size, kBlockElements), layout == ScaleLayout::nibbles ? 8 : 16});
  require_contiguous(scale, "weight_scale");
  return static_cast<const std::uint8_t*>(scale.const_data_ptr());
}

const void* float_scales_of(const Tensor& scale, const Format& format, std::int64_t panels, std::int64_t blocks) {
  if (!is_float(format.scale)) return nullptr;
  require_dtype(scale, "weight_scale", format.scale == ScaleKind::fp16 ? ScalarType::Half : ScalarType::Float);
  require_shape(scale, "weight_scale", {panels, blocks / whole(format.vector_size, kBlockElements), kPanelChannels});
  require_contiguous(scale, "weight_scale");
  return scale.const_data_ptr();
}

}  // namespace

Shape::Shape(std::initializer_list<std::int64_t> given) : dims(given.size()) {
  std::copy(given.begin(), given.end(), sizes.begin());
}

Shape Shape::lead_and(std::initializer_list<std::int64_t> last) const {
  Shape result = *this;
  --result.dims;
  for (const std::int64_t size : last) result.sizes[result.dims++] = size;
  return result;
}

std::int64_t Shape::rows() const {
  std::int64_t rows = 1;
  for (std::size_t i = 1; i + 1 < dims; ++i) rows *= sizes[i];
  return rows;
}

Tensor empty(const Shape& shape, ScalarType dtype) { return empty(shape.sizes.data(), shape.dims, dtype); }

void require_shape(const Tensor& tensor, const char* name, const Shape& shape) {
  require_shape(tensor, name, shape.sizes.data(), shape.dims);
}

Format weight_format(const std::string& text) {
  const Format format = parse_format(text);
  if (!format.is_signed) fail(Error::backend, "weights must be signed to run natively, not " + text);
  return format;
}

Format activation_format(const std::string& text) { return parse_format(text); }

int vector_elements(const Format& weight, const Format& activation) {
  if (weight.vector_size != 0 && activation.vector_size != 0 && weight.vector_size != activation.vector_size)
    fail(Error::spec, "weights and activations must have the same vector size, not " +
                          std::to_string(weight.vector_size) + " and " + std::to_string(activation.vector_size));
  const int size = std::max({weight.vector_size, activation.vector_size, 1});
  return static_cast<int>(whole(size, kBlockElements)) * kBlockElements;
}

int spread_size(const Format& weight, const Format& activation) {
  const int size = std::max(weight.vector_size, activation.vector_size);
  return size % kBlockElements == 0 ? 0 : size;
}

LinearLayer layer_of(const WeightTensors& tensors, const FormatArguments& formats, const WeightShape& shape) {
  LinearLayer layer;
  layer.weight_format = weight_format(formats.weight);
  layer.activation_format = activation_format(formats.activation);
  layer.product_bits = static_cast<int>(std::clamp<std::int64_t>(formats.product_bits, 0, 64));
  if (shape.outputs < 0) fail(Error::shape, "out_features must be at least 0, not " + std::to_string(shape.outputs));
  const std::int64_t group_outputs = shape.outputs / shape.groups;
  const std::int64_t panels = shape.groups * whole(group_outputs, kPanelChannels);
  const std::int64_t blocks = blocks_of(tensors.codes, layer.weight_format, shape, panels);
  PackedWeight& weight = layer.weight;
  weight.codes = static_cast<const std::uint8_t*>(tensors.codes.const_data_ptr());
  weight.scales = scales_of(tensors.scale, layer.weight_format, panels, blocks);
  weight.float_scales = float_scales_of(tensors.scale, layer.weight_format, panels, blocks);
  weight.half_scales = layer.weight_format.scale == ScaleKind::fp16;
  weight.sums = elements<std::int32_t>(tensors.sums, "weight_sums");
  require_shape(tensors.sums, "weight_sums", {shape.outputs});
  weight.code_layout = layer.weight_format.bits <= 4 ? CodeLayout::nibbles : CodeLayout::bytes;
  weight.scale_layout = scale_layout(layer.weight_format);
  weight.scale_offset = layer.weight_format.scale_min();
  weight.blocks_per_vector = vector_elements(layer.weight_format, layer.activation_format) / kBlockElements;
  weight.channels = group_outputs;
  weight.blocks = blocks;
  layer.vector_size = spread_size(layer.weight_format, layer.activation_format);
  const int unit = weight.blocks_per_vector * kBlockElements;
  if (layer.vector_size != 0 && layer.weight_format.vector_size == 0)
    spread_positions(&weight, panels, shape.positions, shape.channels, layer.vector_size, unit);
  else if (layer.vector_size == 0)
    pad_positions(&weight, panels, shape.positions, whole(shape.channels, unit) * weight.blocks_per_vector);
  return layer;
}

FloatInput float_input(const FloatArguments& arguments, const Format& format) {
  ActivationQuantizer how{{format, parse_scale_mode(arguments.scale_mode)}, parse_share(arguments.share), nullptr};
  if (arguments.range.has_value()) {
    how.range = elements<float>(*arguments.range, "activation_range");
    require_shape(*arguments.range, "activation_range", {1});
  }
  return {arguments.x.const_data_ptr(), float_dtype(arguments.x, "x"), how};
}

std::int64_t channels_of_codes(const Tensor& codes, const Format& format, std::int64_t parts) {
  const std::int64_t dims = codes.dim(), vectors = codes.size(dims - 2), size = codes.size(dims - 1);
  const bool fits = format.vector_size == 0 ? vectors == 1 && size % parts == 0
                                            : size == format.vector_size && vectors % parts == 0;
  if (!fits)
    fail(Error::shape, "codes must end in the sizes " +
                           (format.vector_size == 0 ? "(1, channels)" : "(vectors, " + std::to_string(format.vector_size) + ")") +
                           " with whole groups, not " + shape_text(codes));
  return vectors * size / parts;
}

CodeInput code_input(const CodeArguments& arguments, const Format& format, std::int64_t samples, std::int64_t rows) {
  const Tensor& codes = arguments.codes;
  require_dtype(codes, "codes", format.qmax() > 127 ? ScalarType::Byte : ScalarType::Char);
  require_contiguous(codes, "codes");
  CodeInput input{};
  input.codes = static_cast<const std::uint8_t*>(codes.const_data_ptr());
  input.length = codes.size(codes.dim() - 2) * codes.size(codes.dim() - 1);
  if (format.scale == ScaleKind::integer) {
    const auto sizes = codes.sizes();
    input.scales = elements<std::int16_t>(arguments.vector_scale, "vector_scale");
    require_shape(arguments.vector_scale, "vector_scale", sizes.data(), sizes.size() - 1);
  }
  if (is_float(format.scale)) {
    static constexpr float kOne = 1.0f;
    const auto sizes = codes.sizes();
    input.steps = elements<float>(arguments.vector_scale, "vector_scale");
    require_shape(arguments.vector_scale, "vector_scale", sizes.data(), sizes.size() - 1);
    input.coarse = &kOne;
    input.rows_per_coarse = std::max<std::int64_t>(1, samples * rows);
    return input;
  }
  input.coarse = elements<float>(arguments.coarse_scale, "coarse_scale");
  const bool by_row = arguments.coarse_scale.dim() == 2 && arguments.coarse_scale.size(1) == rows;
  require_shape(arguments.coarse_scale, "coarse_scale", {samples, by_row ? rows : 1});
  input.rows_per_coarse = by_row ? 1 : std::max<std::int64_t>(1, rows);
  return input;
}

void require_none(Fault fault, const Quantizer& quantizer, Share share, const FloatTensor& x, const Ranges& ranges) {
  if (fault == Fault::none) return;
  const Refusal why = refusal(quantizer, share, x, ranges);
  fail(why.fault == Fault::not_finite ? Error::non_finite : Error::scale_range, why.text);
}

}  // namespace vsquant::binding
