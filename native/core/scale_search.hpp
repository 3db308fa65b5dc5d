// Scale mode `search` of the definition: for each vector the sigma of least squared error under a given gamma.
#pragma once

#include <cstdint>

#include "core/format.hpp"
#include "core/threads.hpp"

namespace vsquant {

// One vector's search. The error of sigma is the sum over i, in that order, of h_i * (x_i - x^_i)^2 in double.
struct SearchRule {
  int vector_size;
  float qmin, qmax;
  int sigma_min, sigma_top;
  float gamma;  // 0: sigma is sigma_min and every code zero
};

// The smallest sigma of 1..sigma_top of least error, that error, and the codes of eq. (3) with fl(sigma * gamma). `h` is
// null where every weight is 1. `x` is finite.
using SearchVector = void (*)(const SearchRule&, const float* x, const double* h, std::uint8_t* codes,
                              std::int16_t* sigma, double* error);

// A tensor (groups, rows, length), contiguous; one gamma a group. Weights are one row for all groups or one a group.
struct SearchTensor {
  const float* x;
  std::int64_t groups, rows, length;
  const float* gamma;
  const double* weights;  // null: all 1
  std::int64_t weight_rows;
};

// Rows are padded to whole vectors, with zeros.
struct SearchResult {
  std::uint8_t* codes;
  std::int16_t* sigma;
  double* error;
};

void search_scales(SearchVector, const ThreadPool&, const Format&, const SearchTensor&, const SearchResult&);

}  // namespace vsquant
