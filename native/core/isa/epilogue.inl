// Settling sums in loops of 16 channels that the compiler turns into registers of the set it compiles for.

namespace {

// fl(S), once rounded: from int32 directly; from int64 through float64, which holds every sum below 2^53 exactly.
inline float rounded(std::int32_t sum) { return static_cast<float>(sum); }
inline float rounded(std::int64_t sum) { return static_cast<float>(static_cast<double>(sum)); }

// erf as a quotient of polynomials on [-4, 4], where float32 reaches +-1: within 5e-7 of it everywhere (tested).
inline float erf_quotient(float x) {
  const float bounded = x > 4.0f ? 4.0f : x < -4.0f ? -4.0f : x;
  const float square = bounded * bounded;
  float top = -2.72614225801306e-10f;
  top = top * square + 2.77068142495902e-08f;
  top = top * square + -2.10102402082508e-06f;
  top = top * square + -5.69250639462346e-05f;
  top = top * square + -7.34990630326855e-04f;
  top = top * square + -2.95459980854025e-03f;
  top = top * square + -1.60960333262415e-02f;
  float bottom = -1.45660718464996e-05f;
  bottom = bottom * square + -2.13374055278905e-04f;
  bottom = bottom * square + -1.68282697438203e-03f;
  bottom = bottom * square + -7.37332916720468e-03f;
  bottom = bottom * square + -1.42647390514189e-02f;
  return bounded * top / bottom;
}

template <Function F>
inline float apply(float y) {
  if constexpr (F == Function::relu) return y < 0.0f ? 0.0f : y;
  if constexpr (F == Function::relu6) {
    const float positive = y < 0.0f ? 0.0f : y;
    return positive > 6.0f ? 6.0f : positive;
  }
  if constexpr (F == Function::gelu) return y * 0.5f * (1.0f + erf_quotient(y * 0.70710678118654752f));
  return y;
}

template <Function F, class Sum>
void settle_as(const Channels& channels, const RowSettling& row, const Sum* __restrict sums, float* __restrict y) {
  for (int first = 0; first < row.count; first += 16) {
    const float* __restrict coarse = channels.coarse + first;
    const float* __restrict bias = channels.bias + first;
    for (int c = 0; c < 16; ++c) {
      Sum sum = sums[first + c];
      if constexpr (sizeof(Sum) == 4)
        sum = static_cast<Sum>(static_cast<std::uint32_t>(sum) -
                               static_cast<std::uint32_t>(channels.correction[first + c]));
      y[first + c] = row.activation_coarse * coarse[c] * rounded(sum) * row.power;
    }
    if (channels.has_bias)
      for (int c = 0; c < 16; ++c) y[first + c] += bias[c];
    if (row.residual != nullptr)
      for (int c = 0; c < 16; ++c) y[first + c] += row.residual[first + c];
    if constexpr (F != Function::none)
      for (int c = 0; c < 16; ++c) y[first + c] = apply<F>(y[first + c]);
  }
}

template <class Sum>
void settle(const Channels& channels, const RowSettling& row, const Sum* sums, float* y) {
  switch (row.function) {
    case Function::none: return settle_as<Function::none>(channels, row, sums, y);
    case Function::relu: return settle_as<Function::relu>(channels, row, sums, y);
    case Function::relu6: return settle_as<Function::relu6>(channels, row, sums, y);
    case Function::gelu: return settle_as<Function::gelu>(channels, row, sums, y);
  }
}

// Codes on their way into a folded product: times their vector's scale, and with the sign bit turned where biased.
void fit_codes(const std::uint8_t* codes, const std::int16_t* scales, std::int64_t vectors, int elements,
               std::uint8_t sign, std::uint8_t* out) {
  if (scales == nullptr) {
    for (std::int64_t i = 0; i < vectors * elements; ++i) out[i] = codes[i] ^ sign;
    return;
  }
  for (std::int64_t v = 0; v < vectors; ++v) {
    const auto scale = static_cast<std::uint16_t>(scales[v]);
    for (int block = 0; block < elements; block += kBlockElements, codes += kBlockElements, out += kBlockElements)
      for (int i = 0; i < kBlockElements; ++i)
        out[i] = static_cast<std::uint8_t>(static_cast<std::uint16_t>(codes[i] * scale)) ^ sign;
  }
}

constexpr EpilogueKernels epilogue_kernels{settle<std::int32_t>, settle<std::int64_t>, fit_codes};

}  // namespace
