// Products under float vector scales: exact partial sums of one vector, then float64 vector after vector.

namespace {
namespace scaled {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kMostRows = 4;

typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef double Doubles __attribute__((vector_size(kLanes * 8)));

inline std::int32_t word(const std::uint8_t* codes) {
  std::int32_t four;
  __builtin_memcpy(&four, codes, sizeof four);
  return four;
}

// sum[row] = the products of `groups` times four codes with kLanes channels of weights.
#if defined(__AVX512F__)
template <bool Signed, int Rows>
inline void dots(const std::uint8_t* const* codes, std::int64_t at, const std::int8_t* weights, int groups, Ints* sum) {
  const __m512i bias = _mm512_set1_epi8(-128);
  __m512i total[Rows], start = _mm512_setzero_si512();
  for (int r = 0; r < Rows; ++r) total[r] = start;
  for (int g = 0; g < groups; ++g) {
    const __m512i w = _mm512_loadu_si512(weights + g * 64);
    if (Signed) start = _mm512_dpbusd_epi32(start, bias, w);
    for (int r = 0; r < Rows; ++r) {
      const __m512i a = _mm512_set1_epi32(word(codes[r] + at + g * 4));
      total[r] = _mm512_dpbusd_epi32(total[r], Signed ? _mm512_xor_si512(a, bias) : a, w);
    }
  }
  for (int r = 0; r < Rows; ++r) sum[r] = reinterpret_cast<Ints>(_mm512_sub_epi32(total[r], start));
}
#elif defined(__AVX2__)
template <bool Signed>
inline __m256i even(__m256i bytes) {
  const __m256i shifted = _mm256_slli_epi16(bytes, 8);
  return Signed ? _mm256_srai_epi16(shifted, 8) : _mm256_srli_epi16(shifted, 8);
}
template <bool Signed>
inline __m256i odd(__m256i bytes) { return Signed ? _mm256_srai_epi16(bytes, 8) : _mm256_srli_epi16(bytes, 8); }

template <bool Signed, int Rows>
inline void dots(const std::uint8_t* const* codes, std::int64_t at, const std::int8_t* weights, int groups, Ints* sum) {
  __m256i total[Rows];
  for (int r = 0; r < Rows; ++r) total[r] = _mm256_setzero_si256();
  for (int g = 0; g < groups; ++g) {
    const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + g * 64));
    const __m256i first = even<true>(w), second = odd<true>(w);
    for (int r = 0; r < Rows; ++r) {
      const __m256i a = _mm256_set1_epi32(word(codes[r] + at + g * 4));
      total[r] = _mm256_add_epi32(total[r], _mm256_add_epi32(_mm256_madd_epi16(even<Signed>(a), first),
                                                             _mm256_madd_epi16(odd<Signed>(a), second)));
    }
  }
  for (int r = 0; r < Rows; ++r) sum[r] = reinterpret_cast<Ints>(total[r]);
}
#else
template <bool Signed, int Rows>
inline void dots(const std::uint8_t* const* codes, std::int64_t at, const std::int8_t* weights, int groups, Ints* sum) {
  for (int r = 0; r < Rows; ++r) {
    sum[r] = Ints{};
    for (int g = 0; g < groups; ++g)
      for (int lane = 0; lane < kLanes; ++lane)
        for (int e = 0; e < 4; ++e) {
          const std::uint8_t code = codes[r][at + g * 4 + e];
          sum[r][lane] += (Signed ? static_cast<std::int8_t>(code) : code) * weights[g * 64 + lane * 4 + e];
        }
  }
}
#endif

// kLanes channels of a panel, whose codes and scales begin at theirs.
template <bool Signed, int Rows>
void lanes(const RowTile& tile, const std::int8_t* weights, const float* scales, int blocks_per_vector, float* out,
           std::int64_t stride) {
  const std::int64_t per_position = tile.blocks_per_position / blocks_per_vector;
  const int groups = blocks_per_vector * kBlockElements / 4;
  Doubles total[Rows] = {};
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* const* codes = tile.codes + position * Rows;
    for (std::int64_t vector = 0; vector < per_position; ++vector, weights += groups * 64) {
      Ints sum[Rows];
      dots<Signed, Rows>(codes, vector * groups * 4, weights, groups, sum);
      Doubles scale = Doubles{} + 1.0;
      if (scales != nullptr) {
        Floats of_weight;
        __builtin_memcpy(&of_weight, scales + (position * per_position + vector) * kPanelChannels, sizeof of_weight);
        scale = __builtin_convertvector(of_weight, Doubles);
      }
      for (int r = 0; r < Rows; ++r) {
        float of_row = 1.0f;
        if (tile.starts != nullptr) __builtin_memcpy(&of_row, tile.starts[position * Rows + r] + vector, sizeof of_row);
        total[r] += scale * static_cast<double>(of_row) * __builtin_convertvector(sum[r], Doubles);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    const Floats rounded = __builtin_convertvector(total[r], Floats);
    __builtin_memcpy(out + r * stride, &rounded, sizeof rounded);
  }
}

template <bool Signed, int Rows>
void panel(const RowTile& tile, const std::int8_t* weights, const float* scales, int blocks_per_vector, float* out,
           std::int64_t stride) {
  if constexpr (Rows > 1)
    if (tile.rows < Rows) return panel<Signed, Rows - 1>(tile, weights, scales, blocks_per_vector, out, stride);
  for (int channel = 0; channel < kPanelChannels; channel += kLanes)
    lanes<Signed, Rows>(tile, weights + channel * 4, scales == nullptr ? nullptr : scales + channel, blocks_per_vector,
                        out + channel, stride);
}

void tile(const RowTile& tile, const std::int8_t* weights, const float* scales, int blocks_per_vector, float* out,
          std::int64_t stride) {
  if (tile.codes_signed)
    panel<true, kMostRows>(tile, weights, scales, blocks_per_vector, out, stride);
  else
    panel<false, kMostRows>(tile, weights, scales, blocks_per_vector, out, stride);
}

}  // namespace scaled
}  // namespace
