// Every instruction set settles sums and fits codes as the scalar one does, bit for bit.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/dispatch.hpp"
#include "core/kernels.hpp"
#include "tests/check.hpp"

using namespace vsquant;

namespace {

constexpr int kCount = Channels::kMost;
constexpr Function kFunctions[] = {Function::none, Function::relu, Function::relu6, Function::gelu};

// Sums of every magnitude, those that float64 must round among them.
std::int64_t wide_sum(std::mt19937_64& random) {
  const int shift = static_cast<int>(random() % 63);
  return static_cast<std::int64_t>(random()) >> shift;
}

Channels channels(std::mt19937_64& random, bool has_bias) {
  std::normal_distribution<float> normal;
  Channels made{};
  for (int c = 0; c < kCount; ++c) {
    made.coarse[c] = normal(random) * 1e-3f;
    made.bias[c] = has_bias ? normal(random) : 0.0f;
    made.correction[c] = static_cast<std::int32_t>(random());
  }
  made.has_bias = has_bias;
  return made;
}

void check_settling(const Kernels& kernels, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  for (int round = 0; round < 2000; ++round) {
    const Channels of = channels(random, round % 2 != 0);
    std::int32_t narrow[kCount];
    std::int64_t wide[kCount];
    float residual[kCount];
    for (int c = 0; c < kCount; ++c) {
      wide[c] = wide_sum(random);
      // Sums minus corrections fit 32 bits, as those of real layers do.
      narrow[c] = of.correction[c] / 2 + static_cast<std::int32_t>(wide_sum(random)) / 2;
      residual[c] = normal(random);
    }
    const int count = kPanelChannels * (1 + round % (kCount / kPanelChannels));
    const RowSettling row{normal(random), round % 3 == 0 ? 64.0f : 1.0f, round % 5 < 2 ? residual : nullptr,
                          kFunctions[round % 4], count};
    float given[kCount] = {}, right[kCount] = {};
    kernels.epilogue.settle32(of, row, narrow, given);
    scalar_kernels()->epilogue.settle32(of, row, narrow, right);
    CHECK(std::memcmp(given, right, sizeof right) == 0);
    kernels.epilogue.settle64(of, row, wide, given);
    scalar_kernels()->epilogue.settle64(of, row, wide, right);
    CHECK(std::memcmp(given, right, sizeof right) == 0);
  }
}

// Codes of values next to where they round to another, for divisors of every kind: those of settled and divided floats.
void check_codes(const Kernels& kernels, std::mt19937_64& random) {
  for (int round = 0; round < 20000; ++round) {
    std::uint32_t bits = (127 - 20 + random() % 40) << 23 | static_cast<std::uint32_t>(random() % (1 << 23));
    if (round % 4 == 0) bits = (bits & ~0x7fffu) + static_cast<std::uint32_t>(random() % 32) - 16;
    float divisor;
    std::memcpy(&divisor, &bits, sizeof divisor);
    const CodeRule rule{divisor, reciprocal_of(divisor), round % 2 == 0 ? -127.0f : 0.0f, round % 2 == 0 ? 127.0f : 255.0f};
    Channels of{};
    std::int32_t sums[kCount] = {};
    float residual[kCount], y[kCount];
    std::uint8_t codes[kCount];
    for (int c = 0; c < kCount; ++c) {
      const float half = static_cast<float>(random() % 600) / 2 * divisor;
      std::uint32_t near;
      std::memcpy(&near, &half, sizeof near);
      near += half > 0 ? static_cast<std::uint32_t>(random() % 9) - 4 : 0;
      std::memcpy(residual + c, &near, sizeof near);
      if (random() % 2 == 0) residual[c] = -residual[c];
    }
    const Function function = round % 5 == 4 ? Function::gelu : kFunctions[round % 2];
    const RowSettling row{1.0f, 1.0f, residual, function, kCount};
    CHECK(kernels.epilogue.settle_codes(of, row, rule, {1, sums, kCount, kCount, y, codes, kCount}));
    for (int c = 0; c < kCount; ++c) {
      const float clipped = std::fmin(std::fmax(y[c] / divisor, rule.qmin), rule.qmax);
      CHECK(codes[c] == static_cast<std::uint8_t>(static_cast<int>(std::nearbyint(clipped))));
    }
    residual[round % kCount] = round % 3 == 0 ? NAN : INFINITY;
    CHECK(!kernels.epilogue.settle_codes(of, row, rule, {1, sums, kCount, kCount, nullptr, codes, kCount}));
  }
}

void check_fitting(const Kernels& kernels, std::mt19937_64& random) {
  for (const int elements : {16, 48}) {
    for (const std::uint8_t sign : {std::uint8_t{0}, std::uint8_t{128}}) {
      for (const bool scaled : {false, true}) {
        constexpr int kVectors = 5;
        std::vector<std::uint8_t> codes(kVectors * elements), given(codes.size()), right(codes.size());
        std::vector<std::int16_t> scales(kVectors);
        for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random());
        for (std::int16_t& scale : scales) scale = static_cast<std::int16_t>(random() % 17);
        const std::int16_t* by = scaled ? scales.data() : nullptr;
        kernels.epilogue.fit_codes(codes.data(), by, kVectors, elements, sign, given.data());
        scalar_kernels()->epilogue.fit_codes(codes.data(), by, kVectors, elements, sign, right.data());
        CHECK(given == right);
      }
    }
  }
}

}  // namespace

int main() {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set.usable()) continue;
    std::mt19937_64 random(20261123);
    check_settling(*set.kernels, random);
    check_codes(*set.kernels, random);
    check_fitting(*set.kernels, random);
  }
  return test::result();
}
