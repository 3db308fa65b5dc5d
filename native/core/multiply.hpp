// Rows of activation codes times packed weights, settled into outputs: eqs. (7) and (8).
#pragma once

#include "core/epilogue.hpp"
#include "core/plan.hpp"
#include "core/quantize.hpp"
#include "core/threads.hpp"

namespace vsquant {

constexpr int kMostTileRows = 16;

// The rows of activations a product reads. `positions` is 1 for a linear layer and R*S for a convolution, whose output
// rows each read R*S positions of the input; implementations fill pointers [position][row] as RowTile has them.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
                     const std::int16_t** scales) const = 0;
};

// How sums become outputs: y = f( fl(fl(fl(ga * gw) * fl(S)) * 2^d) + b + residual ), each operation rounded.
struct Outputs {
  const float* activation_coarse;      // one for every `rows_per_coarse` rows
  std::int64_t rows_per_coarse;
  const float* weight_coarse;          // [channels]
  const float* bias = nullptr;         // [channels]
  const void* residual = nullptr;      // [rows][stride]
  DType residual_dtype = DType::float32;
  Function function = Function::none;
  DType dtype = DType::float32;
  std::int64_t stride = 0;             // elements between rows of y and of the residual
  void* y = nullptr;                   // [rows][stride]; null where only codes are wanted
  const Quantizer* requantizer = nullptr;
  float requantized_coarse = 1;
  CodeRows codes{};                    // of row 0; rows lie `codes.padded` apart
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
