// Which products a layer runs by, from its formats alone: nothing else decides what fits where.
#pragma once

#include "core/format.hpp"
#include "core/kernels.hpp"

namespace vsquant {

enum class ProductPath : std::uint8_t {
  folded,   // int8 dot products of q_w * sigma_w and q_a (times sigma_a)
  vectors,  // a partial sum per vector, multiplied by the scale product
};

struct ProductPlan {
  ProductPath path = ProductPath::vectors;
  bool fold_weights = false;      // tiles see q_w * sigma_w; on the vector path the scale product is then sigma_a alone
  bool fold_activations = false;  // tiles see q_a * sigma_a
  bool few = false;               // few_tile may run
  VectorOptions vectors{};
  VectorOptions few_vectors{};
};

// Largest |partial sum| of one vector of `elements` elements, of codes as the tiles see them.
std::int64_t largest_partial(const Format& weight, const Format& activation, std::int64_t elements);

// `elements` is the reduction length, padding included; `product_bits` 0 where eq. (8) does not round.
// Returns false where one vector's product already passes int32 and these kernels have no wide tiles: the scalar twin
// has them.
bool plan_products(const Kernels&, const Format& weight, const Format& activation, int product_bits,
                   int blocks_per_vector, std::int64_t elements, ProductPlan*);

}  // namespace vsquant
