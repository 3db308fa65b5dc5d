// What is said of a tensor that cannot be quantized: slow, element by element, and in the words of the eager kernels.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/half.hpp"
#include "core/quantize.hpp"

namespace vsquant {
namespace {

float element(const FloatTensor& x, std::int64_t index) {
  float value;
  const std::int64_t bytes = x.dtype == DType::float32 ? 4 : 2;
  scalar_quantize.to_float(x.dtype, static_cast<const char*>(x.data) + index * bytes, 1, &value);
  return value;
}

Refusal not_finite(const FloatTensor& x) {
  bool nan = false, infinite = false;
  for (std::int64_t i = 0; i < x.groups * x.rows * x.length; ++i) {
    const float value = element(x, i);
    nan |= std::isnan(value);
    infinite |= std::isinf(value);
  }
  if (!nan && !infinite) return {Fault::none, ""};
  return {Fault::not_finite,
          std::string("a tensor must be finite to be quantized, but it holds ") + (nan ? "NaN" : "Inf")};
}

Extremes extremes_of(const FloatTensor& x, std::int64_t first, std::int64_t count) {
  Extremes e;
  for (std::int64_t i = first; i < first + count; ++i) {
    const float value = element(x, i);
    scalar_quantize.extremes(&value, 1, &e);
  }
  return e;
}

Refusal scale_range(float scale, std::int64_t channel) {
  char text[160];
  std::snprintf(text, sizeof text,
                "a scale kept as fp16 must lie between 2^-14 and 65504, not %.3g (channel %lld); "
                "use fp32 scales or integer scales for this layer",
                static_cast<double>(scale), static_cast<long long>(channel));
  return {Fault::scale_range, text};
}

}  // namespace

Refusal refusal(const Quantizer& quantizer, Share share, const FloatTensor& x, const Ranges& ranges) {
  const Refusal wrong = not_finite(x);
  if (wrong.fault != Fault::none) return wrong;
  Format format = quantizer.format;
  format.coarse_fp16 = false;  // to be told the scale before it is rounded
  const bool by_vector = format.scale == ScaleKind::fp16, by_row = has_coarse_per_row(format, share, ranges);
  const std::int64_t row_steps = by_vector ? (x.length + format.vector_size - 1) / format.vector_size : 1;
  const std::int64_t steps = by_vector ? x.rows * row_steps : by_row ? x.rows : 1;
  if (by_vector) format.scale = ScaleKind::none;
  for (std::int64_t group = 0; group < x.groups; ++group)
    for (std::int64_t step = 0; step < steps; ++step) {
      const std::int64_t start = group * x.rows * x.length, inner = step % row_steps * format.vector_size;
      const Extremes e =
          by_vector ? extremes_of(x, start + step / row_steps * x.length + inner,
                                  std::min<std::int64_t>(format.vector_size, x.length - inner))
          : by_row  ? extremes_of(x, start + step * x.length, x.length)
                    : extremes_of(x, start, x.rows * x.length);
      const float* range = by_vector ? nullptr : ranges.of(group);
      float scale;
      if (range != nullptr && !(format.scale == ScaleKind::none && format.full_range))
        static_coarse(format, *range, &scale);
      else
        coarse_of(format, e, range, &scale);
      const float nearest = float_of_half(half_of(scale));
      const float above = nearest < scale ? float_of_half(half_of(scale) + 1) : nearest;
      if (scale > 0 && !fits_fp16(by_vector ? nearest : above)) return scale_range(scale, group);
    }
  return {Fault::none, ""};
}

}  // namespace vsquant
