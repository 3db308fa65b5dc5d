#include "core/linear.hpp"

#include <cmath>
#include <cstring>

namespace vsquant {
namespace {

// Row n of the product reads row n of the activations.
class PlainRows final : public RowSource {
 public:
  PlainRows(const Activations& activations, const ActivationShape& shape)
      : activations_(activations), padded_(shape.padded()), vectors_(shape.vectors()) {}

  void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
             const std::int16_t** scales) const override {
    for (int r = 0; r < rows; ++r) {
      const std::int64_t row = first_row + r;
      codes[r] = activations_.codes + row * padded_;
      if (activations_.starts != nullptr) starts[r] = activations_.starts + row * vectors_;
      if (activations_.scales != nullptr) scales[r] = activations_.scales + row * vectors_;
    }
  }

 private:
  const Activations& activations_;
  std::int64_t padded_, vectors_;
};

Fault run(const ThreadPool& pool, const Multiplication& m, const ActivationShape& shape, Activations activations, Outputs outputs) {
  fit_activations(pool, m, shape, activation_memory(), &activations);
  outputs.activation_coarse = activations.coarse;
  outputs.rows_per_coarse = activations.rows_per_coarse;
  return multiply(pool, m, PlainRows(activations, shape), outputs);
}

}  // namespace

void pad_positions(PackedWeight* weight, std::int64_t panels, std::int64_t positions,
                   std::int64_t blocks_per_position) {
  if (weight->blocks == positions * blocks_per_position) return;
  static thread_local Scratch scratch;
  const bool nibbles = weight->code_layout == CodeLayout::nibbles;
  const std::int64_t block = nibbles ? kBlockCodes / 2 : kBlockCodes;
  const std::int64_t given = weight->blocks / positions * block, wanted = blocks_per_position * block;
  auto* padded = scratch.get<std::uint8_t>(panels * positions * wanted);
  for (std::int64_t p = 0; p < panels * positions; ++p) {
    std::memcpy(padded + p * wanted, weight->codes + p * given, given);
    std::memset(padded + p * wanted + given, nibbles ? 0x88 : 0, wanted - given);
  }
  weight->codes = padded;
  weight->blocks = positions * blocks_per_position;
}

Multiplication multiplication_of(const Kernels& kernels, const LinearLayer& layer, std::int64_t rows, int positions,
                                 std::int64_t blocks_per_position) {
  Multiplication m{};
  m.kernels = &kernels;
  m.weight = layer.weight;
  m.rows = rows;
  m.positions = positions;
  m.blocks_per_position = blocks_per_position;
  const std::int64_t elements = layer.weight.blocks * kBlockElements;
  if (!plan_products(kernels, layer.weight_format, layer.activation_format, layer.product_bits,
                     layer.weight.blocks_per_vector, elements, &m.plan)) {
    // One vector's product can pass int32: the scalar twin, whose sums are int64 throughout, takes over.
    m.kernels = scalar_kernels();
    plan_products(*m.kernels, layer.weight_format, layer.activation_format, layer.product_bits,
                  layer.weight.blocks_per_vector, elements, &m.plan);
  }
  if (layer.weight.code_layout == CodeLayout::bytes) m.plan.few = false;  // few_tile reads nibbles
  // Unsigned codes below 128 are signed ones as well, which is what few_tile reads.
  m.codes_signed = layer.activation_format.is_signed ||
                   (m.plan.few && rows <= m.kernels->few_rows && layer.activation_format.magnitude() <= 127);
  m.scaled = layer.activation_format.scale == ScaleKind::integer && (m.runs_few() || !m.plan.fold_activations);
  const VectorOptions& options = m.runs_few() ? m.plan.few_vectors : m.plan.vectors;
  // One pass over the codes here saves every tile its own; a convolution's padding has no such pass.
  m.biased = positions == 1 && m.codes_signed && m.plan.path == ProductPath::folded && !m.runs_few() &&
             m.kernels->folded_bias != 0;
  m.power = m.plan.path == ProductPath::folded && !m.runs_few()
                ? 1.0f
                : std::ldexp(1.0f, options.round_product ? options.rounding.shift : 0);
  return m;
}

Fault linear(const ThreadPool& pool, const Kernels& kernels, const LinearLayer& layer, const ActivationShape& shape,
             const FloatInput& input, Outputs outputs) {
  const Multiplication m =
      multiplication_of(kernels, layer, shape.all_rows(), 1, shape.padded() / kBlockElements);
  Activations activations;
  const Fault fault = quantize_activations(pool, kernels, input.how, shape, input.data, input.dtype,
                                           m.start_bias() != 0, activation_memory(), &activations);
  if (fault != Fault::none) return fault;
  return run(pool, m, shape, activations, outputs);
}

Fault linear(const ThreadPool& pool, const Kernels& kernels, const LinearLayer& layer, const ActivationShape& shape,
             const CodeInput& input, Outputs outputs) {
  const Multiplication m =
      multiplication_of(kernels, layer, shape.all_rows(), 1, shape.padded() / kBlockElements);
  Activations activations;
  adopt_activations(pool, kernels, layer.activation_format, shape, input.codes, input.length, m.start_bias() != 0,
                    activation_memory(), &activations);
  activations.scales = input.scales;
  activations.coarse = input.coarse;
  activations.rows_per_coarse = input.rows_per_coarse;
  return run(pool, m, shape, activations, outputs);
}

}  // namespace vsquant
