// Products with AVX-512 VNNI. Included by avx512_vnni.cpp alone.

namespace {

constexpr int kFoldedRows = 6, kVectorRows = 4, kFewRows = 6, kFoldedFewRows = 8, kPanels = 4;
// How far ahead of the weights they read few_tile and unpacking fetch them.
constexpr int kPrefetchBytes = 4096;
constexpr int kPrefetchScaleBytes = 512;

// ---- unpacking -----------------------------------------------------------------------------------------------------

inline __m512i load(const void* at) { return _mm512_loadu_si512(at); }

// sigma of 16 channels in 32-bit lanes.
template <ScaleLayout Layout>
inline __m512i load_scales(const std::uint8_t* scales, std::int64_t at, __m512i offset) {
  if constexpr (Layout == ScaleLayout::nibbles) {
    const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + at * 8));
    const __m128i bytes = _mm_and_si128(_mm_unpacklo_epi64(both, _mm_srli_epi16(both, 4)), _mm_set1_epi8(15));
    return _mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), offset);
  } else if constexpr (Layout == ScaleLayout::bytes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + at * 16));
    return _mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), offset);
  } else if constexpr (Layout == ScaleLayout::words) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + at * 32));
    return _mm512_add_epi32(_mm512_cvtepu16_epi32(words), offset);
  } else {
    return _mm512_set1_epi32(1);
  }
}

template <ScaleLayout Layout>
inline void prefetch_scales(const std::uint8_t* scales, std::int64_t at) {
  constexpr int kBytes = Layout == ScaleLayout::nibbles ? 8 : Layout == ScaleLayout::bytes ? 16 : 32;
  if constexpr (Layout != ScaleLayout::none)
    _mm_prefetch(reinterpret_cast<const char*>(scales + at * kBytes + kPrefetchScaleBytes), _MM_HINT_T0);
}

// The four registers of a block of nibbles, q + 8.
struct Block {
  __m512i group[4];
};

inline Block biased_block(const std::uint8_t* at) {
  const __m512i low_bits = _mm512_set1_epi8(15);
  const __m512i first = load(at), second = load(at + 64);
  return {{_mm512_and_si512(first, low_bits), _mm512_and_si512(_mm512_srli_epi16(first, 4), low_bits),
           _mm512_and_si512(second, low_bits), _mm512_and_si512(_mm512_srli_epi16(second, 4), low_bits)}};
}

// q * sigma in every byte; `pair` holds sigma in both halves of its lanes.
inline __m512i folded_codes(__m512i q, __m512i pair) {
  const __m512i even = _mm512_mullo_epi16(q, pair);  // the low byte of a product needs only low bytes
  const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(q, 8), pair);
  return _mm512_or_si512(_mm512_and_si512(even, _mm512_set1_epi16(255)), _mm512_slli_epi16(odd, 8));
}

// The vector that a block belongs to, block after block without a division each.
struct VectorOfBlock {
  std::int64_t index;
  int left, length;
  VectorOfBlock(const PackedWeight& weight, std::int64_t panel, std::int64_t block)
      : index(panel * weight.vectors() + block / weight.blocks_per_vector),
        left(weight.blocks_per_vector - static_cast<int>(block % weight.blocks_per_vector)),
        length(weight.blocks_per_vector) {}
  void next() {
    if (--left > 0) return;
    left = length;
    ++index;
  }
};

template <ScaleLayout Layout>
void unpack_nibbles(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                    Unpacked form, std::int8_t* out) {
  const __m512i eight = _mm512_set1_epi8(8), offset = _mm512_set1_epi32(weight.scale_offset);
  const std::uint8_t* codes = weight.codes + (panel * weight.blocks + first) * (kBlockCodes / 2);
  VectorOfBlock vector(weight, panel, first);
  for (std::int64_t block = 0; block < count; ++block, vector.next(), codes += kBlockCodes / 2, out += kBlockCodes) {
    _mm_prefetch(reinterpret_cast<const char*>(codes + kPrefetchBytes), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(codes + kPrefetchBytes + 64), _MM_HINT_T0);
    const Block biased = biased_block(codes);
    if (form == Unpacked::codes || Layout == ScaleLayout::none) {
      for (int g = 0; g < 4; ++g) _mm512_storeu_si512(out + g * 64, _mm512_sub_epi8(biased.group[g], eight));
      continue;
    }
    const __m512i scale = load_scales<Layout>(weight.scales, vector.index, offset);
    const __m512i pair = _mm512_or_si512(scale, _mm512_slli_epi32(scale, 16));
    if constexpr (Layout != ScaleLayout::nibbles) {
      for (int g = 0; g < 4; ++g)
        _mm512_storeu_si512(out + g * 64, folded_codes(_mm512_sub_epi8(biased.group[g], eight), pair));
      continue;
    }
    // (q + 8) * sigma <= 15 * 16 stays in its byte, so one 16-bit multiply does two codes.
    const __m512i excess = _mm512_slli_epi16(_mm512_or_si512(pair, _mm512_slli_epi16(pair, 8)), 3);
    for (int g = 0; g < 4; ++g)
      _mm512_storeu_si512(out + g * 64, _mm512_sub_epi8(_mm512_mullo_epi16(biased.group[g], pair), excess));
  }
}

template <ScaleLayout Layout>
void unpack_bytes(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                  Unpacked form, std::int8_t* out) {
  const __m512i offset = _mm512_set1_epi32(weight.scale_offset);
  const std::uint8_t* codes = weight.codes + (panel * weight.blocks + first) * kBlockCodes;
  VectorOfBlock vector(weight, panel, first);
  for (std::int64_t block = 0; block < count; ++block, vector.next(), codes += kBlockCodes, out += kBlockCodes) {
    const __m512i scale = load_scales<Layout>(weight.scales, vector.index, offset);
    const __m512i pair = _mm512_or_si512(scale, _mm512_slli_epi32(scale, 16));
    for (int g = 0; g < 4; ++g) {
      __m512i q = load(codes + g * 64);
      if (form == Unpacked::folded && Layout != ScaleLayout::none) q = folded_codes(q, pair);
      _mm512_storeu_si512(out + g * 64, q);
    }
  }
}

template <ScaleLayout Layout>
void unpack_layout(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                   Unpacked form, std::int8_t* out) {
  if (weight.code_layout == CodeLayout::nibbles)
    unpack_nibbles<Layout>(weight, panel, first, count, form, out);
  else
    unpack_bytes<Layout>(weight, panel, first, count, form, out);
}

void unpack_codes(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                  Unpacked form, std::int8_t* out) {
  switch (weight.scale_layout) {
    case ScaleLayout::none:
      return unpack_layout<ScaleLayout::none>(weight, panel, first, count, form, out);
    case ScaleLayout::nibbles:
      return unpack_layout<ScaleLayout::nibbles>(weight, panel, first, count, form, out);
    case ScaleLayout::bytes:
      return unpack_layout<ScaleLayout::bytes>(weight, panel, first, count, form, out);
    case ScaleLayout::words:
      return unpack_layout<ScaleLayout::words>(weight, panel, first, count, form, out);
  }
}

template <ScaleLayout Layout>
void unpack_scales_of(const PackedWeight& weight, std::int64_t panel, std::int16_t* out) {
  const __m512i offset = _mm512_set1_epi32(weight.scale_offset);
  const std::int64_t vectors = weight.vectors();
  for (std::int64_t vector = 0; vector < vectors; ++vector)
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(out + vector * kPanelChannels),
        _mm512_cvtepi32_epi16(load_scales<Layout>(weight.scales, panel * vectors + vector, offset)));
}

void unpack_scales(const PackedWeight& weight, std::int64_t panel, Unpacked, std::int16_t* out) {
  switch (weight.scale_layout) {
    case ScaleLayout::none:
      return unpack_scales_of<ScaleLayout::none>(weight, panel, out);
    case ScaleLayout::nibbles:
      return unpack_scales_of<ScaleLayout::nibbles>(weight, panel, out);
    case ScaleLayout::bytes:
      return unpack_scales_of<ScaleLayout::bytes>(weight, panel, out);
    case ScaleLayout::words:
      return unpack_scales_of<ScaleLayout::words>(weight, panel, out);
  }
}

// ---- folded tiles --------------------------------------------------------------------------------------------------

inline std::int32_t load32(const std::uint8_t* at) {
  std::int32_t value;
  __builtin_memcpy(&value, at, 4);
  return value;
}

template <int Rows, int Panels, bool Signed>
void folded(const RowTile& tile, const std::int8_t* const* weights, std::int32_t* out) {
  const __m512i bias = _mm512_set1_epi8(-128);
  __m512i sum[Rows][Panels];
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_setzero_si512();
  const std::int64_t elements = tile.blocks_per_position * kBlockElements;
  const std::int8_t* panel[Panels];
  for (int p = 0; p < Panels; ++p) panel[p] = weights[p];
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* row[Rows];
    for (int r = 0; r < Rows; ++r) row[r] = tile.codes[position * Rows + r];
    for (std::int64_t k = 0; k < elements; k += 4) {
      __m512i w[Panels];
      for (int p = 0; p < Panels; ++p) w[p] = load(panel[p] + k * kPanelChannels);
      for (int r = 0; r < Rows; ++r) {
        __m512i a = _mm512_set1_epi32(load32(row[r] + k));
        if constexpr (Signed) a = _mm512_xor_si512(a, bias);
        for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], a, w[p]);
      }
    }
    for (int p = 0; p < Panels; ++p) panel[p] += elements * kPanelChannels;
  }
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p)
      _mm512_storeu_si512(out + (r * kPanels + p) * kPanelChannels, sum[r][p]);
}

template <int Rows, int Panels>
void folded_panels(const RowTile& tile, const std::int8_t* const* weights, std::int32_t* out) {
  if (tile.codes_signed)
    folded<Rows, Panels, true>(tile, weights, out);
  else
    folded<Rows, Panels, false>(tile, weights, out);
}

template <int Rows>
void folded_rows(const RowTile& tile, const std::int8_t* const* weights, int panels, std::int32_t* out) {
  switch (panels) {
    case 1: return folded_panels<Rows, 1>(tile, weights, out);
    case 2: return folded_panels<Rows, 2>(tile, weights, out);
    case 3: return folded_panels<Rows, 3>(tile, weights, out);
    case 4: return folded_panels<Rows, 4>(tile, weights, out);
    default: __builtin_unreachable();
  }
}

void folded_tile(const RowTile& tile, const std::int8_t* const* weights, int panels, std::int32_t* out) {
  switch (tile.rows) {
    case 1: return folded_rows<1>(tile, weights, panels, out);
    case 2: return folded_rows<2>(tile, weights, panels, out);
    case 3: return folded_rows<3>(tile, weights, panels, out);
    case 4: return folded_rows<4>(tile, weights, panels, out);
    case 5: return folded_rows<5>(tile, weights, panels, out);
    case 6: return folded_rows<6>(tile, weights, panels, out);
    default: __builtin_unreachable();
  }
}

// ---- folded tiles of few rows --------------------------------------------------------------------------------------

// Folds in registers what a tile of eight rows then uses eight times: one multiplication in nine is spent on it, and
// nothing is written back.
template <int Rows, int Panels, ScaleLayout Layout>
void folded_few(const RowTile& tile, const PackedWeight& weight, std::int64_t first, std::int32_t* out) {
  const __m512i offset = _mm512_set1_epi32(weight.scale_offset), low_bits = _mm512_set1_epi8(15);
  const std::int64_t panel_bytes = weight.blocks * (kBlockCodes / 2);
  const std::uint8_t* codes = weight.codes + first * panel_bytes;
  std::int64_t vector = first * weight.vectors();
  const std::int64_t panel_vectors = weight.vectors();
  int left = weight.blocks_per_vector;
  __m512i sum[Rows][Panels];
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_setzero_si512();
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* row[Rows];
    for (int r = 0; r < Rows; ++r) row[r] = tile.codes[position * Rows + r];
    for (std::int64_t block = 0; block < tile.blocks_per_position; ++block, codes += kBlockCodes / 2) {
      __m512i pair[Panels], excess[Panels];
      for (int p = 0; p < Panels; ++p) {
        const __m512i scale = load_scales<Layout>(weight.scales, vector + p * panel_vectors, offset);
        pair[p] = _mm512_or_si512(scale, _mm512_slli_epi32(scale, 16));
        excess[p] = _mm512_slli_epi16(_mm512_or_si512(pair[p], _mm512_slli_epi16(pair[p], 8)), 3);
      }
      if (--left == 0) {
        left = weight.blocks_per_vector;
        ++vector;
      }
      for (int half = 0; half < 2; ++half) {
        __m512i raw[Panels];
        for (int p = 0; p < Panels; ++p) {
          const std::uint8_t* here = codes + p * panel_bytes + half * 64;
          _mm_prefetch(reinterpret_cast<const char*>(here + kPrefetchBytes), _MM_HINT_T0);
          raw[p] = load(here);
        }
        for (int high = 0; high < 2; ++high) {
          __m512i w[Panels];
          for (int p = 0; p < Panels; ++p) {
            const __m512i biased = _mm512_and_si512(high ? _mm512_srli_epi16(raw[p], 4) : raw[p], low_bits);
            w[p] = _mm512_sub_epi8(_mm512_mullo_epi16(biased, pair[p]), excess[p]);
          }
          const std::int64_t at = block * kBlockElements + half * 8 + high * 4;
          for (int r = 0; r < Rows; ++r) {
            const __m512i a = _mm512_set1_epi32(load32(row[r] + at));
            for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], a, w[p]);
          }
        }
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p) _mm512_storeu_si512(out + (r * kPanels + p) * kPanelChannels, sum[r][p]);
}

using FoldedFewTile = void (*)(const RowTile&, const PackedWeight&, std::int64_t, std::int32_t*);

template <int Rows, int Panels>
FoldedFewTile folded_few_by_layout(ScaleLayout layout) {
  return layout == ScaleLayout::none ? folded_few<Rows, Panels, ScaleLayout::none>
                                     : folded_few<Rows, Panels, ScaleLayout::nibbles>;
}

template <int Rows>
FoldedFewTile folded_few_by_panels(int panels, ScaleLayout layout) {
  return panels == 1 ? folded_few_by_layout<Rows, 1>(layout) : folded_few_by_layout<Rows, 2>(layout);
}

FoldedFewTile choose_folded_few(int rows, int panels, ScaleLayout layout) {
  switch (rows) {
    case 1: return folded_few_by_panels<1>(panels, layout);
    case 2: return folded_few_by_panels<2>(panels, layout);
    case 3: return folded_few_by_panels<3>(panels, layout);
    case 4: return folded_few_by_panels<4>(panels, layout);
    case 5: return folded_few_by_panels<5>(panels, layout);
    case 6: return folded_few_by_panels<6>(panels, layout);
    case 7: return folded_few_by_panels<7>(panels, layout);
    case 8: return folded_few_by_panels<8>(panels, layout);
    default: __builtin_unreachable();
  }
}

void folded_few_tile(const RowTile& tile, const PackedWeight& weight, std::int64_t panel, int panels,
                     std::int32_t* out) {
  for (int first = 0; first < panels; first += 2) {
    const int count = panels - first < 2 ? 1 : 2;
    choose_folded_few(tile.rows, count, weight.scale_layout)(tile, weight, panel + first, out + first * kPanelChannels);
  }
}

// ---- vector tiles --------------------------------------------------------------------------------------------------

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

// ---- few rows ------------------------------------------------------------------------------------------------------

// Two panels at a time: a row's codes are then broadcast once for both.
template <int Rows, int Panels, ScaleLayout Layout, bool Activation>
void few(const RowTile& tile, const PackedWeight& weight, std::int64_t first, const VectorOptions& options,
         std::int64_t* out) {
  const __m512i offset = _mm512_set1_epi32(weight.scale_offset);
  const std::int64_t panel_bytes = weight.blocks * (kBlockCodes / 2);
  const std::uint8_t* codes = weight.codes + first * panel_bytes;
  std::int64_t at = first * weight.blocks, until_drain = options.drain;
  __m512i sum[Rows][Panels];
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Panels; ++p) sum[r][p] = _mm512_setzero_si512();
    __builtin_memset(out + r * kPanels * kPanelChannels, 0, Panels * kPanelChannels * sizeof(std::int64_t));
  }
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* row[Rows];
    const std::int32_t* start[Rows];
    const std::int16_t* activation_scale[Rows];
    for (int r = 0; r < Rows; ++r) {
      row[r] = tile.codes[position * Rows + r];
      start[r] = tile.starts[position * Rows + r];
      if constexpr (Activation) activation_scale[r] = tile.scales[position * Rows + r];
    }
    for (std::int64_t block = 0; block < tile.blocks_per_position; ++block, ++at, codes += kBlockCodes / 2) {
      Block biased[Panels];
      __m512i scale[Panels];
      for (int p = 0; p < Panels; ++p) {
        const std::uint8_t* here = codes + p * panel_bytes;
        _mm_prefetch(reinterpret_cast<const char*>(here + kPrefetchBytes), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(here + kPrefetchBytes + 64), _MM_HINT_T0);
        biased[p] = biased_block(here);
        prefetch_scales<Layout>(weight.scales, at + p * weight.blocks);
        scale[p] = load_scales<Layout>(weight.scales, at + p * weight.blocks, offset);
      }
      for (int r = 0; r < Rows; ++r) {
        __m512i partial[Panels];
        for (int p = 0; p < Panels; ++p) partial[p] = _mm512_set1_epi32(start[r][block]);
        for (int g = 0; g < 4; ++g) {
          const __m512i a = _mm512_set1_epi32(load32(row[r] + block * kBlockElements + g * 4));
          for (int p = 0; p < Panels; ++p) partial[p] = _mm512_dpbusd_epi32(partial[p], biased[p].group[g], a);
        }
        for (int p = 0; p < Panels; ++p) {
          __m512i factor = scale[p];
          if constexpr (Activation) factor = _mm512_madd_epi16(factor, _mm512_set1_epi16(activation_scale[r][block]));
          sum[r][p] = _mm512_dpwssd_epi32(sum[r][p], partial[p], factor);
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

using FewTile = void (*)(const RowTile&, const PackedWeight&, std::int64_t, const VectorOptions&, std::int64_t*);

template <int Rows, int Panels, ScaleLayout Layout>
FewTile few_by_activation(const RowTile& tile) {
  return tile.scales ? few<Rows, Panels, Layout, true> : few<Rows, Panels, Layout, false>;
}

template <int Rows, int Panels>
FewTile few_by_layout(const RowTile& tile, ScaleLayout layout) {
  switch (layout) {
    case ScaleLayout::none: return few_by_activation<Rows, Panels, ScaleLayout::none>(tile);
    case ScaleLayout::nibbles: return few_by_activation<Rows, Panels, ScaleLayout::nibbles>(tile);
    case ScaleLayout::bytes: return few_by_activation<Rows, Panels, ScaleLayout::bytes>(tile);
    case ScaleLayout::words: return few_by_activation<Rows, Panels, ScaleLayout::words>(tile);
  }
  __builtin_unreachable();
}

template <int Rows>
FewTile few_by_panels(const RowTile& tile, int panels, ScaleLayout layout) {
  return panels == 1 ? few_by_layout<Rows, 1>(tile, layout) : few_by_layout<Rows, 2>(tile, layout);
}

FewTile choose_few(const RowTile& tile, int panels, ScaleLayout layout) {
  switch (tile.rows) {
    case 1: return few_by_panels<1>(tile, panels, layout);
    case 2: return few_by_panels<2>(tile, panels, layout);
    case 3: return few_by_panels<3>(tile, panels, layout);
    case 4: return few_by_panels<4>(tile, panels, layout);
    case 5: return few_by_panels<5>(tile, panels, layout);
    case 6: return few_by_panels<6>(tile, panels, layout);
    default: __builtin_unreachable();
  }
}

void few_tile(const RowTile& tile, const PackedWeight& weight, std::int64_t panel, int panels,
              const VectorOptions& options, std::int64_t* out) {
  // One or two rows wait for memory, which likes one stream of codes better than two.
  const int step = tile.rows <= 2 ? 1 : 2;
  for (int first = 0; first < panels; first += step)
    choose_few(tile, panels - first < step ? 1 : step, weight.scale_layout)(tile, weight, panel + first, options,
                                                                            out + first * kPanelChannels);
}

}  // namespace
