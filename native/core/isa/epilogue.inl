// Settling sums, in vectors of the instruction set at hand.

namespace {
namespace epilogue {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef double Doubles __attribute__((vector_size(kLanes * 8)));
typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef std::int64_t Longs __attribute__((vector_size(kLanes * 8)));

template <class V, class T>
inline V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline Floats splat(float value) { return value - Floats{}; }

// fl(S), rounded once: from int32 directly; from int64 through float64, which holds every sum below 2^53 exactly.
inline Floats rounded(const std::int32_t* sums, const std::int32_t* correction) {
  return __builtin_convertvector(load<Ints>(sums) - load<Ints>(correction), Floats);
}
inline Floats rounded(const std::int64_t* sums, const std::int32_t*) {
  return __builtin_convertvector(__builtin_convertvector(load<Longs>(sums), Doubles), Floats);
}
inline Floats rounded(const float* sums, const std::int32_t*) { return load<Floats>(sums); }

inline Floats at_least(Floats x, float low) { return x < low ? splat(low) : x; }
inline Floats at_most(Floats x, float high) { return x > high ? splat(high) : x; }

// erf as a quotient of polynomials on [-4, 4], where float32 reaches +-1: within 5e-7 of it everywhere (tested).
inline Floats erf_quotient(Floats x) {
  const Floats bounded = at_most(at_least(x, -4.0f), 4.0f), square = bounded * bounded;
  Floats top = splat(-2.72614225801306e-10f);
  top = top * square + 2.77068142495902e-08f;
  top = top * square + -2.10102402082508e-06f;
  top = top * square + -5.69250639462346e-05f;
  top = top * square + -7.34990630326855e-04f;
  top = top * square + -2.95459980854025e-03f;
  top = top * square + -1.60960333262415e-02f;
  Floats bottom = splat(-1.45660718464996e-05f);
  bottom = bottom * square + -2.13374055278905e-04f;
  bottom = bottom * square + -1.68282697438203e-03f;
  bottom = bottom * square + -7.37332916720468e-03f;
  bottom = bottom * square + -1.42647390514189e-02f;
  return bounded * top / bottom;
}

template <Function F>
inline Floats apply(Floats y) {
  if constexpr (F == Function::relu) return at_least(y, 0.0f);
  if constexpr (F == Function::relu6) return at_most(at_least(y, 0.0f), 6.0f);
  if constexpr (F == Function::gelu) return y * 0.5f * (1.0f + erf_quotient(y * 0.70710678118654752f));
  return y;
}

template <Function F, class Sum>
void settle_as(const Channels& channels, const RowSettling& row, const Sum* sums, float* y) {
  const Floats activation_coarse = splat(row.activation_coarse), power = splat(row.power);
  for (int c = 0; c < row.count; c += kLanes) {
    const Floats sum = rounded(sums + c, channels.correction + c);
    Floats value = activation_coarse * load<Floats>(channels.coarse + c) * sum * power;
    if (channels.has_bias) value += load<Floats>(channels.bias + c);
    if (row.residual != nullptr) value += load<Floats>(row.residual + c);
    value = apply<F>(value);
    __builtin_memcpy(y + c, &value, sizeof value);
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

}  // namespace epilogue

constexpr EpilogueKernels epilogue_kernels{epilogue::settle<std::int32_t>, epilogue::settle<std::int64_t>,
                                           epilogue::settle<float>, epilogue::fit_codes};

}  // namespace
