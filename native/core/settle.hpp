// From the sums of a tile to what a layer gives: floats, codes of the next layer, or both.
#pragma once

#include "core/kernels.hpp"
#include "core/quantize.hpp"

namespace vsquant {

constexpr int kMostTileRows = 16;

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

// Up to 64 channels of a layer that are settled together: a multiple of 16, the last of them possibly padding.
struct SettledChannels {
  std::int64_t first;
  int count;
  std::int64_t channels;     // of the layer
  const std::int32_t* sums;  // [channels]: `bias` times these is subtracted from int32 sums; null: nothing is
  int bias;
};

// Settles tile after tile of the same channels. The sums of a tile's rows lie `sum_stride` apart.
class Settler {
 public:
  Settler(const Kernels&, const Outputs&, const SettledChannels&, float power, std::int64_t sum_stride);
  // Asks for what settling these rows will read and write: their memory is far apart, so no other prefetch foresees it.
  void foresee(std::int64_t first_row, int rows) const;
  Fault operator()(std::int64_t first_row, int rows, const std::int32_t* sums);
  Fault operator()(std::int64_t first_row, int rows, const std::int64_t* sums);
  Fault operator()(std::int64_t first_row, int rows, const float* sums);

 private:
  template <class Sum>
  Fault settle(std::int64_t first_row, int rows, const Sum* sums);
  const float* residual(std::int64_t at);
  void store(std::int64_t at, const float* y) const;
  bool settle_codes(std::int64_t first_row, int rows, const std::int32_t* sums);
  Fault requantize(std::int64_t first_row, int rows);

  const Kernels& kernels_;
  const Outputs& out_;
  Channels channels_{};
  std::int64_t first_, width_, sum_stride_;
  bool direct_, whole_vectors_ = false, direct_codes_ = false;
  RowSettling settling_{};
  CodeRule rule_{};
  alignas(64) float rows_[kMostTileRows * Channels::kMost];
  alignas(64) float residual_[Channels::kMost] = {};
};

}  // namespace vsquant
