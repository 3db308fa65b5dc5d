#include "core/plan.hpp"

#include <algorithm>

namespace vsquant {
namespace {

constexpr std::int64_t kInt32 = std::int64_t{1} << 31;
constexpr std::int64_t kInt16 = std::int64_t{1} << 15;

int scale_top(const Format& format) { return format.scale == ScaleKind::integer ? format.scale_top() : 1; }

// Width B of a vector scale as eq. (8) sees it.
int scale_width(const Format& format) {
  return format.scale == ScaleKind::integer ? format.scale_bits + (format.scale_top_pow2 ? 1 : 0) : 0;
}

bool folds(const Format& format, int scale) {
  const int limit = format.is_signed ? 127 : 255;
  return format.qmax() * scale <= limit && -format.qmin() * scale <= 128;
}

ProductRounding rounding_of(const Format& weight, const Format& activation, int product_bits) {
  const int shift = scale_width(weight) + scale_width(activation) - product_bits;
  if (product_bits == 0 || shift <= 0) return {};
  return {shift, static_cast<std::int32_t>((std::int64_t{1} << product_bits) - 1)};
}

VectorOptions vector_options(const Kernels& kernels, std::int64_t partial, std::int64_t product,
                             const ProductRounding& rounding, int blocks_per_vector) {
  VectorOptions options{};
  options.round_product = rounding.shift > 0;
  options.rounding = rounding;
  options.partial_is_word = !options.round_product && partial < kernels.word_partial_limit && product < kInt16;
  options.blocks_per_vector = blocks_per_vector;
  options.drain = (kInt32 - 1) / (partial * product);
  options.element_limit = partial / (std::int64_t{blocks_per_vector} * kBlockElements);
  return options;
}

}  // namespace

std::int64_t largest_partial(const Format& weight, const Format& activation, std::int64_t elements) {
  return elements * weight.magnitude() * activation.magnitude();
}

bool plan_products(const Kernels& kernels, const Format& weight, const Format& activation, int product_bits,
                   int blocks_per_vector, std::int64_t elements, ProductPlan* plan) {
  *plan = ProductPlan{};
  const ProductRounding rounding = rounding_of(weight, activation, product_bits);
  const int weight_top = scale_top(weight), activation_top = scale_top(activation);
  const bool activation_scaled = activation.scale == ScaleKind::integer;
  const bool weights_fold = kernels.has_folded && rounding.shift == 0 && folds(weight, weight_top);
  const bool activations_fold = folds(activation, activation_top);
  const std::int64_t whole = largest_partial(weight, activation, elements) * weight_top * activation_top;
  const std::int64_t vector = std::int64_t{blocks_per_vector} * kBlockElements;
  const std::int64_t partial = largest_partial(weight, activation, vector);
  const std::int64_t product = rounding.shift > 0 ? rounding.limit : std::int64_t{weight_top} * activation_top;

  plan->few_vectors = vector_options(kernels, partial, product, rounding, blocks_per_vector);
  plan->few = kernels.few_rows > 0 && weight.bits <= 4 && blocks_per_vector == 1 && activation.magnitude() <= 127 &&
              plan->few_vectors.partial_is_word && plan->few_vectors.drain > 0;
  if (weights_fold && activations_fold && whole < kInt32) {
    plan->path = ProductPath::folded;
    plan->fold_weights = true;
    plan->fold_activations = activation_scaled;
    return true;
  }
  // Words pass two vectors at a time; folded weights spare the scale of the weight where words do not fit.
  plan->fold_weights = weights_fold && activation_scaled && !plan->few_vectors.partial_is_word;
  plan->vectors = plan->fold_weights
                      ? vector_options(kernels, partial * weight_top, activation_top, rounding, blocks_per_vector)
                      : plan->few_vectors;
  plan->vectors.form = plan->fold_weights
                           ? Unpacked::folded
                           : kernels.vector_form(plan->vectors, weight.magnitude(), activation.is_signed);
  return plan->vectors.drain > 0 || kernels.has_wide_vectors;
}

}  // namespace vsquant
