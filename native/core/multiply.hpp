// Rows of activation codes times packed weights, settled into outputs: eqs. (7) and (8).
#pragma once

#include "core/plan.hpp"
#include "core/settle.hpp"
#include "core/threads.hpp"

namespace vsquant {

// The rows of activations a product reads. `positions` is 1 for a linear layer and R*S for a convolution, whose output
// rows each read R*S positions of the input; implementations fill pointers [position][row] as RowTile has them.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
                     const std::int16_t** scales) const = 0;
};

struct Multiplication {
  const Kernels* kernels;
  ProductPlan plan;
  PackedWeight weight;                 // of one group
  std::int64_t rows;
  int positions;
  std::int64_t blocks_per_position;
  bool codes_signed;
  bool scaled;                         // activations have vector scales that the tiles must multiply by
  bool float_scaled = false;           // either operand's vector scales are floats: core/scaled.hpp
  bool biased = false;                 // signed codes were made unsigned: 128 is added to each
  float power = 1;                     // 2^d

  bool runs_few() const { return plan.few && codes_signed && rows <= kernels->few_rows; }
  // Folds weights while it multiplies, for rows too few to pay for unpacked panels.
  bool runs_folded_few() const;
  // What RowSource's starts must be: minus this times the sum of a vector's codes. 0: starts are not read.
  int start_bias() const;
};

// Fault::not_finite where an output that must be requantized is not finite.
Fault multiply(const ThreadPool&, const Multiplication&, const RowSource&, const Outputs&);

}  // namespace vsquant
