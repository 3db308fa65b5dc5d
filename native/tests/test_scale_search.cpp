// Every instruction set searches to the bits of the plainest code: scales, codes and errors, tails and weights too.
#include "core/scale_search.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/dispatch.hpp"
#include "tests/check.hpp"

namespace {

using namespace vsquant;

struct Found {
  std::vector<std::uint8_t> codes;
  std::vector<std::int16_t> sigma;
  std::vector<double> error;
  bool operator==(const Found& other) const {
    return codes == other.codes && sigma == other.sigma && error == other.error;
  }
};

// The definition, one candidate and one element at a time.
void search_plainly(const SearchRule& rule, const float* x, const double* h, std::uint8_t* codes, std::int16_t* sigma,
                    double* error) {
  *error = std::numeric_limits<double>::infinity();
  int best = 1;
  const auto code = [&](float element, float step) {
    return step > 0 ? std::fmin(std::fmax(std::rint(element / step), rule.qmin), rule.qmax) : 0.0f;
  };
  for (int candidate = 1; candidate <= rule.sigma_top; ++candidate) {
    const float step = static_cast<float>(candidate) * rule.gamma;
    double sum = 0;
    for (int i = 0; i < rule.vector_size; ++i) {
      const double difference = static_cast<double>(x[i]) - static_cast<double>(code(x[i], step) * step);
      sum += (h == nullptr ? 1.0 : h[i]) * (difference * difference);
    }
    if (sum < *error) {
      *error = sum;
      best = candidate;
    }
  }
  *sigma = static_cast<std::int16_t>(rule.gamma > 0 ? best : rule.sigma_min);
  for (int i = 0; i < rule.vector_size; ++i)
    codes[i] = static_cast<std::uint8_t>(static_cast<int>(code(x[i], static_cast<float>(best) * rule.gamma)));
}

Found searched(SearchVector search, const Format& format, const SearchTensor& tensor) {
  const std::int64_t vectors =
      tensor.groups * tensor.rows * ((tensor.length + format.vector_size - 1) / format.vector_size);
  Found found{std::vector<std::uint8_t>(vectors * format.vector_size), std::vector<std::int16_t>(vectors),
              std::vector<double>(vectors)};
  search_scales(search, ThreadPool{}, format, tensor, {found.codes.data(), found.sigma.data(), found.error.data()});
  return found;
}

void compare(const char* text, std::int64_t length, std::int64_t weight_rows, std::mt19937& random) {
  Format format;
  CHECK(parse_format(text, &format));
  constexpr std::int64_t kGroups = 5, kRows = 2;
  std::normal_distribution<float> normal;
  std::vector<float> x(kGroups * kRows * length), gamma{0.0f, 1e-3f, 0.04f, 2.0f, 1e-44f};
  for (float& value : x) value = normal(random);
  std::vector<double> weights(weight_rows * length);
  for (double& value : weights) value = std::fmax(0.0, normal(random));
  const SearchTensor tensor{x.data(), kGroups, kRows, length, gamma.data(), weight_rows ? weights.data() : nullptr,
                            weight_rows};
  const Found plain = searched(search_plainly, format, tensor);
  for (const InstructionSet& set : instruction_sets())
    if (set.usable()) CHECK(searched(set.kernels->search_vector, format, tensor) == plain);
}

}  // namespace

int main() {
  std::mt19937 random(1);
  for (const char* text : {"2-s2-v16", "3-s3-v16-full", "4-s4-v16", "4-s4-v16-top", "4-s6-v32-full-top", "8-s5-v5",
                           "6-s10-v64", "4-s4-v1000"})
    for (const std::int64_t length : {0, 1, 16, 75, 128})
      for (const std::int64_t weight_rows : {0, 1, 5}) compare(text, length, weight_rows, random);
  return vsquant::test::result();
}
