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

// Eq. (11)'s erf, a quotient of polynomials; its operations and their order are the definition (vsquant.reference.erf).
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

// x times y plus z; rounded once where that is one instruction.
inline Floats multiply_add(Floats x, Floats y, Floats z) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
#else
  return x * y + z;
#endif
}

// The low byte of every lane. Compilers take a general conversion apart lane by lane.
inline void store_low_bytes(std::uint8_t* to, Ints v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
  const __m256i firsts = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
  const __m128i bytes = _mm_unpacklo_epi32(_mm256_castsi256_si128(firsts), _mm256_extracti128_si256(firsts, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
#else
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<std::uint8_t>(v[lane]);
#endif
}

// x / divisor, or with a reciprocal a value on the same side of every half of an integer below 256.
template <bool refined>
inline Floats quotient(Floats x, Floats divisor, Floats reciprocal) {
  if constexpr (!refined) return x / divisor;
  const Floats near = x * reciprocal;
  return multiply_add(multiply_add(-near, divisor, x), reciprocal, near);
}

template <Function F, bool refined, bool biased, bool added>
bool settle_tile(const Channels& channels, const RowSettling& row, const CodeRule& rule, const CodeTile& tile) {
  constexpr float kRounder = 12582912.0f;  // its sum with a code has the code in its low bits
  const Floats divisor = splat(rule.divisor), reciprocal = splat(rule.reciprocal);
  Floats finite{};
  for (int c = 0; c < row.count; c += kLanes) {
    const Floats coarse = splat(row.activation_coarse) * load<Floats>(channels.coarse + c), power = splat(row.power);
    const Floats bias = load<Floats>(channels.bias + c);
    for (int r = 0; r < tile.rows; ++r) {
      const Floats sum = rounded(tile.sums + r * tile.sum_stride + c, channels.correction + c);
      Floats value = coarse * sum * power;
      if constexpr (biased) value += bias;
      if constexpr (added) value += load<Floats>(row.residual + r * tile.stride + c);
      value = apply<F>(value);
      if (tile.y != nullptr) __builtin_memcpy(tile.y + r * tile.stride + c, &value, sizeof value);
      const Floats code = quotient<refined>(value, divisor, reciprocal);
      finite = multiply_add(code, Floats{}, finite);
      const Floats shifted = at_most(at_least(code, rule.qmin), rule.qmax) + kRounder;
      Ints bits;
      __builtin_memcpy(&bits, &shifted, sizeof bits);
      store_low_bytes(tile.codes + r * tile.code_stride + c, bits);
    }
  }
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += finite[lane];
  return total == 0;
}

template <Function F, bool refined>
bool settle_tile_of(const Channels& channels, const RowSettling& row, const CodeRule& rule, const CodeTile& tile) {
  if (row.residual != nullptr)
    return channels.has_bias ? settle_tile<F, refined, true, true>(channels, row, rule, tile)
                             : settle_tile<F, refined, false, true>(channels, row, rule, tile);
  return channels.has_bias ? settle_tile<F, refined, true, false>(channels, row, rule, tile)
                           : settle_tile<F, refined, false, false>(channels, row, rule, tile);
}

template <Function F>
bool settle_tile_by(const Channels& channels, const RowSettling& row, const CodeRule& rule, const CodeTile& tile) {
#if defined(__AVX512F__)
  if (rule.reciprocal > 0) return settle_tile_of<F, true>(channels, row, rule, tile);
#endif
  return settle_tile_of<F, false>(channels, row, rule, tile);
}

bool settle_codes(const Channels& channels, const RowSettling& row, const CodeRule& rule, const CodeTile& tile) {
  switch (row.function) {
    case Function::none: return settle_tile_by<Function::none>(channels, row, rule, tile);
    case Function::relu: return settle_tile_by<Function::relu>(channels, row, rule, tile);
    case Function::relu6: return settle_tile_by<Function::relu6>(channels, row, rule, tile);
    case Function::gelu: return settle_tile_by<Function::gelu>(channels, row, rule, tile);
  }
  return false;
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
                                           epilogue::settle<float>, epilogue::settle_codes, epilogue::fit_codes};

}  // namespace
