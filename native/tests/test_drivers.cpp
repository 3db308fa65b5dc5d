// Convolutions, depthwise convolutions, matmuls and weight-only layers give the scalar kernels' floats on every
// instruction set, out of and into buffers of exactly their size: sanitizers see any step beyond.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "core/conv.hpp"
#include "core/depthwise.hpp"
#include "core/dispatch.hpp"
#include "core/matmul.hpp"
#include "core/weight_only.hpp"
#include "tests/check.hpp"

namespace {

using namespace vsquant;

std::mt19937 generator(20261123);

std::vector<float> floats(std::int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(static_cast<int>(generator() % 2001) - 1000) / 333.0f;
  return values;
}

Format format(const char* text) {
  Format result;
  CHECK(parse_format(text, &result));
  return result;
}

// A weight of random codes, zero beyond `part` channels of a position, in the interleaved layout, and what settles its outputs.
struct Weight {
  std::vector<std::uint8_t> codes, scales;
  std::vector<std::int32_t> sums;
  std::vector<float> coarse;
  LinearLayer layer;

  Weight(const char* weight, const char* activation, std::int64_t outputs, std::int64_t groups, std::int64_t part,
         std::int64_t positions) {
    const std::int64_t blocks = positions * ((part + 15) / 16);
    layer.weight_format = format(weight);
    layer.activation_format = format(activation);
    const bool nibbles = layer.weight_format.bits <= 4, scaled = layer.weight_format.vector_size != 0;
    const std::int64_t panels = groups * ((outputs / groups + kPanelChannels - 1) / kPanelChannels);
    codes.resize(panels * blocks * (nibbles ? kBlockCodes / 2 : kBlockCodes));
    const std::int64_t block_bytes = nibbles ? kBlockCodes / 2 : kBlockCodes;
    for (std::size_t at = 0; at < codes.size(); ++at) {
      const std::int64_t byte = at % block_bytes, first = at / block_bytes % (blocks / positions) * kBlockElements;
      const auto inside = [&](std::int64_t element) { return first + element < part; };
      const std::int64_t element = byte / 64 * (nibbles ? 8 : 4) + byte % 4;
      const unsigned low = inside(element) ? 1 + generator() % 15 : 8, high = inside(element + 4) ? 1 + generator() % 15 : 8;
      const unsigned whole = inside(element) ? generator() % 255 + 129 : 0;
      codes[at] = static_cast<std::uint8_t>(nibbles ? low + 16 * high : whole);
    }
    if (scaled) scales.resize(panels * blocks * 8);
    for (auto& scale : scales) scale = static_cast<std::uint8_t>(generator());
    sums.resize(outputs);
    coarse = floats(outputs);
    PackedWeight& w = layer.weight;
    w = {codes.data(), scaled ? scales.data() : nullptr, sums.data(), nibbles ? CodeLayout::nibbles : CodeLayout::bytes,
         scaled ? ScaleLayout::nibbles : ScaleLayout::none, 0, 1, outputs / groups, blocks};
    set_sums(groups);
  }

  // Sums of codes times scales, as unpacking reads them.
  void set_sums(std::int64_t groups) {
    const PackedWeight& w = layer.weight;
    std::vector<std::int8_t> unpacked(w.blocks * kBlockCodes);
    std::vector<std::int16_t> sigma(w.blocks * kPanelChannels);
    PackedWeight all = w;
    all.channels = groups * w.panels() * kPanelChannels;
    for (std::int64_t panel = 0; panel < all.panels(); ++panel) {
      scalar_kernels()->unpack_codes(all, panel, 0, w.blocks, Unpacked::codes, unpacked.data());
      scalar_kernels()->unpack_scales(all, panel, Unpacked::codes, sigma.data());
      for (std::int64_t channel = 0; channel < kPanelChannels; ++channel) {
        const std::int64_t within = panel % w.panels() * kPanelChannels + channel;
        if (within >= w.channels) continue;
        std::int32_t& sum = sums[panel / w.panels() * w.channels + within];
        for (std::int64_t k = 0; k < w.blocks * kBlockElements; ++k)
          sum += unpacked[k / 4 * 64 + channel * 4 + k % 4] * sigma[k / kBlockElements * kPanelChannels + channel];
      }
    }
  }
};

FloatInput static_input(const std::vector<float>& x, const Format& activation, const float* range) {
  return {x.data(), DType::float32, {{activation, ScaleMode::requantize}, Share::group, range}};
}

Outputs outputs_to(std::vector<float>& y, const std::vector<float>& coarse) {
  Outputs outputs{};
  outputs.weight_coarse = coarse.data();
  outputs.function = Function::relu;
  outputs.stride = static_cast<std::int64_t>(coarse.size());
  outputs.y = y.data();
  return outputs;
}

// run(kernels, y) on every instruction set gives what it gives on the scalar one, up to `tolerance`.
template <class Run>
void check(std::int64_t outputs, float tolerance, const Run& run) {
  std::vector<float> expected(outputs, -1.0f);
  run(*scalar_kernels(), expected);
  for (const InstructionSet& set : instruction_sets()) {
    if (!set.usable()) continue;
    std::vector<float> y(outputs, -1.0f);
    run(*set.kernels, y);
    for (std::int64_t i = 0; i < outputs; ++i) CHECK(std::fabs(y[i] - expected[i]) <= tolerance);
  }
}

void check_conv(const char* weight, const char* activation, const ConvShape& shape) {
  const std::int64_t part = shape.channels / shape.walk.groups;
  const Weight w(weight, activation, shape.outputs, shape.walk.groups, part, shape.walk.positions());
  const std::vector<float> x = floats(shape.samples * shape.in_pixels() * shape.channels);
  const float range = 2.5f;
  check(shape.samples * shape.out_pixels() * shape.outputs, 0.0f, [&](const Kernels& kernels, std::vector<float>& y) {
    CHECK(conv2d({}, kernels, w.layer, shape, static_input(x, w.layer.activation_format, &range),
                 outputs_to(y, w.coarse)) == Fault::none);
  });
}

void check_depthwise(const ConvShape& shape) {
  const std::int64_t stride = (shape.outputs + 15) / 16 * 16;
  std::vector<std::int8_t> weights(shape.walk.positions() * stride);
  for (auto& weight : weights) weight = static_cast<std::int8_t>(generator());
  const DepthwiseLayer layer{format("8"), weights.data(), stride, shape.outputs / shape.channels};
  const std::vector<float> x = floats(shape.samples * shape.in_pixels() * shape.channels), coarse = floats(shape.outputs);
  check(shape.samples * shape.out_pixels() * shape.outputs, 0.0f, [&](const Kernels& kernels, std::vector<float>& y) {
    CHECK(depthwise_conv2d({}, kernels, layer, shape, static_input(x, layer.activation_format, nullptr),
                           outputs_to(y, coarse)) == Fault::none);
  });
}

void check_matmul(const char* left, const char* right, std::int64_t rows, std::int64_t columns, std::int64_t length) {
  const int size = std::max({format(left).vector_size, format(right).vector_size, 1});
  const int elements = (size + kBlockElements - 1) / kBlockElements * kBlockElements;
  const std::vector<float> a = floats(2 * rows * length), b = floats(2 * columns * length);
  const Matmul matmul{{a.data(), DType::float32, format(left), {}, rows},
                      {b.data(), DType::float32, format(right), {}, columns},
                      Share::group, ScaleMode::requantize, 0, 2, length, elements, size > 1 && size % kBlockElements != 0 ? size : 0};
  check(2 * rows * columns, 0.0f, [&](const Kernels& kernels, std::vector<float>& y) {
    CHECK(vsquant::matmul({}, kernels, matmul, y.data()) == Fault::none);
  });
}

// Scales of 16 channels that are floats, in place of the weight's own.
std::vector<float> make_scales_floats(Weight& w, std::int64_t groups) {
  PackedWeight& weight = w.layer.weight;
  std::vector<float> scales = floats(groups * weight.panels() * weight.vectors() * kPanelChannels);
  weight.scale_layout = ScaleLayout::none;
  weight.float_scales = scales.data();
  w.layer.weight_format.scale = ScaleKind::fp32;
  return scales;
}

void check_float_scales(const char* weight, const char* activation, const ConvShape& shape) {
  const std::int64_t part = shape.channels / shape.walk.groups;
  Weight w(weight, activation, shape.outputs, shape.walk.groups, part, shape.walk.positions());
  const std::vector<float> scales = make_scales_floats(w, shape.walk.groups);
  const std::vector<float> x = floats(shape.samples * shape.in_pixels() * shape.channels);
  check(shape.samples * shape.out_pixels() * shape.outputs, 0.0f, [&](const Kernels& kernels, std::vector<float>& y) {
    CHECK(conv2d({}, kernels, w.layer, shape, static_input(x, w.layer.activation_format, nullptr),
                 outputs_to(y, w.coarse)) == Fault::none);
  });
}

void check_weight_only(const char* weight, bool float_scaled, const ConvShape& shape) {
  const std::int64_t groups = shape.walk.groups;
  Weight w(weight, "8", shape.outputs, groups, shape.channels / groups, shape.walk.positions());
  std::vector<float> scales;
  if (float_scaled) scales = make_scales_floats(w, groups);
  for (float& coarse : w.coarse) coarse = 1e-4f;
  const std::vector<float> x = floats(shape.samples * shape.in_pixels() * shape.channels);
  check(shape.samples * shape.out_pixels() * shape.outputs, 1e-3f, [&](const Kernels& kernels, std::vector<float>& y) {
    weight_only({}, kernels, w.layer, shape, x.data(), DType::float32, outputs_to(y, w.coarse));
  });
}

void check_depthwise_weight_only(const ConvShape& shape) {
  const std::int64_t stride = (shape.outputs + 15) / 16 * 16;
  std::vector<std::int8_t> weights(shape.walk.positions() * stride);
  for (auto& weight : weights) weight = static_cast<std::int8_t>(generator());
  const DepthwiseLayer layer{format("8"), weights.data(), stride, shape.outputs / shape.channels};
  const std::vector<float> x = floats(shape.samples * shape.in_pixels() * shape.channels);
  const std::vector<float> coarse(shape.outputs, 1e-4f);
  check(shape.samples * shape.out_pixels() * shape.outputs, 1e-3f, [&](const Kernels& kernels, std::vector<float>& y) {
    depthwise_weight_only({}, kernels, layer, shape, x.data(), DType::float32, outputs_to(y, coarse));
  });
}

}  // namespace

int main() {
  const Walk same{{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1};
  for (const char* weight : {"4-s4-v16", "8"}) {
    for (const char* activation : {"8", "4-s4-v16", "8-s8-v16"}) {
      check_conv(weight, activation, {2, 5, 4, 20, 37, same});
      check_conv(weight, activation, {1, 3, 3, 32, 16, {{1, 1}, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1}});
      check_conv(weight, activation, {1, 9, 8, 33, 70, {{3, 2}, {2, 1}, {0, 1, 2, 0}, {2, 3}, 1}});
      check_conv(weight, activation, {1, 4, 5, 24, 6, {{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 2}});
      check_conv(weight, activation, {2, 13, 14, 3, 40, {{7, 7}, {2, 2}, {3, 3, 3, 3}, {1, 1}, 1}});
      check_conv(weight, activation, {1, 9, 9, 7, 5, {{3, 3}, {4, 4}, {0, 0, 0, 0}, {1, 1}, 1}});
    }
  }
  check_depthwise({2, 6, 7, 20, 20, {{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 20}});
  check_depthwise({1, 9, 6, 10, 30, {{5, 5}, {2, 2}, {2, 2, 2, 2}, {1, 1}, 10}});
  for (const char* text : {"8", "4-s4-v16", "8-s10-v16"}) {
    check_matmul(text, text, 5, 7, 40);
    check_matmul(text, text, 33, 70, 64);
  }
  check_matmul("8", "4-s4-v16", 1, 1, 1);
  check_matmul("8", "8u", 5, 7, 40);
  check_matmul("4-s4-v24", "4-s4-v24", 5, 7, 40);
  check_matmul("8u-sfp32-v16", "6-sfp32-v16", 5, 7, 40);
  for (const char* weight : {"4-s4-v16", "6-s4-v16"}) {
    for (const char* activation : {"8", "8u", "4-s4-v16", "8-sfp32-v16"}) {
      check_float_scales(weight, activation, {2, 5, 4, 20, 37, same});
      check_float_scales(weight, activation, {1, 4, 5, 24, 6, {{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 2}});
    }
  }
  for (const char* weight : {"4-s4-v16", "8", "4", "6-s4-v16"}) {
    for (const bool float_scaled : {false, true}) {
      if (float_scaled && !std::strchr(weight, 's')) continue;
      for (const std::int64_t rows : {1, 3, 21, 100}) check_weight_only(weight, float_scaled, linear_shape(rows, 50, 37));
      check_weight_only(weight, float_scaled, {2, 5, 4, 20, 37, same});
      check_weight_only(weight, float_scaled, {1, 4, 5, 24, 6, {{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 2}});
    }
  }
  check_depthwise_weight_only({2, 6, 7, 20, 20, {{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 20}});
  check_depthwise_weight_only({1, 9, 6, 10, 30, {{5, 5}, {2, 2}, {2, 2, 2, 2}, {1, 1}, 10}});
  return test::result();
}
