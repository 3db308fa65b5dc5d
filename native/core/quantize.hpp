// Eqs. (1)-(6) of the definition (docs/learn/definition.md) on rows of floats: to codes and scales, or to x^.
#pragma once

#include <cstdint>
#include <string>

#include "core/format.hpp"
#include "core/quantize_kernels.hpp"
#include "core/threads.hpp"

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

// Where the codes of rows go, int8, or uint8 where they are 8-bit unsigned: row after row, every row `padded` codes long
// and zero beyond its length. `padded` is the length rounded up to whole vectors; without vectors as much as is asked.
struct CodeRows {
  std::uint8_t* codes;
  std::int64_t padded;
  std::int16_t* sigma = nullptr;  // [rows][padded / V]; formats with integer vector scales
  float* steps = nullptr;         // [rows][padded / V]; formats with fp16 or fp32 vector scales
  std::int32_t* sums = nullptr;   // [rows][padded / sum_elements]: sums of that many codes; null: not wanted
  int sum_elements = 16;          // a multiple of 16
};

enum class Fault : std::uint8_t { none, not_finite, scale_range };

// gamma of eq. (4), or s of eq. (2) where there are no vectors, from a calibrated range A, and from the elements
// themselves; 1 for single-level formats, which have none. Faults: scale_range under -g16; elements not finite.
Fault static_coarse(const Format&, float range, float* coarse);
Fault dynamic_coarse(const QuantizeKernels&, const Format&, const FloatRows&, float* coarse);
// The two steps of dynamic_coarse. Where the elements are clipped to `limit` first, it is not null: a calibrated range
// under -full without vectors.
Extremes extremes_of(const QuantizeKernels&, const FloatRows&);
Fault coarse_of(const Format&, const Extremes&, const float* limit, float* coarse);

// Codes and scales of rows that share one coarse scale. Uses the stack alone; calls may run at once.
Fault quantize_rows(const QuantizeKernels&, const Quantizer&, const FloatRows&, float coarse, const CodeRows&);

// The same for one row of float32, as the epilogue of a layer calls it: y becomes the next layer's codes.
inline Fault requantize_row(const QuantizeKernels& kernels, const Quantizer& quantizer, const float* y,
                            std::int64_t channels, float coarse, const CodeRows& out) {
  return quantize_rows(kernels, quantizer, {y, DType::float32, 1, channels, channels}, coarse, out);
}

// How float32 results pass the caches.
struct Streaming {
  bool past_caches = false;  // written past them; the results are then aligned to 64 bytes
  std::int64_t ahead = 0;    // the elements that far behind those at work are fetched meanwhile
};

// x^ of rows that share one coarse scale, in the dtype of the rows; `out` is contiguous.
Fault fake_quantize_rows(const QuantizeKernels&, const Quantizer&, const FloatRows&, float coarse, void* out,
                         Streaming);

// ---- whole tensors (groups, rows, length), contiguous

struct FloatTensor {
  const void* data;
  DType dtype;
  std::int64_t groups;
  std::int64_t rows;
  std::int64_t length;
};

// Calibrated ranges A: none (gamma is found from the elements), one, or one per group.
struct Ranges {
  const float* data = nullptr;
  std::int64_t count = 0;
  const float* of(std::int64_t group) const {
    return count == 0 ? nullptr : data + (count == 1 ? 0 : group);
  }
};

Fault fake_quantize(const QuantizeKernels&, const ThreadPool&, const Quantizer&, Share, const FloatTensor&,
                    const Ranges&, void* out);
// Codes and scales, rows padded to whole vectors; no sums. `coarse` has an element per group, or per row where
// has_coarse_per_row(); 1 for single-level formats.
bool has_coarse_per_row(const Format&, Share, const Ranges&);
Fault quantize(const QuantizeKernels&, const ThreadPool&, const Quantizer&, Share, const FloatTensor&, const Ranges&,
               const CodeRows&, float* coarse);

// What was wrong with a tensor that met a fault, in the words of the eager kernels; looked for anew, element by element.
struct Refusal {
  Fault fault;
  std::string text;
};
Refusal refusal(const Quantizer&, Share, const FloatTensor&, const Ranges&);

}  // namespace vsquant
