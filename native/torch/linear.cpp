// vsquant::linear, linear_codes and linear_requantize on the CPU.
#include "core/linear.hpp"

#include <algorithm>

#include "core/dispatch.hpp"
#include "core/weight_only.hpp"
#include "torch/layers.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

// Activations that stay floating point.
Tensor of_plain_floats(const Tensor& x, const WeightTensors& tensors, const FormatArguments& formats,
                       const EpilogueArguments& epilogue, std::int64_t outputs, const std::optional<Tensor>& out) {
  const LinearLayer layer =
      layer_of(tensors, {formats.weight, kAnyActivation, 0}, {outputs, x.size(2), x.size(2)});
  Results results(epilogue, {tensors.coarse, formats.weight}, {x.size(0), x.size(1), outputs});
  const DType dtype = float_dtype(x, "x");
  Tensor y = results.y(out, dtype);
  weight_only(torch_threads(), kernels(), layer, linear_shape(x.size(0) * x.size(1), x.size(2), outputs),
              x.const_data_ptr(), dtype, results.outputs);
  return y;
}

Tensor of_floats(const FloatArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
                 const EpilogueArguments& epilogue, std::int64_t outputs, const std::optional<Tensor>& out) {
  const Tensor& x = arguments.x;
  require_shape(x, "x", {-1, -1, -1});
  if (stays_float(formats.activation)) return of_plain_floats(x, tensors, formats, epilogue, outputs, out);
  const LinearLayer layer = layer_of(tensors, formats, {outputs, x.size(2), x.size(2)});
  const ActivationShape rows{x.size(0), x.size(1), x.size(2), 1, layer.vector_elements(), layer.vector_size};
  const FloatInput input = float_input(arguments, layer.activation_format);
  Results results(epilogue, {tensors.coarse, formats.weight}, {rows.samples, rows.rows, outputs});
  Tensor y = results.y(out, input.dtype);
  const Fault fault = linear(torch_threads(), kernels(), layer, rows, input, results.outputs);
  require_none(fault, input.how.quantizer, input.how.share,
               {input.data, input.dtype, rows.samples, rows.rows, rows.length}, {input.how.range, input.how.range ? 1 : 0});
  return y;
}

// A layer whose activations come as codes, ready to run into outputs.
struct CodeLayer {
  Tensor codes;
  ActivationShape rows;
  LinearLayer layer;
  CodeInput input;

  CodeLayer(const CodeArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
            std::int64_t outputs)
      : codes(arguments.codes) {
    require_shape(codes, "codes", {-1, -1, -1, -1});
    const Format format = activation_format(formats.activation);
    const std::int64_t channels = channels_of_codes(codes, format, 1);
    layer = layer_of(tensors, formats, {outputs, channels, channels - std::max(format.vector_size, 1) + 1});
    rows = {codes.size(0), codes.size(1), channels, 1, layer.vector_elements(), layer.vector_size};
    input = code_input(arguments, format, rows.samples, rows.rows);
  }
  Fault run(const Outputs& outputs) const { return linear(torch_threads(), kernels(), layer, rows, input, outputs); }
};

Tensor linear_op(const Tensor& x, const std::optional<Tensor>& activation_range, const Tensor& weight_codes,
                 const Tensor& weight_scale, const Tensor& weight_sums, const Tensor& weight_coarse,
                 const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, std::int64_t out_features,
                 const std::string& weight_format, const std::string& activation_format, const std::string& share,
                 const std::string& scale_mode, std::int64_t product_bits, const std::string& function) {
  return of_floats({contiguous(x), activation_range, share, scale_mode},
                   {weight_codes, weight_scale, weight_sums, weight_coarse},
                   {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                   std::nullopt);
}

Tensor linear_out(const Tensor& x, const std::optional<Tensor>& activation_range, const Tensor& weight_codes,
                  const Tensor& weight_scale, const Tensor& weight_sums, const Tensor& weight_coarse,
                  const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, std::int64_t out_features,
                  const std::string& weight_format, const std::string& activation_format, const std::string& share,
                  const std::string& scale_mode, std::int64_t product_bits, const std::string& function,
                  const Tensor& out) {
  return of_floats({contiguous(x), activation_range, share, scale_mode},
                   {weight_codes, weight_scale, weight_sums, weight_coarse},
                   {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features, out);
}

Tensor of_codes(const CodeArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
                const EpilogueArguments& epilogue, std::int64_t outputs, const std::optional<Tensor>& out) {
  const CodeLayer layer(arguments, tensors, formats, outputs);
  Results results(epilogue, {tensors.coarse, formats.weight}, {layer.rows.samples, layer.rows.rows, outputs});
  Tensor y = results.y(out, DType::float32);
  layer.run(results.outputs);
  return y;
}

Tensor linear_codes_op(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                       const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                       const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                       const std::optional<Tensor>& residual, std::int64_t out_features,
                       const std::string& weight_format, const std::string& activation_format,
                       std::int64_t product_bits, const std::string& function) {
  return of_codes({contiguous(codes), vector_scale, coarse_scale},
                  {weight_codes, weight_scale, weight_sums, weight_coarse},
                  {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                  std::nullopt);
}

Tensor linear_codes_out(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                        const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                        const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                        const std::optional<Tensor>& residual, std::int64_t out_features,
                        const std::string& weight_format, const std::string& activation_format,
                        std::int64_t product_bits, const std::string& function, const Tensor& out) {
  return of_codes({contiguous(codes), vector_scale, coarse_scale},
                  {weight_codes, weight_scale, weight_sums, weight_coarse},
                  {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features, out);
}

Quantized to_codes(const CodeArguments& arguments, const WeightTensors& tensors, const FormatArguments& formats,
                   const EpilogueArguments& epilogue, std::int64_t outputs, const RequantizeArguments& target,
                   const Quantized* out) {
  const CodeLayer layer(arguments, tensors, formats, outputs);
  Results results(epilogue, {tensors.coarse, formats.weight}, {layer.rows.samples, layer.rows.rows, outputs});
  return requantized(target, results, 1, [&](const Outputs& to) { return layer.run(to); }, out);
}

Quantized linear_requantize_op(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                               const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                               const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                               const std::optional<Tensor>& residual, std::int64_t out_features,
                               const std::string& weight_format, const std::string& activation_format,
                               std::int64_t product_bits, const std::string& function, const Tensor& output_range,
                               const std::string& output_format, const std::string& scale_mode, bool keep_float) {
  return to_codes({contiguous(codes), vector_scale, coarse_scale},
                  {weight_codes, weight_scale, weight_sums, weight_coarse},
                  {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
                  {output_range, output_format, scale_mode, keep_float}, nullptr);
}

void linear_requantize_out(const Tensor& codes, const Tensor& vector_scale, const Tensor& coarse_scale,
                           const Tensor& weight_codes, const Tensor& weight_scale, const Tensor& weight_sums,
                           const Tensor& weight_coarse, const std::optional<Tensor>& bias,
                           const std::optional<Tensor>& residual, std::int64_t out_features,
                           const std::string& weight_format, const std::string& activation_format,
                           std::int64_t product_bits, const std::string& function, const Tensor& output_range,
                           const std::string& output_format, const std::string& scale_mode, bool keep_float,
                           const Tensor& out_codes, const Tensor& out_vector_scale, const Tensor& out_coarse_scale,
                           const Tensor& out_y) {
  const Quantized out{out_codes, out_vector_scale, out_coarse_scale, out_y};
  to_codes({contiguous(codes), vector_scale, coarse_scale}, {weight_codes, weight_scale, weight_sums, weight_coarse},
           {weight_format, activation_format, product_bits}, {bias, residual, function}, out_features,
           {output_range, output_format, scale_mode, keep_float}, &out);
}

STABLE_TORCH_LIBRARY_IMPL(vsquant, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear_op));
  m.impl("linear.out", TORCH_BOX(&linear_out));
  m.impl("linear_codes", TORCH_BOX(&linear_codes_op));
  m.impl("linear_codes.out", TORCH_BOX(&linear_codes_out));
  m.impl("linear_requantize", TORCH_BOX(&linear_requantize_op));
  m.impl("linear_requantize.out", TORCH_BOX(&linear_requantize_out));
}

}  // namespace
}  // namespace vsquant::binding
