// Every instruction set's tiles give the scalar twin's numbers, on random and on extreme operands.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "core/dispatch.hpp"
#include "core/kernels.hpp"

namespace {

using namespace vsquant;

int failures = 0;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  ++failures;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

struct Case {
  CodeLayout codes;
  ScaleLayout scales;
  int offset;
  int blocks_per_vector;
  bool codes_signed;
  int activation_scale_max;  // 0: no activation vector scales
  bool extreme;              // every operand at the end of its range
  int positions = 2;
  int blocks_per_position = blocks_per_vector == 1 ? 5 : 6;
  int code_max() const { return codes == CodeLayout::nibbles ? 7 : 127; }
  int scale_max() const {
    return scales == ScaleLayout::none ? 1 : scales == ScaleLayout::nibbles ? 16 : scales == ScaleLayout::bytes ? 256 : 1024;
  }
};

constexpr int kPanelCount = 4, kRowCount = 16;

struct Operands {
  std::vector<std::uint8_t> codes, scales, rows;
  std::vector<std::int32_t> sums;
  std::vector<std::int16_t> activation_scales;
  PackedWeight weight;
};

Operands make(const Case& c, std::mt19937& random) {
  const auto below = [&](int top) { return c.extreme ? top : static_cast<int>(random() % (top + 1)); };
  const int blocks = c.positions * c.blocks_per_position, vectors = blocks / c.blocks_per_vector;
  const bool nibbles = c.codes == CodeLayout::nibbles;
  Operands o;
  for (int i = 0; i < kPanelCount * blocks * (nibbles ? 128 : 256); ++i)
    o.codes.push_back(static_cast<std::uint8_t>(nibbles ? (1 + below(14)) + 16 * (1 + below(14)) : 127 - below(254)));
  const int scale_bytes = c.scales == ScaleLayout::nibbles ? 8 : c.scales == ScaleLayout::bytes ? 16 : 32;
  for (int i = 0; c.scales != ScaleLayout::none && i < kPanelCount * vectors * scale_bytes; ++i)
    o.scales.push_back(static_cast<std::uint8_t>(c.scales == ScaleLayout::words && i % 2 ? below(3) : below(255)));
  for (int i = 0; i < kRowCount * blocks * 16; ++i)
    o.rows.push_back(static_cast<std::uint8_t>(c.codes_signed ? 127 - below(254) : below(255)));
  for (int v = 0; v < kRowCount * vectors; ++v) {
    std::int32_t sum = 0;
    for (int i = 0; i < c.blocks_per_vector * 16; ++i)
      sum += static_cast<std::int8_t>(o.rows[v * c.blocks_per_vector * 16 + i]);
    o.sums.push_back(sum);
    o.activation_scales.push_back(static_cast<std::int16_t>(below(c.activation_scale_max)));
  }
  o.weight = PackedWeight{o.codes.data(), o.scales.empty() ? nullptr : o.scales.data(), nullptr, c.codes, c.scales,
                          c.offset, c.blocks_per_vector, kPanelCount * kPanelChannels, blocks};
  return o;
}

struct Pointers {
  std::vector<const std::uint8_t*> codes;
  std::vector<std::int32_t> starts;
  std::vector<const std::int32_t*> start;
  std::vector<const std::int16_t*> scales;
  RowTile tile;
};

Pointers point(const Operands& o, const Case& c, int rows, int bias) {
  Pointers p;
  for (const std::int32_t sum : o.sums) p.starts.push_back(-bias * sum);
  const int vectors = c.blocks_per_position / c.blocks_per_vector;
  for (int position = 0; position < c.positions; ++position) {
    for (int row = 0; row < rows; ++row) {
      const int at = row * c.positions + position;
      p.codes.push_back(o.rows.data() + at * c.blocks_per_position * 16);
      p.start.push_back(p.starts.data() + at * vectors);
      p.scales.push_back(o.activation_scales.data() + at * vectors);
    }
  }
  p.tile = {p.codes.data(), c.codes_signed ? p.start.data() : nullptr, c.activation_scale_max ? p.scales.data() : nullptr, rows, c.positions,
            c.blocks_per_position, c.codes_signed};
  return p;
}

struct Unpacking {
  std::vector<std::int8_t> bytes;
  std::vector<std::int16_t> words;
  std::vector<const std::int8_t*> codes;
  std::vector<const std::int16_t*> scales;
};

Unpacking unpack(const Kernels& kernels, const PackedWeight& weight, Unpacked form) {
  Unpacking u;
  const std::int64_t panel_codes = unpacked_room(weight.blocks) * kBlockCodes;
  const std::int64_t panel_scales = unpacked_room(weight.vectors()) * kPanelChannels;
  u.bytes.resize(kPanelCount * panel_codes);
  u.words.resize(kPanelCount * panel_scales);
  for (int panel = 0; panel < kPanelCount; ++panel) {
    std::int8_t* codes = u.bytes.data() + panel * panel_codes;
    std::int16_t* scales = u.words.data() + panel * panel_scales;
    kernels.unpack_codes(weight, panel, 0, weight.blocks, form, codes);
    kernels.unpack_scales(weight, panel, form, scales);
    u.codes.push_back(codes);
    u.scales.push_back(scales);
  }
  return u;
}

// `expected` is [rows][kPanelCount * 16]; `given` a tile whose first panel is `first`.
template <class Sum>
void compare(const Kernels& kernels, const std::vector<Sum>& given, const std::vector<std::int64_t>& expected,
             int rows, int panels, int first, const std::string& what) {
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < panels * kPanelChannels; ++column) {
      const std::int64_t value = given[row * kernels.tile_panels * kPanelChannels + column];
      const std::int64_t right = expected[(row * kPanelCount + first) * kPanelChannels + column];
      if (value == right) continue;
      return expect(false, what + ": row " + std::to_string(row) + " column " + std::to_string(column) + " is " +
                               std::to_string(value) + ", not " + std::to_string(right));
    }
  }
}

std::vector<std::int64_t> plain_vectors(const Pointers& p, const Unpacking& u, const VectorOptions& options,
                                        bool with_scales) {
  std::vector<std::int64_t> all(p.tile.rows * kPanelCount * kPanelChannels), one(p.tile.rows * kPanelChannels);
  for (int panel = 0; panel < kPanelCount; ++panel) {
    scalar_kernels()->vector_tile(p.tile, &u.codes[panel], with_scales ? &u.scales[panel] : nullptr, 1, options,
                                  one.data());
    for (int row = 0; row < p.tile.rows; ++row)
      for (int channel = 0; channel < kPanelChannels; ++channel)
        all[(row * kPanelCount + panel) * kPanelChannels + channel] = one[row * kPanelChannels + channel];
  }
  return all;
}

void check_few(const Kernels& kernels, const Operands& o, const Pointers& p, const VectorOptions& options,
               const std::vector<std::int64_t>& expected, const std::string& name) {
  for (int panels = 1; panels <= kernels.tile_panels && panels <= kPanelCount; ++panels) {
    std::vector<std::int64_t> out(kernels.few_rows * kernels.tile_panels * kPanelChannels, -1);
    kernels.few_tile(p.tile, o.weight, kPanelCount - panels, panels, options, out.data());
    compare(kernels, out, expected, p.tile.rows, panels, kPanelCount - panels, name + " few_tile");
  }
}

// Products up to `product` rounded to 5 bits, or by one bit where they have no more.
ProductRounding rounding_of(std::int64_t product) {
  int width = 0;
  while (product >> width != 0) ++width;
  const int bits = width > 5 ? 5 : width - 1;
  return {width - bits, (1 << bits) - 1};
}

void check_vectors(const Kernels& kernels, const Case& c, const Operands& o, const std::string& name) {
  const Unpacking plain = unpack(*scalar_kernels(), o.weight, Unpacked::codes);
  const std::int64_t product = std::int64_t{c.scale_max()} * (c.activation_scale_max ? c.activation_scale_max : 1);
  const std::int64_t partial = std::int64_t{c.blocks_per_vector} * 16 * c.code_max() * (c.codes_signed ? 127 : 255);
  const bool word = partial < kernels.word_partial_limit && product < 32768;
  const std::int64_t drain = ((std::int64_t{1} << 31) - 1) / (partial * product);
  if (drain < 1 && !kernels.has_wide_vectors) return;  // the driver never asks for it
  for (int rows = 1; rows <= kRowCount; ++rows) {
    const Pointers p = point(o, c, rows, kernels.vector_bias);
    for (const bool round : {false, true}) {
      if (round && !c.activation_scale_max) continue;
      VectorOptions options{word && !round, round, {}, c.blocks_per_vector, drain,
                            partial / (c.blocks_per_vector * 16), Unpacked::codes};
      if (round) options.rounding = rounding_of(product);
      options.form = kernels.vector_form(options, c.code_max(), c.codes_signed);
      const Unpacking u = unpack(kernels, o.weight, options.form);
      const auto expected = plain_vectors(p, plain, options, true);
      for (int panels = 1; rows <= kernels.vector_rows && panels <= kernels.tile_panels; ++panels) {
        std::vector<std::int64_t> out(kernels.vector_rows * kernels.tile_panels * kPanelChannels, -1);
        kernels.vector_tile(p.tile, u.codes.data(), u.scales.data(), panels, options, out.data());
        compare(kernels, out, expected, rows, panels, 0, name + " vector_tile");
      }
      if (rows <= kernels.few_rows && word && drain > 0 && !round && c.codes_signed && c.blocks_per_vector == 1 &&
          c.codes == CodeLayout::nibbles)
        check_few(kernels, o, point(o, c, rows, 8), options, expected, name);
    }
  }
}

void check_folded(const Kernels& kernels, const Case& c, const Operands& o, const std::string& name) {
  const Unpacking u = unpack(kernels, o.weight, Unpacked::folded);
  expect(u.bytes == unpack(*scalar_kernels(), o.weight, Unpacked::folded).bytes, name + " unpack folded");
  const VectorOptions whole{false, false, {}, c.blocks_per_vector, 1, 0, Unpacked::folded};
  for (int rows = 1; rows <= kernels.folded_rows && rows <= kRowCount; ++rows) {
    Pointers p = point(o, c, rows, 0);
    p.tile.scales = nullptr;
    auto expected = plain_vectors(p, u, whole, false);
    for (int column = 0; c.codes_signed && column < kPanelCount * kPanelChannels; ++column) {
      std::int64_t sum = 0;
      for (int k = 0; k < o.weight.blocks * kBlockElements; ++k)
        sum += u.codes[column / 16][k / 4 * 64 + column % 16 * 4 + k % 4];
      for (int row = 0; row < rows; ++row)
        expected[row * kPanelCount * kPanelChannels + column] += kernels.folded_bias * sum;
    }
    for (int panels = 1; panels <= kernels.tile_panels; ++panels) {
      std::vector<std::int32_t> out(kernels.folded_rows * kernels.tile_panels * kPanelChannels, -1);
      kernels.folded_tile(p.tile, u.codes.data(), panels, out.data());
      compare(kernels, out, expected, rows, panels, 0, name + " folded_tile");
    }
  }
}

void check_folded_few(const Kernels& kernels, const Case& c, const Operands& o, const std::string& name) {
  const Unpacking u = unpack(*scalar_kernels(), o.weight, Unpacked::folded);
  const VectorOptions whole{false, false, {}, c.blocks_per_vector, 1, 0, Unpacked::folded};
  for (int rows = 1; rows <= kernels.folded_few_rows && rows <= kRowCount; ++rows) {
    Pointers p = point(o, c, rows, 0);
    p.tile.scales = nullptr;
    const auto expected = plain_vectors(p, u, whole, false);
    for (int panels = 1; panels <= kernels.tile_panels; ++panels) {
      std::vector<std::int32_t> out(kernels.folded_few_rows * kernels.tile_panels * kPanelChannels, -1);
      kernels.folded_few_tile(p.tile, o.weight, 0, panels, out.data());
      compare(kernels, out, expected, rows, panels, 0, name + " folded_few_tile");
    }
  }
}

void check(const Kernels& kernels, const Case& c, int number, std::mt19937& random) {
  const std::string name = std::string(kernels.name) + " case " + std::to_string(number);
  const Operands o = make(c, random);
  const Unpacking u = unpack(kernels, o.weight, Unpacked::codes);
  const Unpacking plain = unpack(*scalar_kernels(), o.weight, Unpacked::codes);
  expect(u.bytes == plain.bytes, name + " unpack codes");
  expect(u.words == plain.words, name + " unpack scales");
  check_vectors(kernels, c, o, name);
  if (kernels.has_folded && c.code_max() * c.scale_max() < 128) check_folded(kernels, c, o, name);
  if (c.code_max() == 7 && c.scale_max() <= 16 && !c.codes_signed) check_folded_few(kernels, c, o, name);
}

}  // namespace

int main() {
  std::mt19937 random(20261123);
  int number = 0;
  for (const CodeLayout codes : {CodeLayout::nibbles, CodeLayout::bytes})
    for (const ScaleLayout scales : {ScaleLayout::none, ScaleLayout::nibbles, ScaleLayout::bytes, ScaleLayout::words})
      for (const int offset : {0, 1})
        for (const int blocks_per_vector : {1, 2})
          for (const bool codes_signed : {true, false})
            for (const int activation_scale_max : {0, 15, 255, 1023})
              for (const bool extreme : {false, true}) {
                ++number;
                const Case c{codes, scales, offset, blocks_per_vector, codes_signed, activation_scale_max, extreme};
                for (const InstructionSet& set : instruction_sets())
                  if (set.usable()) check(*set.kernels, c, number, random);
              }
  std::printf("products: %d cases, %d failures\n", number, failures);
  return failures ? 1 : 0;
}
