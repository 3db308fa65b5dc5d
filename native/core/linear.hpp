// Linear layers: rows of floats or of codes times packed weights.
#pragma once

#include "core/activations.hpp"

namespace vsquant {

struct LinearLayer {
  Format weight_format;
  Format activation_format;
  int product_bits = 0;  // 0: eq. (8) does not round
  PackedWeight weight;
  int vector_size = 0;  // V where it is no multiple of 16, as ActivationShape has it
  // V rounded up to whole blocks, or a block without vectors.
  int vector_elements() const { return weight.blocks_per_vector * kBlockElements; }
};

// Makes every kernel position of a weight without vectors as long as vectors of activations make it, where these are
// longer than blocks: zeros, in memory that the calling thread keeps until its next call.
void pad_positions(PackedWeight*, std::int64_t panels, std::int64_t positions, std::int64_t blocks_per_position);
// The same where vectors of activations are spread: those of `size` elements lie `elements` apart.
void spread_positions(PackedWeight*, std::int64_t panels, std::int64_t positions, std::int64_t channels, int size,
                      int elements);

// Where a layer's activations come from: floats to be quantized, or codes.
struct FloatInput {
  const void* data;
  DType dtype;
  ActivationQuantizer how;
};
struct CodeInput {
  const std::uint8_t* codes;    // [all rows][length or padded]
  std::int64_t length;
  const std::int16_t* scales;   // [all rows][vectors] or null
  const float* steps;           // float vector scales, [all rows][vectors] or null
  const float* coarse;
  std::int64_t rows_per_coarse;
};

Fault linear(const ThreadPool&, const Kernels&, const LinearLayer&, const ActivationShape&, const FloatInput&, Outputs);
Fault linear(const ThreadPool&, const Kernels&, const LinearLayer&, const ActivationShape&, const CodeInput&, Outputs);

// The multiplication of a layer by its formats: shared with convolutions, which have more positions.
Multiplication multiplication_of(const Kernels&, const LinearLayer&, std::int64_t rows, int positions,
                                 std::int64_t blocks_per_position);

}  // namespace vsquant
