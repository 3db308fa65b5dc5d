// Operands at the ends of their ranges, for every width of codes and scales: the products that a plan chooses equal
// eqs. (7) and (8) summed in 64 bits, at the longest reduction that an accumulator holds and beyond it.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "core/dispatch.hpp"
#include "core/plan.hpp"
#include "tests/check.hpp"

using namespace vsquant;

namespace {

constexpr int kRows = 3;

struct Layer {
  Format weight, activation;
  int product_bits;       // 0: not rounded
  int blocks_per_vector;
  std::int64_t vectors;
  std::int64_t blocks() const { return vectors * blocks_per_vector; }
  std::int64_t elements() const { return blocks() * kBlockElements; }
};

// Codes by kind: all largest, all smallest, in turns, or any.
int code(const Format& f, int kind, std::int64_t element) {
  switch (kind % 4) {
    case 0: return f.qmax();
    case 1: return f.qmin();
    case 2: return element % 2 != 0 ? f.qmax() : f.qmin();
    default: return f.qmin() + static_cast<int>((element * 7919 + kind * 104729) % (f.qmax() - f.qmin() + 1));
  }
}

// Largest scales, or any.
int scale(const Format& f, int kind, std::int64_t vector) {
  if (kind % 8 < 4 || f.scale != ScaleKind::integer) return f.scale_top();
  return f.scale_min() + static_cast<int>((vector * 7907 + kind) % (f.scale_top() - f.scale_min() + 1));
}

struct Packed {
  std::vector<std::uint8_t> codes, scales;
  PackedWeight weight;
};

Packed pack(const Layer& layer) {
  const Format& f = layer.weight;
  const bool nibbles = f.bits <= 4, scaled = f.scale == ScaleKind::integer;
  const ScaleLayout layout = !scaled             ? ScaleLayout::none
                             : f.scale_bits <= 4 ? ScaleLayout::nibbles
                             : f.scale_bits <= 8 ? ScaleLayout::bytes
                                                 : ScaleLayout::words;
  Packed p;
  p.codes.resize(layer.blocks() * (nibbles ? 128 : 256));
  for (std::int64_t e = 0; e < layer.elements(); ++e) {
    for (int c = 0; c < kPanelChannels; ++c) {
      const std::int64_t block = e / 16, in = e % 16;
      if (nibbles)
        p.codes[block * 128 + in / 8 * 64 + c * 4 + in % 4] |= (code(f, c, e) + 8) << (in % 8 / 4 * 4);
      else
        p.codes[block * 256 + in / 4 * 64 + c * 4 + in % 4] = static_cast<std::uint8_t>(code(f, c, e));
    }
  }
  p.scales.resize(layer.vectors * 32);
  for (std::int64_t v = 0; scaled && v < layer.vectors; ++v) {
    for (int c = 0; c < kPanelChannels; ++c) {
      const int stored = scale(f, c, v) - f.scale_min();
      if (layout == ScaleLayout::nibbles) p.scales[v * 8 + c % 8] |= stored << (c / 8 * 4);
      if (layout == ScaleLayout::bytes) p.scales[v * 16 + c] = static_cast<std::uint8_t>(stored);
      if (layout == ScaleLayout::words) {
        p.scales[(v * 16 + c) * 2] = static_cast<std::uint8_t>(stored);
        p.scales[(v * 16 + c) * 2 + 1] = static_cast<std::uint8_t>(stored >> 8);
      }
    }
  }
  p.weight = PackedWeight{p.codes.data(), scaled ? p.scales.data() : nullptr, nullptr,
                          nibbles ? CodeLayout::nibbles : CodeLayout::bytes, layout, f.scale_min(),
                          layer.blocks_per_vector, kPanelChannels, layer.blocks()};
  return p;
}

std::int64_t rounded(const ProductRounding& rounding, bool round, std::int64_t p) {
  if (!round) return p;
  return std::min<std::int64_t>((p + (std::int64_t{1} << (rounding.shift - 1))) >> rounding.shift, rounding.limit);
}

// Eqs. (7) and (8), [row][channel].
std::vector<std::int64_t> sums(const Layer& layer, const VectorOptions& options) {
  const std::int64_t length = layer.elements() / layer.vectors;
  std::vector<std::int64_t> all(kRows * kPanelChannels);
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kPanelChannels; ++c) {
      for (std::int64_t v = 0; v < layer.vectors; ++v) {
        std::int64_t partial = 0;
        for (std::int64_t e = v * length; e < (v + 1) * length; ++e)
          partial += code(layer.activation, r, e) * code(layer.weight, c, e);
        const std::int64_t p = std::int64_t{scale(layer.weight, c, v)} * scale(layer.activation, r, v);
        all[r * kPanelChannels + c] += rounded(options.rounding, options.round_product, p) * partial;
      }
    }
  }
  return all;
}

// The rows as a plan's products read them.
struct Rows {
  std::vector<std::uint8_t> codes[kRows];
  std::vector<std::int32_t> starts[kRows];
  std::vector<std::int16_t> scales[kRows];
  const std::uint8_t* code_pointers[kRows];
  const std::int32_t* start_pointers[kRows];
  const std::int16_t* scale_pointers[kRows];
  RowTile tile;

  Rows(const Layer& layer, bool fold, int bias, bool codes_signed) {
    const Format& f = layer.activation;
    const std::int64_t length = layer.elements() / layer.vectors;
    for (int r = 0; r < kRows; ++r) {
      for (std::int64_t v = 0; v < layer.vectors; ++v) {
        std::int32_t sum = 0;
        const int sigma = scale(f, r, v);
        for (std::int64_t e = v * length; e < (v + 1) * length; ++e) {
          codes[r].push_back(static_cast<std::uint8_t>(code(f, r, e) * (fold ? sigma : 1)));
          sum += code(f, r, e);
        }
        starts[r].push_back(-bias * sum);
        scales[r].push_back(static_cast<std::int16_t>(sigma));
      }
      code_pointers[r] = codes[r].data();
      start_pointers[r] = starts[r].data();
      scale_pointers[r] = scales[r].data();
    }
    const bool scaled = f.scale == ScaleKind::integer && !fold;
    tile = RowTile{code_pointers, codes_signed ? start_pointers : nullptr, scaled ? scale_pointers : nullptr, kRows,
                   1, layer.blocks(), codes_signed};
  }
};

std::string name(const Kernels& kernels, const Layer& l) {
  const auto text = [](const Format& f) {
    return std::to_string(f.bits) + (f.is_signed ? "" : "u") + (f.full_range ? "-full" : "") + "-s" +
           std::to_string(f.scale_bits) + (f.scale_top_pow2 ? "-top" : "");
  };
  return std::string(kernels.name) + " w" + text(l.weight) + " a" + text(l.activation) + " p" +
         std::to_string(l.product_bits) + " v" + std::to_string(l.blocks_per_vector * 16) + " vectors " +
         std::to_string(l.vectors);
}

// `given` is [row][stride].
template <class Sum>
void compare(const std::vector<Sum>& given, int stride, const std::vector<std::int64_t>& right,
             const std::string& what) {
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kPanelChannels; ++c)
      if (given[r * stride + c] != right[r * kPanelChannels + c]) {
        std::fprintf(stderr, "%s: row %d channel %d is %lld, not %lld\n", what.c_str(), r, c,
                     static_cast<long long>(given[r * stride + c]),
                     static_cast<long long>(right[r * kPanelChannels + c]));
        CHECK(!"product");
        return;
      }
}

void check_folded(const Kernels& kernels, const Layer& layer, const ProductPlan& plan, const PackedWeight& weight,
                  std::vector<std::int64_t> right) {
  std::vector<std::int8_t> codes(unpacked_room(layer.blocks()) * kBlockCodes);
  kernels.unpack_codes(weight, 0, 0, layer.blocks(), Unpacked::folded, codes.data());
  const Rows rows(layer, plan.fold_activations, 0, layer.activation.is_signed);
  const int stride = kernels.tile_panels * kPanelChannels;
  std::vector<std::int32_t> out(kernels.folded_rows * stride);
  const std::int8_t* panel = codes.data();
  kernels.folded_tile(rows.tile, &panel, 1, out.data());
  for (int c = 0; c < kPanelChannels && layer.activation.is_signed; ++c)
    for (std::int64_t e = 0; e < layer.elements(); ++e)
      for (int r = 0; r < kRows; ++r)
        right[r * kPanelChannels + c] += kernels.folded_bias * codes[e / 4 * 64 + c * 4 + e % 4];
  for (std::int64_t& sum : right) sum = static_cast<std::int32_t>(sum);  // the caller takes the bias away again
  compare(out, stride, right, name(kernels, layer) + " folded");
}

void check_vectors(const Kernels& kernels, const Layer& layer, const ProductPlan& plan, const PackedWeight& weight,
                   const std::vector<std::int64_t>& right) {
  std::vector<std::int8_t> codes(unpacked_room(layer.blocks()) * kBlockCodes);
  std::vector<std::int16_t> scales(unpacked_room(layer.vectors) * kPanelChannels);
  kernels.unpack_codes(weight, 0, 0, layer.blocks(), plan.vectors.form, codes.data());
  kernels.unpack_scales(weight, 0, plan.vectors.form, scales.data());
  const Rows rows(layer, false, kernels.vector_bias, layer.activation.is_signed);
  const int stride = kernels.tile_panels * kPanelChannels;
  std::vector<std::int64_t> out(kernels.vector_rows * stride);
  const std::int8_t* panel = codes.data();
  const std::int16_t* panel_scales = scales.data();
  const bool scaled = weight.scale_layout != ScaleLayout::none && !plan.fold_weights;
  kernels.vector_tile(rows.tile, &panel, scaled ? &panel_scales : nullptr, 1, plan.vectors, out.data());
  compare(out, stride, right, name(kernels, layer) + " vectors");
}

void check_few(const Kernels& kernels, const Layer& layer, const ProductPlan& plan, const PackedWeight& weight,
               const std::vector<std::int64_t>& right) {
  const Rows rows(layer, false, 8, true);
  const int stride = kernels.tile_panels * kPanelChannels;
  std::vector<std::int64_t> out(kernels.few_rows * stride);
  kernels.few_tile(rows.tile, weight, 0, 1, plan.few_vectors, out.data());
  compare(out, stride, right, name(kernels, layer) + " few");
}

void check(const Kernels& kernels, const Layer& layer, const Packed& packed) {
  ProductPlan plan;
  if (!plan_products(kernels, layer.weight, layer.activation, layer.product_bits, layer.blocks_per_vector,
                     layer.elements(), &plan))
    return;
  const std::vector<std::int64_t> right = sums(layer, plan.few_vectors);
  if (plan.path == ProductPath::folded)
    check_folded(kernels, layer, plan, packed.weight, right);
  else
    check_vectors(kernels, layer, plan, packed.weight, right);
  if (plan.few) check_few(kernels, layer, plan, packed.weight, right);
}

void check_all(const Layer& layer) {
  const Packed packed = pack(layer);
  for (const InstructionSet& set : instruction_sets())
    if (set.usable() && set.kernels != scalar_kernels()) check(*set.kernels, layer, packed);
}

Format format(int bits, bool is_signed, int scale_bits) {
  Format f;
  f.bits = bits;
  f.is_signed = is_signed;
  f.scale = scale_bits > 0 ? ScaleKind::integer : ScaleKind::none;
  f.scale_bits = scale_bits;
  return f;
}

// Five vectors: pairs and one left over.
void check_widths(const Format& weight, const Format& activation) {
  for (const int blocks_per_vector : {1, 2, 3, 4}) check_all({weight, activation, 0, blocks_per_vector, 5});
  if (weight.scale_bits == 0 || activation.scale_bits == 0) return;
  for (const int product_bits : {3, 6, 12}) check_all({weight, activation, product_bits, 1, 5});
}

void check_formats() {
  for (int bits = 2; bits <= 8; ++bits)
    for (const int scale_bits : {0, 2, 4, 6, 8, 10})
      for (const bool full : {false, true})
        for (const bool top : {false, true}) {
          Format weight = format(bits, true, scale_bits);
          weight.full_range = full;
          weight.scale_top_pow2 = top && scale_bits > 0;
          for (const int activation_bits : {2, 4, 5, 7, 8})
            for (const int activation_scale_bits : {0, 4, 8, 10})
              for (const bool is_signed : {true, false})
                check_widths(weight, format(activation_bits, is_signed, activation_scale_bits));
        }
}

// Elements that an int32 accumulator holds for w4a8, V = 16, and reductions of that length and of one vector more.
void check_length(int weight_scale_bits, int activation_scale_bits, std::int64_t elements) {
  Layer layer{format(4, true, weight_scale_bits), format(8, true, activation_scale_bits), 0, 1, 1};
  ProductPlan plan;
  CHECK(plan_products(*scalar_kernels(), layer.weight, layer.activation, 0, 1, 16, &plan));
  const std::int64_t drain = plan.few_vectors.drain;
  CHECK(drain * kBlockElements == elements);
  for (const std::int64_t vectors : {drain, drain + 1, 2 * drain + 1}) {
    layer.vectors = vectors;
    check_all(layer);
  }
}

}  // namespace

int main() {
  check_formats();
  check_length(4, 0, 161'040);
  check_length(6, 0, 38'336);
  check_length(8, 0, 9'472);
  check_length(10, 0, 2'352);
  check_length(4, 8, 624);
  check_length(4, 10, 144);
  check_length(6, 8, 144);
  check_length(6, 10, 32);
  return test::result();
}
