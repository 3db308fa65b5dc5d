// Outputs of integer layers: the epilogue's arguments, memory for floats, and codes of the next layer.
#include "core/dispatch.hpp"
#include "torch/layers.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

Function parse_function(const std::string& text) {
  if (text == "none") return Function::none;
  if (text == "relu") return Function::relu;
  if (text == "relu6") return Function::relu6;
  if (text == "gelu") return Function::gelu;
  fail(Error::spec, "function must be 'none', 'relu', 'relu6' or 'gelu', not '" + text + "'");
}

// Whether tiles can requantize: every chunk of channels must hold whole vectors.
bool fuses(const Format& format, const Kernels& kernels, std::int64_t channels, std::int64_t groups) {
  if (format.scale == ScaleKind::fp16 || format.scale == ScaleKind::fp32 || format.full_range) return false;
  const std::int64_t unit = format.vector_size == 0 ? 1 : format.vector_size;
  const bool whole_chunks = kernels.tile_panels * kPanelChannels % unit == 0 &&
                            scalar_kernels()->tile_panels * kPanelChannels % unit == 0;
  const std::int64_t part = channels / groups;
  return whole_chunks && unit % (unit == 1 ? 1 : kBlockElements) == 0 &&
         (groups == 1 || (part % kPanelChannels == 0 && part % unit == 0));
}

}  // namespace

Results::Results(const EpilogueArguments& arguments, const WeightCoarse& coarse, const Shape& of) : shape(of) {
  const std::int64_t channels = shape.channels();
  if (is_float(parse_format(coarse.format).scale)) {
    ones.assign(static_cast<std::size_t>(channels), 1.0f);
    outputs.weight_coarse = ones.data();
  } else {
    outputs.weight_coarse = elements<float>(coarse.values, "weight_coarse");
    require_shape(coarse.values, "weight_coarse", {channels});
  }
  if (arguments.bias.has_value()) {
    outputs.bias = elements<float>(*arguments.bias, "bias");
    require_shape(*arguments.bias, "bias", {channels});
  }
  if (arguments.residual.has_value()) {
    require_shape(*arguments.residual, "residual", shape);
    residual = contiguous(*arguments.residual);
    outputs.residual = residual->const_data_ptr();
    outputs.residual_dtype = float_dtype(*residual, "residual");
  }
  outputs.function = parse_function(arguments.function);
  outputs.stride = channels;
}

Tensor result(const std::optional<Tensor>& given, const Shape& shape, DType dtype) {
  return result(given.has_value() ? &*given : nullptr, "out", shape, scalar_type(dtype));
}

Tensor result(const Tensor* given, const char* name, const Shape& shape, ScalarType dtype) {
  if (given == nullptr) return empty(shape, dtype);
  require_dtype(*given, name, dtype);
  require_shape(*given, name, shape);
  require_contiguous(*given, name);
  return *given;
}

Tensor Results::y(const std::optional<Tensor>& given, DType dtype) {
  Tensor y = result(given, shape, dtype);
  write_to(&y, dtype);
  return y;
}

void Results::write_to(Tensor* y, DType dtype) {
  outputs.dtype = dtype;
  outputs.y = y->mutable_data_ptr();
}

Quantized requantized(const RequantizeArguments& arguments, Results& results, std::int64_t groups,
                      const RunLayer& run, const Quantized* given) {
  const Quantizer quantizer{parse_format(arguments.format), parse_scale_mode(arguments.scale_mode)};
  const Format& format = quantizer.format;
  const Shape& shape = results.shape;
  const Ranges ranges{elements<float>(arguments.range, "output_range"), 1};
  require_shape(arguments.range, "output_range", {1});
  const std::int64_t size = format.vector_size == 0 ? shape.channels() : format.vector_size;
  const std::int64_t vectors = size == 0 ? 0 : (shape.channels() + size - 1) / size;
  const bool two_level = format.scale == ScaleKind::integer, one_level = !two_level && format.vector_size != 0;
  Tensor codes = result(given ? &std::get<0>(*given) : nullptr, "out_codes", shape.lead_and({vectors, size}),
                        format.qmax() > 127 ? ScalarType::Byte : ScalarType::Char);
  Tensor scale = result(given ? &std::get<1>(*given) : nullptr, "out_vector_scale",
                        format.vector_size == 0 ? Shape{0} : shape.lead_and({vectors}),
                        two_level || format.vector_size == 0 ? ScalarType::Short : ScalarType::Float);
  Tensor coarse = result(given && !one_level ? &std::get<2>(*given) : nullptr, "out_coarse_scale",
                         Shape{shape.samples(), 1}, ScalarType::Float);
  if (given) require_shape(std::get<3>(*given), "out_y", arguments.keep_float ? shape : Shape{0});
  CodeRows out{static_cast<std::uint8_t*>(codes.mutable_data_ptr()), vectors * size};
  if (two_level) out.sigma = static_cast<std::int16_t*>(scale.mutable_data_ptr());
  if (one_level) out.steps = static_cast<float*>(scale.mutable_data_ptr());
  auto* gamma = static_cast<float*>(coarse.mutable_data_ptr());

  const bool fused = fuses(format, kernels(), shape.channels(), groups);
  Tensor y = given && arguments.keep_float ? result(&std::get<3>(*given), "out_y", shape, ScalarType::Float)
             : arguments.keep_float || !fused ? empty(shape, ScalarType::Float)
                                              : none();
  if (arguments.keep_float || !fused) results.write_to(&y, DType::float32);
  const auto floats = [&] { return FloatTensor{y.const_data_ptr(), DType::float32, shape.samples(), shape.rows(), shape.channels()}; };
  Fault fault;
  if (fused) {
    Outputs outputs = results.outputs;
    static_coarse(format, *ranges.data, &outputs.requantized_coarse);
    std::fill_n(gamma, shape.samples(), outputs.requantized_coarse);
    outputs.requantizer = &quantizer;
    outputs.codes = out;
    fault = run(outputs);
    if (fault != Fault::none && !arguments.keep_float) {  // the floats tell what was wrong
      y = results.y(std::nullopt, DType::float32);
      run(results.outputs);
    }
  } else {
    run(results.outputs);
    fault = quantize(kernels().quantize, torch_threads(), quantizer, Share::group, floats(), ranges, out, gamma);
  }
  require_none(fault, quantizer, Share::group, floats(), ranges);
  return {codes, scale, one_level ? none() : coarse, arguments.keep_float ? y : none()};
}

}  // namespace vsquant::binding
