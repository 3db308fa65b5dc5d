// Rows of floats times panels of codes that become floats in registers: layers whose activations stay floating point.

namespace {
namespace floats {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kMostRows = 8, kPanels = 2;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kMostRows = 4, kPanels = 1;
#else
constexpr int kLanes = 4, kMostRows = 4, kPanels = 1;
#endif
constexpr int kRegisters = kPanelChannels / kLanes;  // of a panel

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));

// The code whose bits begin at `shift` in lanes of four codes.
#if defined(__AVX512F__)
inline Floats splat(float value) { return reinterpret_cast<Floats>(_mm512_set1_ps(value)); }
inline Floats nibble(Ints four, int shift) {
  const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  return reinterpret_cast<Floats>(
      _mm512_permutexvar_ps(_mm512_srli_epi32(reinterpret_cast<__m512i>(four), shift), values));
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return reinterpret_cast<Floats>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
inline Floats widened(const std::int16_t* from) {
  return reinterpret_cast<Floats>(
      _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))));
}
#else
inline Floats splat(float value) { return value - Floats{}; }
inline Floats nibble(Ints four, int shift) { return __builtin_convertvector(((four >> shift) & 15) - 8, Floats); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
#if defined(__AVX2__)
inline Floats widened(const std::int16_t* from) {
  return reinterpret_cast<Floats>(
      _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))));
}
#else
inline Floats widened(const std::int16_t* from) {
  Floats wide;
  for (int i = 0; i < kLanes; ++i) wide[i] = from[i];
  return wide;
}
#endif
#endif
inline Floats byte(Ints four, int shift) { return __builtin_convertvector((four << (24 - shift)) >> 24, Floats); }

// out[row * kPanels * 16 + channel] = sum of x * (q * sigma). Few rows take several sums at once, to not wait for one.
template <CodeLayout Layout, bool Scaled, int Rows, int Panels>
void products(const float* x, std::int64_t stride, const PackedWeight& weight, std::int64_t panel, const std::int16_t* const* scales,
              float* out) {
  constexpr int kSplit = Rows >= 4 ? 1 : 4, kWide = Panels * kRegisters;
  constexpr bool kNibbles = Layout == CodeLayout::nibbles;
  constexpr int kBytes = kNibbles ? kBlockCodes / 2 : kBlockCodes, kElements = kNibbles ? 8 : 4;
  Floats sum[Rows][kWide][kSplit] = {};
  for (std::int64_t block = 0; block < weight.blocks; ++block) {
    Floats scale[kWide];
    for (int i = 0; Scaled && i < kWide; ++i)
      scale[i] = widened(scales[i / kRegisters] + block / weight.blocks_per_vector * kPanelChannels +
                         i % kRegisters * kLanes);
    for (int part = 0; part < kBlockElements / kElements; ++part) {
      Ints four[kWide];
      for (int i = 0; i < kWide; ++i)
        __builtin_memcpy(&four[i],
                         weight.codes + ((panel + i / kRegisters) * weight.blocks + block) * kBytes + part * 64 +
                             i % kRegisters * kLanes * 4,
                         sizeof four[i]);
      const std::int64_t first = block * kBlockElements + part * kElements;
#pragma GCC unroll 8
      for (int e = 0; e < kElements; ++e) {
        Floats w[kWide];
        for (int i = 0; i < kWide; ++i) {
          w[i] = kNibbles ? nibble(four[i], e % 4 * 8 + e / 4 * 4) : byte(four[i], e * 8);
          if constexpr (Scaled) w[i] *= scale[i];
        }
        for (int r = 0; r < Rows; ++r) {
          const Floats a = splat(x[r * stride + first + e]);
          for (int i = 0; i < kWide; ++i) sum[r][i][e % kSplit] = multiply_add(a, w[i], sum[r][i][e % kSplit]);
        }
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int i = 0; i < kWide; ++i) {
      Floats all = sum[r][i][0];
      for (int s = 1; s < kSplit; ++s) all += sum[r][i][s];
      __builtin_memcpy(out + r * kPanels * kPanelChannels + i * kLanes, &all, sizeof all);
    }
  }
}

template <int Rows, int Panels>
void by_layout(const float* x, std::int64_t stride, const PackedWeight& weight, std::int64_t panel,
               const std::int16_t* const* scales, float* out) {
  if (weight.code_layout == CodeLayout::nibbles)
    return scales ? products<CodeLayout::nibbles, true, Rows, Panels>(x, stride, weight, panel, scales, out)
                  : products<CodeLayout::nibbles, false, Rows, Panels>(x, stride, weight, panel, scales, out);
  return scales ? products<CodeLayout::bytes, true, Rows, Panels>(x, stride, weight, panel, scales, out)
                : products<CodeLayout::bytes, false, Rows, Panels>(x, stride, weight, panel, scales, out);
}

template <int Rows>
void by_panels(const float* x, std::int64_t stride, const PackedWeight& weight, std::int64_t panel, int panels,
               const std::int16_t* const* scales, float* out) {
  if (panels == 1) return by_layout<Rows, 1>(x, stride, weight, panel, scales, out);
  by_layout<Rows, kPanels>(x, stride, weight, panel, scales, out);
}

int tile(const float* x, std::int64_t stride, int rows, const PackedWeight& weight, std::int64_t panel, int panels,
         const std::int16_t* const* scales, float* out) {
  if constexpr (kMostRows >= 8)
    if (rows >= 8) return by_panels<8>(x, stride, weight, panel, panels, scales, out), 8;
  if (rows >= 4) return by_panels<4>(x, stride, weight, panel, panels, scales, out), 4;
  if (rows >= 2) return by_panels<2>(x, stride, weight, panel, panels, scales, out), 2;
  return by_panels<1>(x, stride, weight, panel, panels, scales, out), 1;
}

}  // namespace floats
}  // namespace
