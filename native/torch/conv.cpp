// vsquant::conv2d, conv2d_codes and conv2d_requantize on the CPU.
#include "core/conv.hpp"

#include <algorithm>
#include <vector>

#include "core/depthwise.hpp"
#include "core/dispatch.hpp"
#include "core/weight_only.hpp"
#include "torch/layers.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

using Integers = std::vector<std::int64_t>;

struct WalkArguments {
  const Integers& kernel;
  const Integers& stride;
  const Integers& padding;
  const Integers& dilation;
  std::int64_t groups;
};

void copy_sizes(const Integers& given, const char* name, std::size_t count, std::int64_t least, std::int64_t* out) {
  constexpr std::int64_t kMost = 1 << 15;
  if (given.size() != count)
    fail(Error::shape, std::string(name) + " must have " + std::to_string(count) + " sizes, not " + std::to_string(given.size()));
  for (std::size_t i = 0; i < count; ++i) {
    if (given[i] < least || given[i] > kMost)
      fail(Error::shape, std::string(name) + " must lie between " + std::to_string(least) + " and " +
                             std::to_string(kMost) + ", not " + std::to_string(given[i]));
    out[i] = given[i];
  }
}

ConvShape conv_shape(const Tensor& x, std::int64_t channels, std::int64_t outputs, const WalkArguments& arguments) {
  ConvShape shape{x.size(0), x.size(1), x.size(2), channels, outputs, {}};
  copy_sizes(arguments.kernel, "kernel", 2, 1, shape.walk.kernel);
  copy_sizes(arguments.stride, "stride", 2, 1, shape.walk.stride);
  copy_sizes(arguments.padding, "padding", 4, 0, shape.walk.padding);
  copy_sizes(arguments.dilation, "dilation", 2, 1, shape.walk.dilation);
  shape.walk.groups = arguments.groups;
  if (shape.out_height() < 1 || shape.out_width() < 1)
    fail(Error::shape, "the kernel must fit into the padded input, not span more than its " +
                           std::to_string(shape.height) + " x " + std::to_string(shape.width));
  return shape;
}

// Groups divide both sides' channels.
std::int64_t require_groups(std::int64_t groups, std::int64_t channels, std::int64_t outputs) {
  if (channels < 1) fail(Error::shape, "x must have channels, not 0 of them");
  if (groups < 1 || channels % groups != 0 || outputs % groups != 0)
    fail(Error::shape, "groups must divide " + std::to_string(channels) + " input and " + std::to_string(outputs) +
                           " output channels, not be " + std::to_string(groups));
  return groups;
}

Shape result_shape(const ConvShape& shape) {
  return {shape.samples, shape.out_height(), shape.out_width(), shape.outputs};
}

// A convolution's weight, in either of its layouts.
struct ConvLayer {
  LinearLayer dense;
  DepthwiseLayer depthwise;
  bool is_depthwise;

  ConvLayer(const WeightTensors& tensors, const FormatArguments& formats, const WeightShape& weight)
      : is_depthwise(tensors.codes.dim() == 2) {
    if (!is_depthwise) {
      dense = layer_of(tensors, formats, weight);
      return;
    }
    depthwise.activation_format = activation_format(formats.activation);
    if (depthwise.activation_format.vector_size != 0 || weight_format(formats.weight).vector_size != 0)
      fail(Error::backend, "depthwise convolutions must have no vectors to run natively");
    if (weight.channels != 1) fail(Error::shape, "groups must be the channels of the input in a depthwise convolution");
    depthwise.stride = (weight.outputs + kBlockElements - 1) / kBlockElements * kBlockElements;
    depthwise.multiplier = weight.outputs / weight.groups;
    depthwise.weights = elements<std::int8_t>(tensors.codes, "weight_codes");
    require_shape(tensors.codes, "weight_codes", {weight.positions, depthwise.stride});
  }
  const Format& activation() const { return is_depthwise ? depthwise.activation_format : dense.activation_format; }
  template <class Input>
  Fault run(const ConvShape& shape, const Input& input, const Outputs& outputs) const {
    return is_depthwise ? depthwise_conv2d(torch_threads(), kernels(), depthwise, shape, input, outputs)
                        : conv2d(torch_threads(), kernels(), dense, shape, input, outputs);
  }
  void run_floats(const ConvShape& shape, const void* x, DType dtype, const Outputs& outputs) const {
    if (is_depthwise)
      depthwise_weight_only(torch_threads(), kernels(), depthwise, shape, x, dtype, outputs);
    else
      weight_only(torch_threads(), kernels(), dense, shape, x, dtype, outputs);
  }
};

// Activations that stay floating point.
Tensor of_plain_floats(const Tensor& x, const ConvShape& shape, const WeightTensors& tensors,
                       const FormatArguments& formats, const EpilogueArguments& epilogue,
                       const std::optional<Tensor>& out) {
  const std::int64_t groups = shape.walk.groups, channels = shape.channels / groups;
  const ConvLayer layer(tensors, {formats.weight, kAnyActivation, 0},
                        {shape.outputs, channels, channels, shape.walk.positions(), groups});
  Results results(epilogue, {tensors.coarse, formats.weight}, result_shape(shape));
  const DType dtype = float_dtype(x, "x");
  Tensor y = results.y(out, dtype);
  layer.run_floats(shape, x.const_data_ptr(), dtype, results.outputs);
  return y;
}

Tensor of_floats(const FloatArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
                 const EpilogueArguments& epilogue, std::int64_t outputs, const WalkArguments& walk,
                 const std::optional<Tensor>& out) {
  const Tensor& x = arguments.x;
  require_shape(x, "x", {-1, -1, -1, -1});
  const std::int64_t groups = require_groups(walk.groups, x.size(3), outputs), channels = x.size(3) / groups;
  const ConvShape shape = conv_shape(x, x.size(3), outputs, walk);
  if (stays_float(formats.activation)) return of_plain_floats(x, shape, tensors, formats, epilogue, out);
  const ConvLayer layer(tensors, formats, {outputs, channels, channels, shape.walk.positions(), groups});
  const FloatInput input = float_input(arguments, layer.activation());
  if (input.how.share != Share::group) fail(Error::spec, "share must be 'group' for a convolution, not 'row'");
  Results results(epilogue, {tensors.coarse, formats.weight}, result_shape(shape));
  Tensor y = results.y(out, input.dtype);
  const Fault fault = layer.run(shape, input, results.outputs);
  const std::int64_t parts = layer.activation().vector_size == 0 ? 1 : groups;  // of a pixel, quantized each for itself
  require_none(fault, input.how.quantizer, Share::group,
               {input.data, input.dtype, shape.samples, shape.in_pixels() * parts, shape.channels / parts},
               {input.how.range, input.how.range ? 1 : 0});
  return y;
}

// A convolution whose activations come as codes, ready to run into outputs.
struct CodeLayer {
  Tensor codes;
  ConvShape shape;
  std::optional<ConvLayer> layer;
  CodeInput input;

  CodeLayer(const CodeArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
            std::int64_t outputs, const WalkArguments& walk)
      : codes(arguments.codes) {
    require_shape(codes, "codes", {-1, -1, -1, -1, -1});
    const Format format = activation_format(formats.activation);
    const std::int64_t groups = require_groups(walk.groups, walk.groups, outputs);
    const std::int64_t channels = channels_of_codes(codes, format, groups);
    shape = conv_shape(codes, channels * groups, outputs, walk);
    layer.emplace(tensors, formats, WeightShape{outputs, channels, channels - std::max(format.vector_size, 1) + 1,
                                                shape.walk.positions(), groups});
    input = code_input(arguments, format, shape.samples, 1);
    input.rows_per_coarse = std::max<std::int64_t>(1, input.rows_per_coarse * shape.in_pixels());
  }
  Fault run(const Outputs& outputs) const { return layer->run(shape, input, outputs); }
};

Tensor of_codes(const CodeArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
                const EpilogueArguments& epilogue, std::int64_t outputs, const WalkArguments& walk,
                const std::optional<Tensor>& out) {
  const CodeLayer layer(arguments, tensors, formats, outputs, walk);
  Results results(epilogue, {tensors.coarse, formats.weight}, result_shape(layer.shape));
  Tensor y = results.y(out, DType::float32);
  layer.run(results.outputs);
  return y;
}

Tensor conv2d_op(const Tensor& x, const std::optional<Tensor>& activation_range, const Tensor& weight_codes,
                 const Tensor& weight_scale, const Tensor& weight_sums, const Tensor& weight_coarse,
                 const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, std::int64_t out_features,
                 const std::string& weight_format, const std::string& activation_format, const std::string& share,
                 const std::string& scale_mode, std::int64_t product_bits, const std::string& function,
                 const Integers& kernel, const Integers& stride, const Integers& padding, const Integers& dilation,
                 std::int64_t groups) {
  return of_floats({contiguous(x), activation_range, share, scale_mode},
                   {weight_codes, weight_scale, weight_sums, weight_coarse},
                   {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                   {kernel, stride, padding, dilation, groups}, std::nullopt);
}

Tensor conv2d_out(const Tensor& x, const std::optional<Tensor>& activation_range, const Tensor& weight_codes,
                  const Tensor& weight_scale, const Tensor& weight_sums, const Tensor& weight_coarse,
                  const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, std::int64_t out_features,
                  const std::string& weight_format, const std::string& activation_format, const std::string& share,
                  const std::string& scale_mode, std::int64_t product_bits, const std::string& function,
                  const Integers& kernel, const Integers& stride, const Integers& padding, const Integers& dilation,
                  std::int64_t groups, const Tensor& out) {
  return of_floats({contiguous(x), activation_range, share, scale_mode},
                   {weight_codes, weight_scale, weight_sums, weight_coarse},
                   {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                   {kernel, stride, padding, dilation, groups}, out);
}

Tensor conv2d_codes_op(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                       const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                       const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                       const std::optional<Tensor>& residual, std::int64_t out_features,
                       const std::string& weight_format, const std::string& activation_format,
                       std::int64_t product_bits, const std::string& function, const Integers& kernel,
                       const Integers& stride, const Integers& padding, const Integers& dilation,
                       std::int64_t groups) {
  return of_codes({contiguous(codes), vector_scale, coarse_scale},
                  {weight_codes, weight_scale, weight_sums, weight_coarse},
                  {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                  {kernel, stride, padding, dilation, groups}, std::nullopt);
}

Tensor conv2d_codes_out(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                        const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                        const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                        const std::optional<Tensor>& residual, std::int64_t out_features,
                        const std::string& weight_format, const std::string& activation_format,
                        std::int64_t product_bits, const std::string& function, const Integers& kernel,
                        const Integers& stride, const Integers& padding, const Integers& dilation,
                        std::int64_t groups, const Tensor& out) {
  return of_codes({contiguous(codes), vector_scale, coarse_scale},
                  {weight_codes, weight_scale, weight_sums, weight_coarse},
                  {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                  {kernel, stride, padding, dilation, groups}, out);
}

Quantized to_codes(const CodeArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
                   const EpilogueArguments& epilogue, std::int64_t outputs, const WalkArguments& walk,
                   const RequantizeArguments& target, const Quantized* out) {
  const CodeLayer layer(arguments, tensors, formats, outputs, walk);
  Results results(epilogue, {tensors.coarse, formats.weight}, result_shape(layer.shape));
  return requantized(target, results, layer.layer->is_depthwise ? 1 : walk.groups,
                     [&](const Outputs& to) { return layer.run(to); }, out);
}

Quantized conv2d_requantize_op(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                               const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                               const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                               const std::optional<Tensor>& residual, std::int64_t out_features,
                               const std::string& weight_format, const std::string& activation_format,
                               std::int64_t product_bits, const std::string& function, const Integers& kernel,
                               const Integers& stride, const Integers& padding, const Integers& dilation,
                               std::int64_t groups, const Tensor& output_range, const std::string& output_format,
                               const std::string& scale_mode, bool keep_float) {
  return to_codes({contiguous(codes), vector_scale, coarse_scale},
                  {weight_codes, weight_scale, weight_sums, weight_coarse},
                  {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                  {kernel, stride, padding, dilation, groups},
                  {output_range, output_format, scale_mode, keep_float}, nullptr);
}

void conv2d_requantize_out(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                           const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                           const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                           const std::optional<Tensor>& residual, std::int64_t out_features,
                           const std::string& weight_format, const std::string& activation_format,
                           std::int64_t product_bits, const std::string& function, const Integers& kernel,
                           const Integers& stride, const Integers& padding, const Integers& dilation,
                           std::int64_t groups, const Tensor& output_range, const std::string& output_format,
                           const std::string& scale_mode, bool keep_float, const Tensor& out_codes,
                           const Tensor& out_vector_scale, const Tensor& out_coarse_scale, const Tensor& out_y) {
  const Quantized out{out_codes, out_vector_scale, out_coarse_scale, out_y};
  to_codes({contiguous(codes), vector_scale, coarse_scale}, {weight_codes, weight_scale, weight_sums, weight_coarse},
           {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
           {kernel, stride, padding, dilation, groups}, {output_range, output_format, scale_mode, keep_float}, &out);
}

STABLE_TORCH_LIBRARY_IMPL(vsquant, CPU, m) {
  m.impl("conv2d", TORCH_BOX(&conv2d_op));
  m.impl("conv2d.out", TORCH_BOX(&conv2d_out));
  m.impl("conv2d_codes", TORCH_BOX(&conv2d_codes_op));
  m.impl("conv2d_codes.out", TORCH_BOX(&conv2d_codes_out));
  m.impl("conv2d_requantize", TORCH_BOX(&conv2d_requantize_op));
  m.impl("conv2d_requantize.out", TORCH_BOX(&conv2d_requantize_out));
}

}  // namespace
}  // namespace vsquant::binding
