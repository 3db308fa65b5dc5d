// Products of two tensors of activations, group by group (heads of attention): both are quantized here, and the right
// one is packed as weights are.
#pragma once

#include "core/linear.hpp"

namespace vsquant {

struct MatmulOperand {
  const void* data;  // (groups, rows, length)
  DType dtype;
  Format format;
  Ranges ranges;
  std::int64_t rows;
};

struct Matmul {
  MatmulOperand left, right;
  Share share;
  ScaleMode mode;
  int product_bits;
  std::int64_t groups, length;
  int vector_elements;  // V of either format rounded up to whole blocks, or a block
  int vector_size;      // V where it is no multiple of 16, or 0
};

// y (groups, left.rows, right.rows) in the dtype of the left operand.
Fault matmul(const ThreadPool&, const Kernels&, const Matmul&, void* y);

}  // namespace vsquant
