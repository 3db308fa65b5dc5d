// The readable twin of core/isa/quantize*.inl, and the path of vectors whose size is no multiple of 16.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/half.hpp"
#include "core/quantize_kernels.hpp"

namespace vsquant {
namespace {

// Eq. (3). Zero has no sign, as the integer has none.
float code(float x, const ElementRule& rule) {
  return std::rint(std::min(std::max(x / rule.divisor, rule.qmin), rule.qmax)) + 0.0f;
}

void extremes(const float* x, std::int64_t count, Extremes* io) {
  for (std::int64_t i = 0; i < count; ++i) {
    io->up = std::max(io->up, bits_of(x[i]));
    io->down = std::max(io->down, bits_of(-x[i]));
  }
}

bool finite(const Extremes& e) { return std::max(e.up, e.down) < kInfinityBits; }

// Eqs. (1)-(5) of one vector: its scale as stored (sigma or s), and what its elements are divided and multiplied by.
struct Scale {
  bool valid;
  float stored;
  ElementRule rule;
};

Scale vector_scale(const VectorRule& rule, const float* x) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  Extremes e;
  extremes(x, rule.vector_size, &e);
  bool valid = finite(e);
  const float up = float_of(rule.sides == Sides::magnitude ? std::max(e.up, e.down) : e.up);
  const float down = rule.sides == Sides::both ? float_of(e.down) : 0.0f;
  float step = std::max(up / rule.qmax, rule.sides == Sides::both ? down / -rule.qmin : 0.0f);
  float stored = step, multiplier = step, divisor = step;
  if (rule.scale == ScaleKind::fp16) {
    divisor = multiplier = stored = float_of_half(half_of(step));
    valid = valid && (step == 0 || fits_fp16(stored));
  } else if (rule.scale == ScaleKind::integer) {
    const float ratio = rule.gamma > 0 ? step / rule.gamma : 0.0f;
    stored = std::rint(std::min(std::max(ratio, rule.sigma_min), rule.sigma_top));
    if (!rule.paper && (up > 0 || down > 0) && rule.gamma > 0) stored = std::max(stored, 1.0f);
    multiplier = stored * rule.gamma;
    divisor = !rule.paper ? multiplier : rule.gamma > 0 ? step : 0.0f;
  }
  return {valid, stored, {divisor > 0 ? divisor : infinity, multiplier, rule.qmin, rule.qmax}};
}

bool fake_elements(const ElementRule& rule, const float* x, std::int64_t count, float* out, bool, std::int64_t) {
  Extremes e;
  extremes(x, count, &e);
  for (std::int64_t i = 0; i < count; ++i) out[i] = code(x[i], rule) * rule.multiplier;
  return finite(e);
}

bool fake_vectors(const VectorRule& rule, const float* x, std::int64_t vectors, float* out, bool, std::int64_t) {
  bool valid = true;
  for (std::int64_t j = 0; j < vectors; ++j, x += rule.vector_size, out += rule.vector_size) {
    const Scale scale = vector_scale(rule, x);
    valid &= scale.valid;
    for (int i = 0; i < rule.vector_size; ++i) out[i] = code(x[i], scale.rule) * scale.rule.multiplier;
  }
  return valid;
}

bool code_elements(const ElementRule& rule, const float* x, std::int64_t count, std::uint8_t* codes) {
  Extremes e;
  extremes(x, count, &e);
  if (!finite(e)) return false;
  for (std::int64_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint8_t>(static_cast<int>(code(x[i], rule)));
  return true;
}

bool code_vectors(const VectorRule& rule, const float* x, std::int64_t vectors, std::uint8_t* codes,
                  std::int16_t* sigma, float* steps) {
  for (std::int64_t j = 0; j < vectors; ++j, x += rule.vector_size, codes += rule.vector_size) {
    const Scale scale = vector_scale(rule, x);
    if (!scale.valid || !code_elements(scale.rule, x, rule.vector_size, codes)) return false;
    if (rule.scale == ScaleKind::integer)
      sigma[j] = static_cast<std::int16_t>(scale.stored);
    else
      steps[j] = scale.stored;
  }
  return true;
}

void code_sums(const std::uint8_t* codes, bool is_signed, std::int64_t count, int elements, std::int32_t* sums) {
  for (std::int64_t j = 0; j < count; ++j, codes += elements) {
    sums[j] = 0;
    for (int i = 0; i < elements; ++i) sums[j] += is_signed ? static_cast<std::int8_t>(codes[i]) : codes[i];
  }
}

void to_float(DType dtype, const void* x, std::int64_t count, float* out) {
  if (count == 0) return;
  const auto* half = static_cast<const std::uint16_t*>(x);
  if (dtype == DType::float32) std::memcpy(out, x, static_cast<std::size_t>(count) * sizeof(float));
  if (dtype == DType::bfloat16)
    for (std::int64_t i = 0; i < count; ++i) out[i] = float_of_bfloat(half[i]);
  if (dtype == DType::float16)
    for (std::int64_t i = 0; i < count; ++i) out[i] = float_of_half(half[i]);
}

void from_float(DType dtype, const float* x, std::int64_t count, void* out) {
  if (count == 0) return;
  auto* half = static_cast<std::uint16_t*>(out);
  if (dtype == DType::float32) std::memcpy(out, x, static_cast<std::size_t>(count) * sizeof(float));
  if (dtype == DType::bfloat16)
    for (std::int64_t i = 0; i < count; ++i) half[i] = bfloat_of(x[i]);
  if (dtype == DType::float16)
    for (std::int64_t i = 0; i < count; ++i) half[i] = half_of(x[i]);
}

}  // namespace

const QuantizeKernels scalar_quantize{extremes,     fake_elements, fake_vectors, code_elements,
                                                 code_vectors, code_sums,     to_float,     from_float};

}  // namespace vsquant
