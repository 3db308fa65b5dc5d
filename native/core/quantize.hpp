// Eqs. (1)-(6) of the definition (docs/learn/definition.md) on rows of floats: to codes and scales, or to x^.
#pragma once

#include <cstdint>
#include <string>

#include "core/format.hpp"
#include "core/quantize_kernels.hpp"

namespace vsquant {

// How one tensor is quantized.
struct Quantizer {
  Format format;
  ScaleMode mode = ScaleMode::requantize;
};

// `rows` rows of `length` elements whose first elements are `stride` elements apart.
struct FloatRows {
  const void* data;
  DType dtype;
  std::int64_t rows;
  std::int64_t length;
  std::int64_t stride;
};

// Where the codes of rows go: row after row, every row `padded` codes long and zero beyond its length. `padded` is a
// multiple of the vector size and of `sum_elements`; int8, or uint8 where codes are 8-bit unsigned.
struct CodeRows {
  std::uint8_t* codes;
  std::int64_t padded;
  std::int16_t* sigma = nullptr;  // [rows][padded / V]; formats with integer vector scales
  float* steps = nullptr;         // [rows][padded / V]; formats with fp16 or fp32 vector scales
  std::int32_t* sums = nullptr;   // [rows][padded / sum_elements]: sums of that many codes; null: not wanted
  int sum_elements = 16;          // a multiple of 16
};

// Why something could not be quantized; error_text() puts it in words.
enum class Fault : std::uint8_t { none, not_finite, scale_range };

// gamma of eq. (4), or s of eq. (2) where there are no vectors, from a calibrated range or from the largest elements.
// Single-level formats have none: their coarse scale is passed as 1. Faults: scale_range under -g16; and from data
// that is not finite.
Fault static_coarse(const Format&, float range, float* coarse);
Fault dynamic_coarse(const QuantizeKernels&, const Format&, const FloatRows&, float* coarse);

// Codes and scales of rows that share one coarse scale. Allocates nothing once a thread has warmed up.
Fault quantize_rows(const QuantizeKernels&, const Quantizer&, const FloatRows&, float coarse, const CodeRows&);

// The same for one row of float32, as the epilogue of a layer calls it: y becomes the next layer's codes.
inline Fault requantize_row(const QuantizeKernels& kernels, const Quantizer& quantizer, const float* y,
                            std::int64_t channels, float coarse, const CodeRows& out) {
  return quantize_rows(kernels, quantizer, {y, DType::float32, 1, channels, channels}, coarse, out);
}

// The message of a fault that quantizing `groups` tensors of `rows` met, "NonFiniteError: ..." or "ScaleRangeError: ...":
// Python raises the error of that name.
std::string error_text(Fault, const Quantizer&, const FloatRows& rows, std::int64_t groups);

}  // namespace vsquant
