// Every instruction set quantizes to the scalar twin's bits: all formats, sizes that leave tails, awkward numbers, 16-bit
// floats, buffers that were poisoned before and end where they must.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "core/dispatch.hpp"
#include "core/half.hpp"
#include "core/quantize.hpp"
#include "tests/check.hpp"

namespace {

using namespace vsquant;

constexpr std::uint8_t kPoison = 0xA5;

// A buffer of exactly this size, so that a sanitizer sees the first byte beyond it; poisoned, and aligned to `offset`
// bytes past a multiple of 64.
template <class T>
class Poisoned {
 public:
  explicit Poisoned(std::size_t count, std::size_t offset = 0) : count_(count) {
    bytes_.assign(count * sizeof(T) + 64 + offset, kPoison);
    shift_ = 64 - reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64 + offset;
    bytes_.resize(count * sizeof(T) + shift_);
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + shift_); }
  bool operator==(const Poisoned& other) const {
    return std::memcmp(bytes_.data() + shift_, other.bytes_.data() + other.shift_, count_ * sizeof(T)) == 0;
  }

 private:
  std::size_t count_, shift_;
  std::vector<std::uint8_t> bytes_;
};

std::vector<Format> formats() {
  std::vector<Format> all;
  for (const char* text :
       {"2", "4", "8", "8u", "5u", "4-full", "8-g16", "2-s2-v16", "4-s4-v16", "4-s4-v32", "4-s4-v64", "8-s10-v16", "4u-s6-v16",
        "8u-s8-v48", "7u-s3-v16", "4-s4-v16-full", "6-s4-v16-top", "6-s4-v32-full-top-g16", "4-sfp16-v16", "4-sfp32-v16",
        "8u-sfp32-v32", "3-sfp16-v64-full", "4-s4-v8", "5u-s5-v3", "4-sfp32-v1000"}) {
    Format format;
    CHECK(parse_format(text, &format));
    all.push_back(format);
  }
  return all;
}

enum class Numbers { normal, halves, wide, zeros, bfloat_values };

std::vector<float> numbers(Numbers kind, std::size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) {
    value = normal(random);
    if (kind == Numbers::halves) value = std::rint(value * 4) / 2;
    if (kind == Numbers::wide) value = std::ldexp(value, static_cast<int>(random() % 270) - 148);
    if (kind == Numbers::zeros) value = random() % 3 == 0 ? value : random() % 2 == 0 ? 0.0f : -0.0f;
    if (kind == Numbers::bfloat_values) value = float_of_bfloat(bfloat_of(value));
    if (!std::isfinite(value)) value = std::numeric_limits<float>::max();
  }
  return x;
}

struct Codes {
  Poisoned<std::uint8_t> codes;
  Poisoned<std::int16_t> sigma;
  Poisoned<float> steps;
  Poisoned<std::int32_t> sums;
  Codes(std::size_t codes, std::size_t vectors, std::size_t sums)
      : codes(codes, 3), sigma(vectors, 2), steps(vectors, 4), sums(sums, 4) {}
  CodeRows rows(const Format& format, std::int64_t padded, int sum_elements) {
    return {codes.data(), padded, format.scale == ScaleKind::integer ? sigma.data() : nullptr,
            format.scale == ScaleKind::fp16 || format.scale == ScaleKind::fp32 ? steps.data() : nullptr,
            sum_elements == 0 ? nullptr : sums.data(), sum_elements};
  }
};

void compare(const QuantizeKernels& kernels, const Quantizer& quantizer, const FloatRows& x, float coarse) {
  const Format& format = quantizer.format;
  const std::int64_t unit = format.vector_size == 0 ? 16 : format.vector_size;
  const std::int64_t padded = (x.length + unit - 1) / unit * unit, vectors = x.rows * padded / unit;
  const int sum_elements = unit % 16 == 0 ? static_cast<int>(unit) : 0;
  const std::size_t bytes = static_cast<std::size_t>(x.rows * x.length) * (x.dtype == DType::float32 ? 4 : 2);
  for (const bool stream : {false, true}) {
    if (stream && x.length % 16 != 0) continue;
    Poisoned<std::uint8_t> ours(bytes, stream ? 0 : 4), theirs(bytes, 4);
    const Fault fault = fake_quantize_rows(kernels, quantizer, x, coarse, ours.data(), {stream, stream ? 64 : 0});
    CHECK(fault == fake_quantize_rows(scalar_quantize, quantizer, x, coarse, theirs.data(), {}));
    CHECK(fault != Fault::none || ours == theirs);
  }
  Codes ours(static_cast<std::size_t>(x.rows * padded), static_cast<std::size_t>(vectors), static_cast<std::size_t>(vectors));
  Codes theirs = ours;
  const Fault fault = quantize_rows(kernels, quantizer, x, coarse, ours.rows(format, padded, sum_elements));
  CHECK(fault == quantize_rows(scalar_quantize, quantizer, x, coarse, theirs.rows(format, padded, sum_elements)));
  if (fault != Fault::none) return;
  CHECK(ours.codes == theirs.codes);
  CHECK(ours.sigma == theirs.sigma);
  CHECK(ours.steps == theirs.steps);
  CHECK(ours.sums == theirs.sums);
}

void compare_all(const QuantizeKernels& kernels) {
  std::mt19937 random(7);
  for (const Format& format : formats())
    for (const Numbers kind : {Numbers::normal, Numbers::halves, Numbers::wide, Numbers::zeros, Numbers::bfloat_values})
      for (const std::int64_t length : {0, 1, 15, 16, 33, 256, 272, 1000, 2064})
        for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
          const std::int64_t rows = length < 300 ? 5 : 2, stride = length + static_cast<std::int64_t>(random() % 2) * 3;
          const auto count = static_cast<std::size_t>(rows * stride);
          const std::vector<float> values = numbers(kind, count, random);
          Poisoned<std::uint8_t> stored(count * (dtype == DType::float32 ? 4 : 2), 4);
          scalar_quantize.from_float(dtype, values.data(), static_cast<std::int64_t>(count), stored.data());
          const FloatRows x{stored.data(), dtype, rows, length, stride};
          const Extremes ours = extremes_of(kernels, x), theirs = extremes_of(scalar_quantize, x);
          CHECK(ours.up == theirs.up && ours.down == theirs.down);
          float found = 1, fixed = 1;
          if (coarse_of(format, theirs, nullptr, &found) != Fault::none) continue;
          if (static_coarse(format, 2.5f, &fixed) != Fault::none) continue;
          for (const ScaleMode mode : {ScaleMode::requantize, ScaleMode::paper})
            for (const float coarse : {found, fixed}) compare(kernels, {format, mode}, x, coarse);
        }
}

void check_faults(const QuantizeKernels& kernels) {
  for (const char* text : {"8", "8u", "4-s4-v16", "4u-s4-v16", "4-s4-v16-full", "4-sfp16-v16", "4-s4-v5"}) {
    Format format;
    CHECK(parse_format(text, &format));
    for (const float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()})
      for (const std::size_t place : {0, 17, 99, 599}) {
        std::vector<float> x(600, 1.0f), out(600);
        std::vector<std::uint8_t> codes(608);
        std::vector<std::int16_t> sigma(200);
        std::vector<float> steps(200);
        x[place] = bad;
        const FloatRows rows{x.data(), DType::float32, 1, 600, 600};
        const Quantizer quantizer{format};
        float coarse;
        CHECK(dynamic_coarse(kernels, format, rows, &coarse) == Fault::not_finite);
        CHECK(fake_quantize_rows(kernels, quantizer, rows, 0.1f, out.data(), {}) == Fault::not_finite);
        CHECK(quantize_rows(kernels, quantizer, rows, 0.1f, {codes.data(), format.vector_size == 5 ? 600 : 608, sigma.data(), steps.data()}) == Fault::not_finite);
        const Refusal why = refusal(quantizer, Share::group, {x.data(), DType::float32, 1, 1, 600}, {});
        CHECK(why.fault == Fault::not_finite);
        CHECK(why.text == std::string("a tensor must be finite to be quantized, but it holds ") + (bad != bad ? "NaN" : "Inf"));
      }
  }
}

// The 16-bit floats: all of them, there and back, and the floats around them.
void check_halves(const QuantizeKernels& kernels) {
  for (const DType dtype : {DType::bfloat16, DType::float16}) {
    std::vector<std::uint16_t> all(1 << 16), back(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> floats(all.size()), twin(all.size());
    const auto count = static_cast<std::int64_t>(all.size());
    kernels.to_float(dtype, all.data(), count, floats.data());
    scalar_quantize.to_float(dtype, all.data(), count, twin.data());
    CHECK(std::memcmp(floats.data(), twin.data(), floats.size() * sizeof(float)) == 0);
    kernels.from_float(dtype, floats.data(), count, back.data());
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(back[i] == all[i] || std::isnan(floats[i]));
    std::mt19937 random(3);
    for (float& value : floats) value = float_of(static_cast<std::int32_t>(random()));
    std::vector<std::uint16_t> ours(all.size()), theirs(all.size());
    kernels.from_float(dtype, floats.data(), count - 3, ours.data());
    scalar_quantize.from_float(dtype, floats.data(), count - 3, theirs.data());
    CHECK(ours == theirs);
  }
}

// A few codes worked out by hand from eqs. (1)-(5).
void check_by_hand(const QuantizeKernels& kernels) {
  std::vector<float> x(32, 0.0f);
  x[0] = 7.0f, x[1] = -3.5f, x[2] = 2.5f, x[3] = -0.2f;  // alpha 7, s 1
  x[16] = 105.0f, x[17] = 22.5f;                         // alpha 105, s 15 = gamma * 15, gamma 1
  Format format;
  CHECK(parse_format("4-s4-v16", &format));
  const FloatRows rows{x.data(), DType::float32, 1, 32, 32};
  float gamma;
  CHECK(dynamic_coarse(kernels, format, rows, &gamma) == Fault::none && gamma == 1.0f);
  std::uint8_t codes[32];
  std::int16_t sigma[2];
  std::int32_t sums[2];
  CHECK(requantize_row(kernels, {format}, x.data(), 32, gamma, {codes, 32, sigma, nullptr, sums, 16}) == Fault::none);
  CHECK(sigma[0] == 1 && sigma[1] == 15);
  const int expected[] = {7, -4, 2, 0};
  for (int i = 0; i < 4; ++i) CHECK(static_cast<std::int8_t>(codes[i]) == expected[i]);
  CHECK(codes[16] == 7 && codes[17] == 2);
  CHECK(sums[0] == 5 && sums[1] == 9);
}

}  // namespace

int main() {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set.usable()) continue;
    const QuantizeKernels& kernels = set.kernels->quantize;
    compare_all(kernels);
    check_faults(kernels);
    check_halves(kernels);
    check_by_hand(kernels);
    std::printf("%s\n", set.name);
  }
  return test::result();
}
