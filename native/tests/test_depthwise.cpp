// Every instruction set's depthwise sums are those of the definition, for signed and unsigned codes of extreme sizes.
#include <cstdint>
#include <random>
#include <vector>

#include "core/dispatch.hpp"
#include "tests/check.hpp"

namespace {

using namespace vsquant;

void check(const Kernels& kernels, int rows, int positions, bool codes_signed, std::mt19937& random) {
  constexpr int kStride = 80, kFirst = 16, kCount = 48;
  std::vector<std::uint8_t> codes(rows * positions * kStride);
  std::vector<std::int8_t> weights(positions * kStride);
  for (auto& code : codes) code = static_cast<std::uint8_t>(random() % 4 == 0 ? (codes_signed ? 129 : 255) : random());
  for (auto& weight : weights) weight = static_cast<std::int8_t>(random() % 4 == 0 ? -128 : random());
  std::vector<const std::uint8_t*> pointers;
  for (int at = 0; at < positions * rows; ++at) pointers.push_back(codes.data() + at * kStride);
  const RowTile tile{pointers.data(), nullptr, nullptr, rows, positions, 1, codes_signed};
  std::vector<std::int32_t> sums(4 * Channels::kMost, -1);
  kernels.depthwise_tile(tile, weights.data(), kStride, kFirst, kCount, sums.data());
  for (int row = 0; row < rows; ++row) {
    for (int channel = 0; channel < kCount; ++channel) {
      std::int32_t expected = 0;
      for (int position = 0; position < positions; ++position) {
        const std::uint8_t code = pointers[position * rows + row][kFirst + channel];
        expected += (codes_signed ? static_cast<std::int8_t>(code) : code) * weights[position * kStride + kFirst + channel];
      }
      CHECK(sums[row * Channels::kMost + channel] == expected);
    }
    CHECK(sums[row * Channels::kMost + kCount] == -1);
  }
}

}  // namespace

int main() {
  std::mt19937 random(20261123);
  for (const InstructionSet& set : instruction_sets())
    for (int rows = 1; set.usable() && rows <= 4; ++rows)
      for (const int positions : {1, 9, 25})
        for (const bool codes_signed : {true, false}) check(*set.kernels, rows, positions, codes_signed, random);
  return test::result();
}
