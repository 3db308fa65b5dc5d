// Scale search, lanes being candidates: every lane adds up its own error in the order of the elements, so that any width
// gives the bits of plain code.

namespace {
namespace searching {

constexpr int kCandidates = 16;  // at work together
// Added to a float below 2^22 in size and taken away again it leaves the nearest integer, ties to even.
constexpr float kRounder = 12582912.0f;

inline float rounded(float ratio, float qmin, float qmax) {
  const float above = ratio < qmin ? qmin : ratio;
  const float clipped = above > qmax ? qmax : above;
  return (clipped + kRounder) - kRounder;
}

template <bool kWeighted>
inline void errors_of(const SearchRule& rule, const float* steps, const float* x, const double* h, double* errors) {
  double sums[kCandidates] = {};
  for (int i = 0; i < rule.vector_size; ++i) {
    const float element = x[i];
    const double exact = element, weight = kWeighted ? h[i] : 1.0;
    for (int lane = 0; lane < kCandidates; ++lane) {
      const float value = rounded(element / steps[lane], rule.qmin, rule.qmax) * steps[lane];
      const double difference = exact - static_cast<double>(value);
      const double square = difference * difference;
      sums[lane] += kWeighted ? weight * square : square;
    }
  }
  for (int lane = 0; lane < kCandidates; ++lane) errors[lane] = sums[lane];
}

// All of it is lost: x^ = 0.
inline void no_codes(const SearchRule& rule, const float* x, const double* h, std::uint8_t* codes, std::int16_t* sigma,
                     double* error) {
  *error = 0;
  for (int i = 0; i < rule.vector_size; ++i) {
    const double exact = x[i], square = exact * exact;
    *error += h != nullptr ? h[i] * square : square;
    codes[i] = 0;
  }
  *sigma = static_cast<std::int16_t>(rule.sigma_min);
}

inline void search_vector(const SearchRule& rule, const float* x, const double* h, std::uint8_t* codes,
                          std::int16_t* sigma, double* error) {
  if (!(rule.gamma > 0)) return no_codes(rule, x, h, codes, sigma, error);
  double least = __builtin_inf();
  int best = 1;
  for (int first = 1; first <= rule.sigma_top; first += kCandidates) {
    float steps[kCandidates];
    double errors[kCandidates];
    for (int lane = 0; lane < kCandidates; ++lane) steps[lane] = static_cast<float>(first + lane) * rule.gamma;
    if (h != nullptr)
      errors_of<true>(rule, steps, x, h, errors);
    else
      errors_of<false>(rule, steps, x, h, errors);
    for (int lane = 0; lane < kCandidates && first + lane <= rule.sigma_top; ++lane)
      if (errors[lane] < least) {
        least = errors[lane];
        best = first + lane;
      }
  }
  *sigma = static_cast<std::int16_t>(best);
  *error = least;
  const float step = static_cast<float>(best) * rule.gamma;
  for (int i = 0; i < rule.vector_size; ++i)
    codes[i] = static_cast<std::uint8_t>(static_cast<int>(rounded(x[i] / step, rule.qmin, rule.qmax)));
}

}  // namespace searching
}  // namespace
