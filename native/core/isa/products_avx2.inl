// Products with AVX2: which codes pass which way, and weights as those ways want them. vpmaddubsw multiplies unsigned
// by signed bytes and adds neighbours into 16-bit lanes; vpmaddwd multiplies pairs of lanes by the vector scales and
// adds them into 32 bits. docs/design/cpu-kernels.md says why nothing wraps. Included by avx2.cpp alone.

// What passes registers must not become a call, however large the caller.
#define VSQUANT_INLINE inline __attribute__((always_inline))

namespace {

constexpr int kVectorRows = 12, kFewRows = 16, kMostRows = 16, kPanels = 4;
constexpr int kBias = 64;             // of 7-bit weights that become unsigned: 2 * (64 + 64) * 127 < 2^15
constexpr int kNibbleBias = 8;
constexpr int kLaneLimit = 1 << 15;   // a 16-bit lane holds less than this
constexpr int kChunkBlocks = 64;      // most blocks whose rows are arranged at a time: 1 KiB of each
constexpr int kChunkCodes = kChunkBlocks * kBlockElements;
// How far ahead of the weights it reads a tile of one to four rows fetches them.
constexpr int kPrefetchBytes = 4096;

VSQUANT_INLINE __m256i load(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
VSQUANT_INLINE void store(void* at, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(at), value); }

VSQUANT_INLINE __m256i broadcast32(const void* at) {
  std::int32_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return _mm256_set1_epi32(value);
}

VSQUANT_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// ---- what passes which way -----------------------------------------------------------------------------------------

// How a vector's partial sum meets its scale product.
enum class Settling : std::uint8_t {
  weight,    // p = sigma_w < 2^15
  product,   // p = sigma_w * sigma_a < 2^15
  rounded,   // p = sigma_w * sigma_a < 2^16, rounded below 2^15
  wide,      // anything, in 64 bits
};

Settling settling_of(const VectorOptions& options, bool activation_scales) {
  if (options.drain < 1) return Settling::wide;
  if (!options.round_product) {
    if (!options.partial_is_word) return Settling::wide;
    return activation_scales ? Settling::product : Settling::weight;
  }
  const bool fits = ((std::int64_t{options.rounding.limit} + 1) << options.rounding.shift) <= 1 << 16;
  return fits ? Settling::rounded : Settling::wide;
}

bool is_paired(Unpacked form) { return form == Unpacked::paired_codes || form == Unpacked::paired_biased; }
bool is_biased(Unpacked form) { return form == Unpacked::biased || form == Unpacked::paired_biased; }

// Signed codes want biased weights, but 8-bit ones do not fit an unsigned byte with a bias whose pairs fit a lane.
Unpacked vector_form(const VectorOptions& options, int weight_magnitude, bool codes_signed) {
  const bool biased = codes_signed && weight_magnitude <= kBias;
  const bool paired = (biased || !codes_signed) && options.blocks_per_vector == 1 && options.drain >= 2 &&
                      options.element_limit * kBlockElements < kLaneLimit &&
                      settling_of(options, true) != Settling::wide;
  if (paired) return biased ? Unpacked::paired_biased : Unpacked::paired_codes;
  return biased ? Unpacked::biased : Unpacked::codes;
}

// ---- unpacking -----------------------------------------------------------------------------------------------------

// A block's 256 codes as eight registers [4 groups of elements][channels 0-7, 8-15], nibbles as q + 8.
struct Block {
  __m256i code[4][2];
};

VSQUANT_INLINE Block load_nibbles(const std::uint8_t* at) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  Block block;
  for (int h = 0; h < 2; ++h)
    for (int c = 0; c < 2; ++c) {
      const __m256i both = load(at + h * 64 + c * 32);
      block.code[2 * h][c] = _mm256_and_si256(both, low_bits);
      block.code[2 * h + 1][c] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits);
    }
  return block;
}

VSQUANT_INLINE Block load_bytes(const std::uint8_t* at) {
  Block block;
  for (int g = 0; g < 4; ++g)
    for (int c = 0; c < 2; ++c) block.code[g][c] = load(at + g * 64 + c * 32);
  return block;
}

// The words of two registers taken in turn: the first of every 32 bits, then the second.
struct Turns {
  __m256i first, second;
};

VSQUANT_INLINE Turns take_turns(__m256i a, __m256i b) {
  constexpr int kHighWords = 0xaa;
  return {_mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), kHighWords),
          _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, kHighWords)};
}

// Two blocks as [8 steps][16 channels][elements 2s, 2s + 1 of vector A, then of vector B]: 16-bit lanes of one vector
// each. `offset` is added to nibbles, which are q + 8, or to bytes.
VSQUANT_INLINE void store_nibble_pair(const std::uint8_t* a, const std::uint8_t* b, __m256i offset, std::int8_t* out) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  for (int h = 0; h < 2; ++h, out += 256)
    for (int c = 0; c < 2; ++c) {
      const Turns both = take_turns(load(a + h * 64 + c * 32), load(b + h * 64 + c * 32));
      const auto put = [&](int step, __m256i nibbles) {
        store(out + step * 64 + c * 32, _mm256_add_epi8(_mm256_and_si256(nibbles, low_bits), offset));
      };
      put(0, both.first);
      put(1, both.second);
      put(2, _mm256_srli_epi16(both.first, 4));
      put(3, _mm256_srli_epi16(both.second, 4));
    }
}

VSQUANT_INLINE void store_byte_pair(const std::uint8_t* a, const std::uint8_t* b, __m256i offset, std::int8_t* out) {
  for (int g = 0; g < 4; ++g)
    for (int c = 0; c < 2; ++c) {
      const Turns both = take_turns(load(a + g * 64 + c * 32), load(b + g * 64 + c * 32));
      store(out + g * 128 + c * 32, _mm256_add_epi8(both.first, offset));
      store(out + g * 128 + 64 + c * 32, _mm256_add_epi8(both.second, offset));
    }
}

VSQUANT_INLINE void store_block(const Block& block, __m256i offset, std::int8_t* out) {
  for (int g = 0; g < 4; ++g)
    for (int c = 0; c < 2; ++c) store(out + g * 64 + c * 32, _mm256_add_epi8(block.code[g][c], offset));
}

VSQUANT_INLINE void fetch(const std::uint8_t* at) { _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0); }

template <bool Nibbles>
void unpack_pairs(const std::uint8_t* codes, std::int64_t count, __m256i offset, std::int8_t* out) {
  constexpr int kBytes = Nibbles ? kBlockCodes / 2 : kBlockCodes;
  for (std::int64_t i = 0; i < count; i += 2, codes += 2 * kBytes, out += 2 * kBlockCodes) {
    const std::uint8_t* second = i + 1 < count ? codes + kBytes : codes;  // a missing one meets zeros
    if constexpr (Nibbles)
      store_nibble_pair(codes, second, offset, out);
    else
      store_byte_pair(codes, second, offset, out);
  }
}

template <bool Nibbles>
void unpack_blocks(const std::uint8_t* codes, std::int64_t count, Unpacked form, std::int8_t* out) {
  constexpr int kBytes = Nibbles ? kBlockCodes / 2 : kBlockCodes;
  const int bias = is_biased(form) ? kBias : 0;
  const __m256i offset = _mm256_set1_epi8(static_cast<char>(bias - (Nibbles ? kNibbleBias : 0)));
  if (is_paired(form)) return unpack_pairs<Nibbles>(codes, count, offset, out);
  for (std::int64_t i = 0; i < count; ++i, codes += kBytes, out += kBlockCodes) {
    store_block(Nibbles ? load_nibbles(codes) : load_bytes(codes), offset, out);
  }
}

void unpack_codes(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                  Unpacked form, std::int8_t* out) {
  const std::int64_t block = panel * weight.blocks + first;
  if (weight.code_layout == CodeLayout::nibbles)
    unpack_blocks<true>(weight.codes + block * (kBlockCodes / 2), count, form, out);
  else
    unpack_blocks<false>(weight.codes + block * kBlockCodes, count, form, out);
}

// sigma of 16 channels in 16-bit lanes.
template <ScaleLayout Layout>
VSQUANT_INLINE __m256i load_scales(const std::uint8_t* scales, std::int64_t at, __m256i offset) {
  if constexpr (Layout == ScaleLayout::nibbles) {
    const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + at * 8));
    const __m128i bytes = _mm_and_si128(_mm_unpacklo_epi64(both, _mm_srli_epi16(both, 4)), _mm_set1_epi8(15));
    return _mm256_add_epi16(_mm256_cvtepu8_epi16(bytes), offset);
  } else if constexpr (Layout == ScaleLayout::bytes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + at * 16));
    return _mm256_add_epi16(_mm256_cvtepu8_epi16(bytes), offset);
  } else if constexpr (Layout == ScaleLayout::words) {
    return _mm256_add_epi16(load(scales + at * 32), offset);
  } else {
    return _mm256_set1_epi16(1);
  }
}

// Sixteen words of `a` and of `b` as [channel][a, b]: channels 0-7, then 8-15.
struct WordPairs {
  __m256i half[2];
};

VSQUANT_INLINE WordPairs interleave(__m256i a, __m256i b) {
  constexpr int kSwapMiddle = 0xd8;
  a = _mm256_permute4x64_epi64(a, kSwapMiddle);
  b = _mm256_permute4x64_epi64(b, kSwapMiddle);
  return {{_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)}};
}

// `count` vectors from vector `first` of the weight on.
template <ScaleLayout Layout>
void unpack_scales_of(const PackedWeight& weight, std::int64_t first, std::int64_t count, Unpacked form,
                      std::int16_t* out) {
  const __m256i offset = _mm256_set1_epi16(static_cast<short>(weight.scale_offset));
  const auto scales = [&](std::int64_t vector) { return load_scales<Layout>(weight.scales, first + vector, offset); };
  if (!is_paired(form)) {
    for (std::int64_t vector = 0; vector < count; ++vector) store(out + vector * kPanelChannels, scales(vector));
    return;
  }
  for (std::int64_t vector = 0; vector < count; vector += 2) {
    const WordPairs both =
        interleave(scales(vector), vector + 1 < count ? scales(vector + 1) : _mm256_setzero_si256());
    store(out + vector * kPanelChannels, both.half[0]);
    store(out + (vector + 1) * kPanelChannels, both.half[1]);
  }
}

void unpack_some_scales(const PackedWeight& weight, std::int64_t first, std::int64_t count, Unpacked form,
                        std::int16_t* out) {
  switch (weight.scale_layout) {
    case ScaleLayout::none:
      return unpack_scales_of<ScaleLayout::none>(weight, first, count, form, out);
    case ScaleLayout::nibbles:
      return unpack_scales_of<ScaleLayout::nibbles>(weight, first, count, form, out);
    case ScaleLayout::bytes:
      return unpack_scales_of<ScaleLayout::bytes>(weight, first, count, form, out);
    case ScaleLayout::words:
      return unpack_scales_of<ScaleLayout::words>(weight, first, count, form, out);
  }
}

void unpack_scales(const PackedWeight& weight, std::int64_t panel, Unpacked form, std::int16_t* out) {
  unpack_some_scales(weight, panel * weight.vectors(), weight.vectors(), form, out);
}

}  // namespace
