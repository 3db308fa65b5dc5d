#include "core/quantize.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/half.hpp"

namespace vsquant {
namespace {

// Elements that are widened or padded at a time, in the first cache: at least the longest vector, 1024.
constexpr std::int64_t kStage = 2048;

bool is_finite(const Extremes& e) { return std::max(e.up, e.down) < kInfinityBits; }

std::int64_t element_bytes(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

const void* at(const void* data, DType dtype, std::int64_t index) {
  return static_cast<const char*>(data) + index * element_bytes(dtype);
}
void* at(void* data, DType dtype, std::int64_t index) {
  return static_cast<char*>(data) + index * element_bytes(dtype);
}

// A positive scale as the nearest half-precision number that is not below it.
Fault round_up_to_fp16(float* scale) {
  std::uint16_t half = half_of(*scale);
  if (float_of_half(half) < *scale) ++half;
  const bool fits = *scale == 0 || fits_fp16(float_of_half(half));
  *scale = float_of_half(half);
  return fits ? Fault::none : Fault::scale_range;
}

// Eq. (4), or s of eq. (2) where there are no vectors, from the largest x and -x that share it.
Fault coarse_from(const Format& format, float up, float down, float* coarse) {
  const float largest = format.is_signed && !format.full_range ? std::max(up, down) : up;
  float step = largest / static_cast<float>(format.qmax());
  if (format.full_range) step = std::max(step, down / static_cast<float>(-format.qmin()));
  *coarse = format.scale == ScaleKind::integer ? step / static_cast<float>(format.scale_top()) : step;
  return format.coarse_fp16 ? round_up_to_fp16(coarse) : Fault::none;
}

bool single_level(const Format& format) { return format.scale == ScaleKind::fp16 || format.scale == ScaleKind::fp32; }

ElementRule element_rule(const Format& format, float coarse) {
  return {coarse > 0 ? coarse : std::numeric_limits<float>::infinity(), coarse, static_cast<float>(format.qmin()),
          static_cast<float>(format.qmax())};
}

VectorRule vector_rule(const Quantizer& quantizer, float coarse) {
  const Format& format = quantizer.format;
  VectorRule rule{};
  rule.sides = !format.is_signed ? Sides::positive : format.full_range ? Sides::both : Sides::magnitude;
  rule.scale = format.scale;
  rule.paper = quantizer.mode == ScaleMode::paper;
  rule.vector_size = format.vector_size;
  rule.qmin = static_cast<float>(format.qmin());
  rule.qmax = static_cast<float>(format.qmax());
  rule.sigma_min = static_cast<float>(format.scale_min());
  rule.sigma_top = static_cast<float>(format.scale_top());
  rule.gamma = coarse;
  return rule;
}

// The elements of rows under one coarse scale, handed to the kernels as runs of float32 that hold whole vectors.
class Rows {
 public:
  Rows(const QuantizeKernels& kernels, const Quantizer& quantizer, float coarse)
      : vector_size_(quantizer.format.vector_size),
        kernels_(vector_size_ % 16 == 0 ? kernels : scalar_quantize),
        elements_(element_rule(quantizer.format, coarse)),
        vectors_(vector_rule(quantizer, coarse)) {}

  // Whether rows are taken several at a time, each padded to whole vectors in the stage.
  bool takes_together(std::int64_t length) const { return length % unit() != 0 && padded_length(length) <= kStage; }

  bool fake(const void* x, DType dtype, std::int64_t length, void* out, Streaming stream) const {
    bool valid = true;
    std::int64_t done = 0;
    if (dtype == DType::float32) {
      done = length - length % unit();
      valid = fake_run(static_cast<const float*>(x), done, static_cast<float*>(out), stream);
    }
    alignas(64) float values[kStage], results[kStage];
    while (done < length) {
      const std::int64_t count = std::min(stage(), length - done), padded = padded_length(count);
      kernels_.to_float(dtype, at(x, dtype, done), count, values);
      std::fill(values + count, values + padded, 0.0f);
      valid &= fake_run(values, padded, results, {});
      kernels_.from_float(dtype, results, count, at(out, dtype, done));
      done += count;
    }
    return valid;
  }

  bool fake_together(const FloatRows& x, void* out) const {
    alignas(64) float values[kStage] = {}, results[kStage];
    bool valid = true;
    const std::int64_t padded = padded_length(x.length), together = kStage / padded;
    for (std::int64_t first = 0; first < x.rows; first += together) {
      const std::int64_t count = std::min(together, x.rows - first);
      stage_rows(x, first, count, values);
      valid &= fake_run(values, count * padded, results, {});
      for (std::int64_t row = 0; row < count; ++row)
        kernels_.from_float(x.dtype, results + row * padded, x.length, at(out, x.dtype, (first + row) * x.length));
    }
    return valid;
  }

  // Codes of one row from `out` on, zero up to `padded`; scales of its vectors.
  bool codes(const void* x, DType dtype, std::int64_t length, std::int64_t padded, const CodeRows& out) const {
    bool valid = true;
    std::int64_t done = 0;
    if (dtype == DType::float32) {
      done = length - length % unit();
      valid = code_run(static_cast<const float*>(x), done, out, 0);
    }
    alignas(64) float values[kStage];
    while (done < length) {
      const std::int64_t count = std::min(stage(), length - done), whole = padded_length(count);
      kernels_.to_float(dtype, at(x, dtype, done), count, values);
      std::fill(values + count, values + whole, 0.0f);
      valid &= code_run(values, whole, out, done);
      done += whole;
    }
    std::fill(out.codes + done, out.codes + padded, std::uint8_t{0});
    return valid;
  }

  bool codes_together(const FloatRows& x, const CodeRows& out) const {
    alignas(64) float values[kStage] = {};
    bool valid = true;
    const std::int64_t padded = padded_length(x.length), together = kStage / padded;
    for (std::int64_t first = 0; first < x.rows; first += together) {
      const std::int64_t count = std::min(together, x.rows - first);
      stage_rows(x, first, count, values);
      valid &= code_run(values, count * padded, out, first * padded);
    }
    return valid;
  }

 private:
  std::int64_t unit() const { return vector_size_ == 0 ? 1 : vector_size_; }
  std::int64_t stage() const { return kStage - kStage % unit(); }
  std::int64_t padded_length(std::int64_t length) const { return (length + unit() - 1) / unit() * unit(); }

  bool fake_run(const float* x, std::int64_t count, float* out, Streaming stream) const {
    if (vector_size_ == 0) return kernels_.fake_elements(elements_, x, count, out, stream.past_caches, stream.ahead);
    return kernels_.fake_vectors(vectors_, x, count / vector_size_, out, stream.past_caches, stream.ahead);
  }

  // Codes from `first` on, and the scales of their vectors.
  bool code_run(const float* x, std::int64_t count, const CodeRows& out, std::int64_t first) const {
    if (vector_size_ == 0) return kernels_.code_elements(elements_, x, count, out.codes + first);
    const std::int64_t vector = first / vector_size_;
    return kernels_.code_vectors(vectors_, x, count / vector_size_, out.codes + first,
                                 out.sigma ? out.sigma + vector : nullptr, out.steps ? out.steps + vector : nullptr);
  }

  // Rows side by side, each padded; what lies between them in the stage is zero and stays so.
  void stage_rows(const FloatRows& x, std::int64_t first, std::int64_t count, float* values) const {
    const std::int64_t padded = padded_length(x.length);
    for (std::int64_t row = 0; row < count; ++row)
      kernels_.to_float(x.dtype, at(x.data, x.dtype, (first + row) * x.stride), x.length, values + row * padded);
  }

  int vector_size_;
  const QuantizeKernels& kernels_;
  ElementRule elements_;
  VectorRule vectors_;
};

Extremes extremes_of_run(const QuantizeKernels& kernels, DType dtype, const void* x, std::int64_t count) {
  Extremes e;
  if (dtype == DType::float32) {
    kernels.extremes(static_cast<const float*>(x), count, &e);
    return e;
  }
  alignas(64) float values[kStage];
  for (std::int64_t done = 0; done < count; done += kStage) {
    const std::int64_t some = std::min(kStage, count - done);
    kernels.to_float(dtype, at(x, dtype, done), some, values);
    kernels.extremes(values, some, &e);
  }
  return e;
}

// Rows that lie without gaps and end with whole vectors are one long row.
FloatRows joined(const FloatRows& x, int vector_size) {
  const bool one = x.stride == x.length && (vector_size == 0 || x.length % vector_size == 0);
  return one ? FloatRows{x.data, x.dtype, 1, x.rows * x.length, x.rows * x.length} : x;
}

// Only a look at the elements tells which of the two faults it was.
Fault fault_of(const QuantizeKernels& kernels, const FloatRows& x) {
  return is_finite(extremes_of(kernels, x)) ? Fault::scale_range : Fault::not_finite;
}

}  // namespace

Extremes extremes_of(const QuantizeKernels& kernels, const FloatRows& rows) {
  const FloatRows x = joined(rows, 0);
  Extremes all;
  for (std::int64_t row = 0; row < x.rows; ++row) {
    const Extremes e = extremes_of_run(kernels, x.dtype, at(x.data, x.dtype, row * x.stride), x.length);
    all = {std::max(all.up, e.up), std::max(all.down, e.down)};
  }
  return all;
}

Fault coarse_of(const Format& format, const Extremes& e, const float* limit, float* coarse) {
  *coarse = 1.0f;
  if (!is_finite(e)) return Fault::not_finite;
  if (single_level(format)) return Fault::none;
  const float up = float_of(e.up), down = float_of(e.down);
  if (limit == nullptr) return coarse_from(format, up, down, coarse);
  return coarse_from(format, std::min(up, *limit), std::min(down, *limit), coarse);
}

Fault static_coarse(const Format& format, float range, float* coarse) {
  *coarse = 1.0f;
  return single_level(format) ? Fault::none : coarse_from(format, range, 0.0f, coarse);
}

Fault dynamic_coarse(const QuantizeKernels& kernels, const Format& format, const FloatRows& rows, float* coarse) {
  return coarse_of(format, extremes_of(kernels, rows), nullptr, coarse);
}

Fault quantize_rows(const QuantizeKernels& kernels, const Quantizer& quantizer, const FloatRows& rows, float coarse,
                    const CodeRows& out) {
  const Format& format = quantizer.format;
  const Rows run(kernels, quantizer, coarse);
  const FloatRows x = out.padded == rows.length ? joined(rows, format.vector_size) : rows;
  const std::int64_t padded = x.rows == rows.rows ? out.padded : rows.rows * out.padded;
  const std::int64_t vectors = format.vector_size == 0 ? 0 : padded / format.vector_size;
  const auto row_out = [&](std::int64_t row) {
    return CodeRows{out.codes + row * padded, padded, out.sigma ? out.sigma + row * vectors : nullptr,
                    out.steps ? out.steps + row * vectors : nullptr};
  };
  bool valid = true;
  if (run.takes_together(x.length))
    valid = run.codes_together(x, out);
  else
    for (std::int64_t row = 0; row < x.rows; ++row)
      valid &= run.codes(at(x.data, x.dtype, row * x.stride), x.dtype, x.length, padded, row_out(row));
  if (out.sums != nullptr)
    kernels.code_sums(out.codes, format.is_signed || format.bits < 8, rows.rows * out.padded / out.sum_elements,
                      out.sum_elements, out.sums);
  return valid ? Fault::none : fault_of(kernels, rows);
}

Fault fake_quantize_rows(const QuantizeKernels& kernels, const Quantizer& quantizer, const FloatRows& rows,
                         float coarse, void* out, Streaming stream) {
  const Rows run(kernels, quantizer, coarse);
  const FloatRows x = joined(rows, quantizer.format.vector_size);
  if (run.takes_together(x.length)) return run.fake_together(x, out) ? Fault::none : fault_of(kernels, rows);
  bool valid = true;
  for (std::int64_t row = 0; row < x.rows; ++row)
    valid &= run.fake(at(x.data, x.dtype, row * x.stride), x.dtype, x.length, at(out, x.dtype, row * x.length), stream);
  return valid ? Fault::none : fault_of(kernels, rows);
}

}  // namespace vsquant
