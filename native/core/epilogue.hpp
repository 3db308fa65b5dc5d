// Around the products: codes made to fit them, and the sums of one row and up to 64 channels made floats.
#pragma once

#include <cstdint>

namespace vsquant {

enum class Function : std::uint8_t { none, relu, relu6, gelu };

// Of the channels of one tile, padded with zeros to whole panels.
struct Channels {
  static constexpr int kMost = 64;
  alignas(64) float coarse[kMost];
  alignas(64) float bias[kMost];
  alignas(64) std::int32_t correction[kMost];  // subtracted from int32 sums
  bool has_bias;
};

struct RowSettling {
  float activation_coarse;
  float power;              // 2^d
  const float* residual;    // of these channels, or null
  Function function;
  int count;                // channels, a multiple of 16
};

// How settled values become codes, eq. (3) without vectors.
struct CodeRule {
  float divisor;
  float reciprocal;  // fl(1 / divisor); 0 where quotients must not be made of it: see reciprocal_of
  float qmin, qmax;
};
// fl(1 / divisor) where a quotient refined by it rounds to the code of the true one, else 0.
float reciprocal_of(float divisor);

// The rows of a tile that share their activations' coarse scale.
struct CodeTile {
  int rows;
  const std::int32_t* sums;
  std::int64_t sum_stride;
  std::int64_t stride;       // of the residual and of y
  float* y;                  // null: only codes are wanted
  std::uint8_t* codes;
  std::int64_t code_stride;
};

// y[0..count) from int32 or from int64 sums.
struct EpilogueKernels {
  void (*settle32)(const Channels&, const RowSettling&, const std::int32_t* sums, float* y);
  void (*settle64)(const Channels&, const RowSettling&, const std::int64_t* sums, float* y);
  void (*settle_floats)(const Channels&, const RowSettling&, const float* sums, float* y);
  // Codes, and y, of whole tiles. False where a value or a quotient is not finite: codes then are not what they must be.
  bool (*settle_codes)(const Channels&, const RowSettling&, const CodeRule&, const CodeTile&);
  // out = codes * scales (null: 1), exclusive-or `sign`, for vectors of `elements` codes. May work in place.
  void (*fit_codes)(const std::uint8_t* codes, const std::int16_t* scales, std::int64_t vectors, int elements,
                    std::uint8_t sign, std::uint8_t* out);
};

}  // namespace vsquant
