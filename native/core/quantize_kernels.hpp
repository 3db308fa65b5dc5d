// What an instruction set implements for quantization: a table that its `Kernels` holds as `quantize`.
#pragma once

#include <cstdint>

#include "core/format.hpp"

namespace vsquant {

// The bits of the largest x and of the largest -x of some floats, zero if there is none above zero. Bits of floats that
// are not negative order as the floats do, and those of Inf and NaN stand above all others.
struct Extremes {
  std::int32_t up = 0;
  std::int32_t down = 0;
};

// Which elements set a vector's scale: the largest |x|; the largest x (unsigned codes); each sign by its own largest
// code (-full).
enum class Sides : std::uint8_t { magnitude, positive, both };

// Eq. (3) for elements under one scale.
struct ElementRule {
  float divisor;     // > 0; Inf makes every code zero
  float multiplier;
  float qmin, qmax;
};

// Eqs. (1)-(6) for vectors that share gamma.
struct VectorRule {
  Sides sides;
  ScaleKind scale;         // not none
  bool paper;              // keep the codes of the float step
  int vector_size;
  float qmin, qmax;
  float sigma_min, sigma_top;
  float gamma;             // 0 makes every code zero
};

// The scalar table takes vectors of any size, the others of multiples of 16.
struct QuantizeKernels {
  void (*extremes)(const float* x, std::int64_t count, Extremes*);  // of x and of what *Extremes already holds

  // x^ of elements and of whole vectors; false where an element is not finite or a scale does not fit fp16, and then
  // the output holds anything. `stream` writes past the caches; `out` is then aligned to 64 bytes. `ahead`: the elements
  // that far behind those at work are fetched into the cache meanwhile; 0: none.
  bool (*fake_elements)(const ElementRule&, const float* x, std::int64_t count, float* out, bool stream,
                        std::int64_t ahead);
  bool (*fake_vectors)(const VectorRule&, const float* x, std::int64_t vectors, float* out, bool stream,
                       std::int64_t ahead);

  // Codes, and the vectors' scales: sigma (integer scales) or steps (fp16, fp32).
  bool (*code_elements)(const ElementRule&, const float* x, std::int64_t count, std::uint8_t* codes);
  bool (*code_vectors)(const VectorRule&, const float* x, std::int64_t vectors, std::uint8_t* codes,
                       std::int16_t* sigma, float* steps);
  // sums[i] = sum of `elements` codes from codes[i * elements] on; elements is a multiple of 16.
  void (*code_sums)(const std::uint8_t* codes, bool is_signed, std::int64_t count, int elements, std::int32_t* sums);

  void (*to_float)(DType, const void* x, std::int64_t count, float* out);
  void (*from_float)(DType, const float* x, std::int64_t count, void* out);  // to nearest even
};

extern const QuantizeKernels scalar_quantize;

}  // namespace vsquant
