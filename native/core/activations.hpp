// Activations as products read them: codes padded to whole vectors, their scales, and what partial sums start from.
#pragma once

#include "core/multiply.hpp"
#include "core/scratch.hpp"

namespace vsquant {

// The activations of one call: `samples` tensors of `rows` rows, each of `length` elements in `groups` equal parts
// that are padded to whole vectors on their own.
struct ActivationShape {
  std::int64_t samples, rows, length;
  int groups;
  int vector_elements;  // V of the layer, rounded up to whole blocks
  int vector_size = 0;  // V where it is no multiple of 16: every vector is then spread to vector_elements by zeros

  std::int64_t all_rows() const { return samples * rows; }
  std::int64_t part() const { return length / groups; }
  std::int64_t vector_length() const { return vector_size != 0 ? vector_size : vector_elements; }
  std::int64_t padded_part() const {
    return (part() + vector_length() - 1) / vector_length() * vector_elements;
  }
  std::int64_t padded() const { return groups * padded_part(); }
  std::int64_t vectors() const { return padded() / vector_elements; }
};

struct Activations {
  const std::uint8_t* codes = nullptr;   // [all rows][padded]
  const std::int16_t* scales = nullptr;  // [all rows][vectors], null without integer vector scales or once folded
  const std::int32_t* starts = nullptr;  // [all rows][vectors], null where products need none; the bits of float scales
  const float* coarse = nullptr;         // one for every rows_per_coarse rows
  std::int64_t rows_per_coarse = 1;
};

// A calling thread's buffers; each call reuses them.
struct ActivationMemory {
  Scratch codes, scales, sums, coarse;
};
ActivationMemory& activation_memory();

struct ActivationQuantizer {
  Quantizer quantizer;
  Share share;
  const float* range;  // one value, or null where gamma is found in the values
};

// Eqs. (1)-(5) on floats. `sums` where the products will need starts.
Fault quantize_activations(const ThreadPool&, const Kernels&, const ActivationQuantizer&, const ActivationShape&,
                           const void* data, DType dtype, bool sums, ActivationMemory&, Activations*);

// Codes that come as they are, [all rows][length or padded]: padded, spread and summed up where products need it.
void adopt_activations(const ThreadPool&, const Kernels&, const Format&, const ActivationShape&,
                       const std::uint8_t* codes, std::int64_t given_length, bool sums, ActivationMemory&,
                       Activations*);

// Makes codes fit a multiplication: multiplies them by their scales where its plan folds activations, adds the bias
// where it is biased, and turns sums into starts where it needs them, and integer scales into float ones.
void fit_activations(const ThreadPool&, const Multiplication&, const ActivationShape&, ActivationMemory&,
                     Activations*);

}  // namespace vsquant
