// Every instruction set settles sums and fits codes as the scalar one does, bit for bit.
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
    check_fitting(*set.kernels, random);
  }
  return test::result();
}
