// Vector tiles: partial sums of every vector, times the product of its scales.

namespace {

inline void add_wide(std::int64_t* out, __m512i sum) {
  const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sum));
  const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sum, 1));
  _mm512_storeu_si512(out, _mm512_add_epi64(load(out), low));
  _mm512_storeu_si512(out + 8, _mm512_add_epi64(load(out + 8), high));
}

// p = sigma_w * sigma_a, rounded where asked.
struct Product {
  __m512i half, limit;
  __m128i shift;
  explicit Product(const VectorOptions& options)
      : half(_mm512_set1_epi32(options.rounding.shift > 0 ? 1 << (options.rounding.shift - 1) : 0)),
        limit(_mm512_set1_epi32(options.rounding.limit)),
        shift(_mm_cvtsi32_si128(options.rounding.shift)) {}
  template <bool Round>
  __m512i of(__m512i weight_scale, __m512i activation_scale) const {
    const __m512i exact = _mm512_madd_epi16(weight_scale, activation_scale);
    if constexpr (!Round) return exact;
    return _mm512_min_epi32(_mm512_srl_epi32(_mm512_add_epi32(exact, half), shift), limit);
  }
};

template <int Rows, int Panels, bool Signed, bool Activation, bool Round, int BlocksPerVector>
void vectors(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
             const VectorOptions& options, std::int64_t* out) {
  const int blocks_per_vector = BlocksPerVector ? BlocksPerVector : options.blocks_per_vector;
  const std::int64_t per_position = tile.blocks_per_position / blocks_per_vector;
  const __m512i bias = _mm512_set1_epi8(-128);
  const Product product(options);
  __m512i sum[Rows][Panels];
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_setzero_si512();
    __builtin_memset(out + r * kPanels * kPanelChannels, 0, Panels * kPanelChannels * sizeof(std::int64_t));
  }
  std::int64_t until_drain = options.drain, at = 0;
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* const* row = tile.codes + position * Rows;
    for (std::int64_t vector = 0; vector < per_position; ++vector, ++at) {
      __m512i scale[Panels];
      for (int p = 0; p < Panels; ++p)
        scale[p] = weight_scales == nullptr
                       ? _mm512_set1_epi32(1)
                       : _mm512_cvtepu16_epi32(_mm256_loadu_si256(
                             reinterpret_cast<const __m256i*>(weight_scales[p] + at * kPanelChannels)));
      for (int r = 0; r < Rows; ++r) {
        __m512i partial[Panels];
        for (int p = 0; p < Panels; ++p)
          partial[p] = Signed ? _mm512_set1_epi32(tile.starts[position * Rows + r][vector])
                              : _mm512_setzero_si512();
        for (int block = 0; block < blocks_per_vector; ++block) {
          const std::uint8_t* codes = row[r] + (vector * blocks_per_vector + block) * kBlockElements;
          const std::int64_t offset = (at * blocks_per_vector + block) * kBlockCodes;
          for (int g = 0; g < 4; ++g) {
            const __m512i a = _mm512_set1_epi32(load32(codes + g * 4));
            for (int p = 0; p < Panels; ++p) {
              const __m512i w = load(weights[p] + offset + g * 64);
              partial[p] = Signed ? _mm512_dpbusd_epi32(partial[p], _mm512_xor_si512(w, bias), a)
                                  : _mm512_dpbusd_epi32(partial[p], a, w);
            }
          }
        }
        for (int p = 0; p < Panels; ++p) {
          __m512i factor = scale[p];
          if constexpr (Activation)
            factor = product.of<Round>(factor, _mm512_set1_epi16(tile.scales[position * Rows + r][vector]));
          sum[r][p] = _mm512_add_epi32(sum[r][p], _mm512_mullo_epi32(partial[p], factor));
        }
      }
      if (--until_drain == 0) {
        until_drain = options.drain;
        for (int r = 0; r < Rows; ++r)
          for (int p = 0; p < Panels; ++p) {
            add_wide(out + (r * kPanels + p) * kPanelChannels, sum[r][p]);
            sum[r][p] = _mm512_setzero_si512();
          }
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p) add_wide(out + (r * kPanels + p) * kPanelChannels, sum[r][p]);
}

using VectorTile = void (*)(const RowTile&, const std::int8_t* const*, const std::int16_t* const*,
                            const VectorOptions&, std::int64_t*);

// Where one vector's product alone can pass int32: every product in 64 bits, even and odd channels apart.
template <int Rows, bool Signed, bool Activation, bool Round>
void wide_vectors(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                  const VectorOptions& options, std::int64_t* out) {
  const std::int64_t per_position = tile.blocks_per_position / options.blocks_per_vector;
  const __m512i bias = _mm512_set1_epi8(-128);
  const Product product(options);
  __m512i even[Rows], odd[Rows];
  for (int r = 0; r < Rows; ++r) even[r] = odd[r] = _mm512_setzero_si512();
  std::int64_t at = 0;
  for (int position = 0; position < tile.positions; ++position) {
    for (std::int64_t vector = 0; vector < per_position; ++vector, ++at) {
      const __m512i scale = weight_scales == nullptr
                                ? _mm512_set1_epi32(1)
                                : _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(
                                      weight_scales[0] + at * kPanelChannels)));
      for (int r = 0; r < Rows; ++r) {
        const int entry = position * Rows + r;
        __m512i partial = Signed ? _mm512_set1_epi32(tile.starts[entry][vector]) : _mm512_setzero_si512();
        const std::uint8_t* codes = tile.codes[entry] + vector * options.blocks_per_vector * kBlockElements;
        const std::int8_t* panel = weights[0] + at * options.blocks_per_vector * kBlockCodes;
        for (int g = 0; g < 4 * options.blocks_per_vector; ++g) {
          const __m512i a = _mm512_set1_epi32(load32(codes + g * 4)), w = load(panel + g * 64);
          partial = Signed ? _mm512_dpbusd_epi32(partial, _mm512_xor_si512(w, bias), a)
                           : _mm512_dpbusd_epi32(partial, a, w);
        }
        __m512i factor = scale;
        if constexpr (Activation)
          factor = product.of<Round>(factor, _mm512_set1_epi16(tile.scales[entry][vector]));
        even[r] = _mm512_add_epi64(even[r], _mm512_mul_epi32(partial, factor));
        odd[r] = _mm512_add_epi64(
            odd[r], _mm512_mul_epi32(_mm512_srli_epi64(partial, 32), _mm512_srli_epi64(factor, 32)));
      }
    }
  }
  const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  for (int r = 0; r < Rows; ++r) {
    std::int64_t* to = out + r * kPanels * kPanelChannels;
    _mm512_storeu_si512(to, _mm512_permutex2var_epi64(even[r], low, odd[r]));
    _mm512_storeu_si512(to + 8, _mm512_permutex2var_epi64(even[r], high, odd[r]));
  }
}

template <int Rows, bool Signed>
VectorTile wide_by_options(bool activation, const VectorOptions& options) {
  if (options.round_product) return wide_vectors<Rows, Signed, true, true>;
  return activation ? wide_vectors<Rows, Signed, true, false> : wide_vectors<Rows, Signed, false, false>;
}

template <int Rows>
VectorTile wide_by_sign(const RowTile& tile, const VectorOptions& options) {
  return tile.codes_signed ? wide_by_options<Rows, true>(tile.scales != nullptr, options)
                           : wide_by_options<Rows, false>(tile.scales != nullptr, options);
}

VectorTile choose_wide(const RowTile& tile, const VectorOptions& options) {
  switch (tile.rows) {
    case 1: return wide_by_sign<1>(tile, options);
    case 2: return wide_by_sign<2>(tile, options);
    case 3: return wide_by_sign<3>(tile, options);
    case 4: return wide_by_sign<4>(tile, options);
    default: __builtin_unreachable();
  }
}

// Sums of 16-bit partial sums, V = 16: two vectors share one multiplication by their scales. Register budget: 16 of
// codes, 8 of sums, the rest for one row's partial sums.
template <int Rows, int Panels, bool Signed, bool Activation>
void word_vectors(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                  const VectorOptions& options, std::int64_t* out) {
  constexpr __mmask32 kHighWords = 0xaaaaaaaa;
  const __m512i bias = _mm512_set1_epi8(-128), one = _mm512_set1_epi32(1);
  __m512i sum[Rows][Panels];
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_setzero_si512();
    __builtin_memset(out + r * kPanels * kPanelChannels, 0, Panels * kPanelChannels * sizeof(std::int64_t));
  }
  const auto scale_of = [&](int p, std::int64_t vector) {
    if (weight_scales == nullptr) return one;
    return _mm512_cvtepu16_epi32(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight_scales[p] + vector * kPanelChannels)));
  };
  std::int64_t until_drain = options.drain, at = 0;
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* row[Rows];
    const std::int32_t* start[Rows];
    const std::int16_t* activation_scale[Rows];
    for (int r = 0; r < Rows; ++r) {
      row[r] = tile.codes[position * Rows + r];
      if constexpr (Signed) start[r] = tile.starts[position * Rows + r];
      if constexpr (Activation) activation_scale[r] = tile.scales[position * Rows + r];
    }
    for (std::int64_t vector = 0; vector < tile.blocks_per_position;) {
      const int count = tile.blocks_per_position - vector < 2 ? 1 : 2;
      if (until_drain < count) {
        until_drain = options.drain;
        for (int r = 0; r < Rows; ++r)
          for (int p = 0; p < Panels; ++p) {
            add_wide(out + (r * kPanels + p) * kPanelChannels, sum[r][p]);
            sum[r][p] = _mm512_setzero_si512();
          }
      }
      until_drain -= count;
      __m512i w[2][4][Panels], scale[Panels];
      for (int p = 0; p < Panels; ++p) {
        for (int v = 0; v < 2; ++v)
          for (int g = 0; g < 4; ++g) {
            // A last vector alone is multiplied with itself by a scale of zero.
            w[v][g][p] = load(weights[p] + (at + (v < count ? v : 0)) * kBlockCodes + g * 64);
            if constexpr (Signed) w[v][g][p] = _mm512_xor_si512(w[v][g][p], bias);
          }
        scale[p] = scale_of(p, at);
        if (count == 2) scale[p] = _mm512_or_si512(scale[p], _mm512_slli_epi32(scale_of(p, at + 1), 16));
      }
      const std::int64_t second = count == 2 ? kBlockElements : 0;
      for (int r = 0; r < Rows; ++r) {
        const std::uint8_t* codes = row[r] + vector * kBlockElements;
        __m512i partial[2][Panels];
        for (int v = 0; v < 2; ++v) {
          for (int p = 0; p < Panels; ++p)
            partial[v][p] = Signed ? _mm512_set1_epi32(start[r][vector + (v < count ? v : 0)]) : _mm512_setzero_si512();
          for (int g = 0; g < 4; ++g) {
            const __m512i a = _mm512_set1_epi32(load32(codes + v * second + g * 4));
            for (int p = 0; p < Panels; ++p)
              partial[v][p] = Signed ? _mm512_dpbusd_epi32(partial[v][p], w[v][g][p], a)
                                     : _mm512_dpbusd_epi32(partial[v][p], a, w[v][g][p]);
          }
        }
        for (int p = 0; p < Panels; ++p) {
          const __m512i both = _mm512_mask_blend_epi16(kHighWords, partial[0][p], _mm512_slli_epi32(partial[1][p], 16));
          __m512i factor = scale[p];
          if constexpr (Activation) {
            const __m512i scales = count == 2
                                       ? _mm512_set1_epi32(load32(reinterpret_cast<const std::uint8_t*>(
                                             activation_scale[r] + vector)))
                                       : _mm512_set1_epi32(activation_scale[r][vector]);
            factor = _mm512_mullo_epi16(factor, scales);
          }
          sum[r][p] = _mm512_dpwssd_epi32(sum[r][p], both, factor);
        }
      }
      vector += count;
      at += count;
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p) add_wide(out + (r * kPanels + p) * kPanelChannels, sum[r][p]);
}

Unpacked vector_form(const VectorOptions&, int, bool) { return Unpacked::codes; }

template <int Rows, int Panels, bool Signed, bool Activation, bool Round>
VectorTile by_length(const VectorOptions& options) {
  if (options.blocks_per_vector == 1) return vectors<Rows, Panels, Signed, Activation, Round, 1>;
  return vectors<Rows, Panels, Signed, Activation, Round, 0>;
}

template <int Rows, int Panels, bool Signed>
VectorTile by_options(bool activation, const VectorOptions& options) {
  if (options.partial_is_word && options.blocks_per_vector == 1 && options.drain >= 2)
    return activation ? word_vectors<Rows, Panels, Signed, true> : word_vectors<Rows, Panels, Signed, false>;
  if (options.round_product) return by_length<Rows, Panels, Signed, true, true>(options);
  return activation ? by_length<Rows, Panels, Signed, true, false>(options)
                    : by_length<Rows, Panels, Signed, false, false>(options);
}

template <int Rows, int Panels>
VectorTile by_sign(const RowTile& tile, const VectorOptions& options) {
  const bool activation = tile.scales != nullptr;
  return tile.codes_signed ? by_options<Rows, Panels, true>(activation, options)
                           : by_options<Rows, Panels, false>(activation, options);
}

template <int Rows>
VectorTile by_panels(const RowTile& tile, int panels, const VectorOptions& options) {
  return panels == 1 ? by_sign<Rows, 1>(tile, options) : by_sign<Rows, 2>(tile, options);
}

VectorTile choose(const RowTile& tile, int panels, const VectorOptions& options) {
  switch (tile.rows) {
    case 1: return by_panels<1>(tile, panels, options);
    case 2: return by_panels<2>(tile, panels, options);
    case 3: return by_panels<3>(tile, panels, options);
    case 4: return by_panels<4>(tile, panels, options);
    default: __builtin_unreachable();
  }
}

void vector_tile(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                 int panels, const VectorOptions& options, std::int64_t* out) {
  if (options.drain == 0) {
    const VectorTile wide = choose_wide(tile, options);
    for (int p = 0; p < panels; ++p)
      wide(tile, weights + p, weight_scales ? weight_scales + p : nullptr, options, out + p * kPanelChannels);
    return;
  }
  // Two panels at a time: their code registers stay in place while the rows pass.
  for (int first = 0; first < panels; first += 2) {
    const int count = panels - first < 2 ? 1 : 2;
    choose(tile, count, options)(tile, weights + first, weight_scales ? weight_scales + first : nullptr, options,
                                 out + first * kPanelChannels);
  }
}

}  // namespace
