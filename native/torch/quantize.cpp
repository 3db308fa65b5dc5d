// vsquant::fake_quantize and vsquant::quantize on the CPU.
#include "core/quantize.hpp"

#include <algorithm>
#include <tuple>

#include "core/dispatch.hpp"
#include "torch/tensors.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

// The arguments that both operators share, checked. `x` keeps a contiguous copy alive.
struct Request {
  Quantizer quantizer;
  Share share;
  Tensor x;
  FloatTensor tensor;
  Ranges ranges;
};

Ranges ranges_of(const std::optional<Tensor>& coarse_range, std::int64_t groups) {
  if (!coarse_range.has_value()) return {};
  const auto shape = coarse_range->sizes();
  if (shape.size() != 1 || (shape[0] != 1 && shape[0] != groups))
    fail(Error::shape, "coarse_range must be one value or one per group (" + std::to_string(groups) +
                           "), not of shape " + shape_text(*coarse_range));
  return {elements<float>(*coarse_range, "coarse_range"), shape[0]};
}

Request request(const Tensor& x, const std::optional<Tensor>& coarse_range, const std::string& format,
                const std::string& share, const std::string& scale_mode) {
  const DType dtype = float_dtype(x, "x");
  if (x.dim() != 3) fail(Error::shape, "x must be (groups, rows, length), not of shape " + shape_text(x));
  const Quantizer quantizer{parse_format(format), parse_scale_mode(scale_mode)};
  if (quantizer.mode == ScaleMode::paper && quantizer.format.scale_top_pow2)
    fail(Error::spec, "scale_mode 'paper' must not be combined with -top (its scales start at 1); use 'requantize'");
  const Tensor input = contiguous(x);
  return {quantizer, parse_share(share), input,
          FloatTensor{input.const_data_ptr(), dtype, x.size(0), x.size(1), x.size(2)},
          ranges_of(coarse_range, x.size(0))};
}

void require_none(Fault fault, const Request& r) {
  if (fault == Fault::none) return;
  const Refusal why = refusal(r.quantizer, r.share, r.tensor, r.ranges);
  fail(why.fault == Fault::not_finite ? Error::non_finite : Error::scale_range, why.text);
}

void fill(const Request& r, void* out) {
  require_none(
      fake_quantize(kernels().quantize, torch_threads(), r.quantizer, r.share, r.tensor, r.ranges, out), r);
}

Tensor fake_quantize_op(const Tensor& x, const std::optional<Tensor>& coarse_range, const std::string& format,
                        const std::string& share, const std::string& scale_mode) {
  const Request r = request(x, coarse_range, format, share, scale_mode);
  Tensor out = empty({x.size(0), x.size(1), x.size(2)}, scalar_type(r.tensor.dtype));
  fill(r, out.mutable_data_ptr());
  return out;
}

void fake_quantize_out(const Tensor& x, const std::optional<Tensor>& coarse_range, const std::string& format,
                       const std::string& share, const std::string& scale_mode, const Tensor& out) {
  const Request r = request(x, coarse_range, format, share, scale_mode);
  require_dtype(out, "out", scalar_type(r.tensor.dtype));
  require_shape(out, "out", {x.size(0), x.size(1), x.size(2)});
  require_contiguous(out, "out");
  fill(r, out.mutable_data_ptr());
}

using Quantized = std::tuple<Tensor, Tensor, Tensor>;

// Memory for one result: `given` once it is checked, or a new tensor.
Tensor memory(const Tensor* given, const char* name, std::initializer_list<std::int64_t> shape, ScalarType dtype) {
  if (given == nullptr) return empty(shape, dtype);
  require_dtype(*given, name, dtype);
  require_shape(*given, name, shape);
  require_contiguous(*given, name);
  return *given;
}

Quantized quantized(const Request& r, const Quantized* given) {
  const Format& f = r.quantizer.format;
  const FloatTensor& t = r.tensor;
  const std::int64_t size = f.vector_size == 0 ? t.length : f.vector_size;
  const std::int64_t vectors = size == 0 ? 0 : (t.length + size - 1) / size;
  const bool two_level = f.scale == ScaleKind::integer, one_level = is_float(f.scale);
  const std::int64_t scopes = has_coarse_per_row(f, r.share, r.ranges) ? t.rows : 1;
  const Tensor* scale = given ? &std::get<1>(*given) : nullptr;

  Tensor codes = memory(given ? &std::get<0>(*given) : nullptr, "out_codes", {t.groups, t.rows, vectors, size},
                        f.qmax() > 127 ? ScalarType::Byte : ScalarType::Char);
  Tensor vector_scale = two_level || one_level ? memory(scale, "out_vector_scale", {t.groups, t.rows, vectors},
                                                        two_level ? ScalarType::Short : ScalarType::Float)
                                               : memory(scale, "out_vector_scale", {0}, ScalarType::Float);
  Tensor coarse = memory(given && !one_level ? &std::get<2>(*given) : nullptr, "out_coarse_scale", {t.groups, scopes},
                         ScalarType::Float);
  if (given && one_level) require_shape(std::get<2>(*given), "out_coarse_scale", {0});
  CodeRows out{static_cast<std::uint8_t*>(codes.mutable_data_ptr()), vectors * size};
  if (two_level) out.sigma = static_cast<std::int16_t*>(vector_scale.mutable_data_ptr());
  if (one_level) out.steps = static_cast<float*>(vector_scale.mutable_data_ptr());
  require_none(quantize(kernels().quantize, torch_threads(), r.quantizer, r.share, r.tensor, r.ranges, out,
                        static_cast<float*>(coarse.mutable_data_ptr())),
               r);
  return {codes, vector_scale, one_level ? none() : coarse};
}

Quantized quantize_op(const Tensor& x, const std::optional<Tensor>& coarse_range, const std::string& format,
                      const std::string& share, const std::string& scale_mode) {
  return quantized(request(x, coarse_range, format, share, scale_mode), nullptr);
}

void quantize_out(const Tensor& x, const std::optional<Tensor>& coarse_range, const std::string& format,
                  const std::string& share, const std::string& scale_mode, const Tensor& out_codes,
                  const Tensor& out_vector_scale, const Tensor& out_coarse_scale) {
  const Quantized out{out_codes, out_vector_scale, out_coarse_scale};
  quantized(request(x, coarse_range, format, share, scale_mode), &out);
}

STABLE_TORCH_LIBRARY_IMPL(vsquant, CPU, m) {
  m.impl("fake_quantize", TORCH_BOX(&fake_quantize_op));
  m.impl("fake_quantize.out", TORCH_BOX(&fake_quantize_out));
  m.impl("quantize", TORCH_BOX(&quantize_op));
  m.impl("quantize.out", TORCH_BOX(&quantize_out));
}

}  // namespace
}  // namespace vsquant::binding
