// Products with AVX-512 VNNI: weights out of their packed layout. All products_avx512_vnni*.inl are included by
// avx512_vnni.cpp alone, in the order it has them.

namespace {

constexpr int kFoldedRows = 6, kVectorRows = 4, kFewRows = 6, kFoldedFewRows = 8, kPanels = 4;
// How far ahead of the weights they read few_tile and unpacking fetch them.
constexpr int kPrefetchBytes = 4096;
constexpr int kPrefetchScaleBytes = 512;

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

}  // namespace
