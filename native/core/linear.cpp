#include "core/linear.hpp"

#include <algorithm>
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

namespace {

// Where a code of channel 0 lies in the panels: four elements of a channel are a word, nibbles of eight share one.
struct CodePlace {
  std::int64_t byte;
  int shift;
};

CodePlace code_place(bool nibbles, std::int64_t element) {
  const std::int64_t block = element / kBlockElements * kBlockCodes, within = element % kBlockElements;
  if (!nibbles) return {block + within / 4 * 64 + within % 4, 0};
  return {block / 2 + within / 8 * 64 + within % 4, within % 8 < 4 ? 0 : 4};
}

}  // namespace

void spread_positions(PackedWeight* weight, std::int64_t panels, std::int64_t positions, std::int64_t channels, int size,
                      int elements) {
  static thread_local Scratch scratch;
  const bool nibbles = weight->code_layout == CodeLayout::nibbles;
  const std::int64_t block = nibbles ? kBlockCodes / 2 : kBlockCodes, given = weight->blocks / positions;
  const std::int64_t wanted = (channels + size - 1) / size * (elements / kBlockElements);
  auto* spread = scratch.get<std::uint8_t>(panels * positions * wanted * block);
  std::memset(spread, nibbles ? 0x88 : 0, panels * positions * wanted * block);
  const int mask = nibbles ? 15 : 255;
  // Codes come padded to whole vectors, of which there may be more elements than the weight's blocks hold.
  const std::int64_t stored = std::min(channels, given * kBlockElements);
  for (std::int64_t p = 0; p < panels * positions; ++p) {
    const std::uint8_t* in = weight->codes + p * given * block;
    std::uint8_t* out = spread + p * wanted * block;
    for (std::int64_t c = 0; c < stored; ++c) {
      const CodePlace from = code_place(nibbles, c), to = code_place(nibbles, c / size * elements + c % size);
      for (int channel = 0; channel < kPanelChannels * 4; channel += 4) {
        std::uint8_t& byte = out[to.byte + channel];
        const int code = in[from.byte + channel] >> from.shift & mask;
        byte = static_cast<std::uint8_t>((byte & ~(mask << to.shift)) | code << to.shift);
      }
    }
  }
  weight->codes = spread;
  weight->blocks = positions * wanted;
}

Multiplication multiplication_of(const Kernels& kernels, const LinearLayer& layer, std::int64_t rows, int positions,
                                 std::int64_t blocks_per_position) {
  Multiplication m{};
  m.kernels = &kernels;
  m.weight = layer.weight;
  m.rows = rows;
  m.positions = positions;
  m.blocks_per_position = blocks_per_position;
  if (is_float(layer.weight_format.scale) || is_float(layer.activation_format.scale)) {
    m.float_scaled = true;
    m.codes_signed = layer.activation_format.is_signed;
    m.scaled = layer.activation_format.scale != ScaleKind::none;
    return m;
  }
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
  if (input.steps != nullptr) activations.starts = reinterpret_cast<const std::int32_t*>(input.steps);
  activations.coarse = input.coarse;
  activations.rows_per_coarse = input.rows_per_coarse;
  return run(pool, m, shape, activations, outputs);
}

}  // namespace vsquant
