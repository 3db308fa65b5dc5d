// AVX2 kernels of one to six rows and one panel. Included by avx2.cpp after products_avx2_rows.inl.

namespace {

constexpr int kKernelRows = 6;  // most rows of a kernel
constexpr std::int64_t kOutStride = kPanels * kPanelChannels;

struct Work {
  const ArrangedRows* rows;
  int first_row;
  const std::int8_t* weights;   // of one panel, from the chunk's first block on
  const std::int16_t* scales;   // as unpack_scales made them, from the chunk's first vector on; null: ones
  std::int64_t vectors;
  std::int64_t blocks_per_vector;
  ProductRounding rounding;
  bool activation_scales;
  std::int64_t* out;            // [row][kOutStride], to be added to
  const std::uint8_t* fetched;  // nibbles to fetch meanwhile, as many as the weights are; or null
};

alignas(64) constexpr std::int16_t kOnes[2 * kPanelChannels] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

VSQUANT_INLINE void add_wide(std::int64_t* out, __m256i sum) {
  const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sum));
  const __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(sum, 1));
  store(out, _mm256_add_epi64(load(out), low));
  store(out + 4, _mm256_add_epi64(load(out + 4), high));
}

// sum += term, in the order written: compilers that regroup such sums run out of registers.
VSQUANT_INLINE void accumulate16(__m256i& sum, __m256i term) {
  sum = _mm256_add_epi16(sum, term);
  __asm__("" : "+x"(sum));
}

// The int32 sums of a kernel. Those of many rows stay in memory: registers are for the 16-bit lanes.
template <int Rows>
struct Sums {
  static constexpr bool kInMemory = Rows > 3;
  __m256i value[Rows][2];
  Sums() {
    for (int r = 0; r < Rows; ++r) value[r][0] = value[r][1] = _mm256_setzero_si256();
  }
  void add(int r, int c, __m256i term) {
    value[r][c] = _mm256_add_epi32(value[r][c], term);
    if constexpr (kInMemory)
      __asm__("" : "+m"(value[r][c]));
    else
      __asm__("" : "+x"(value[r][c]));
  }
  void drain(std::int64_t* out) const {
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < 2; ++c) add_wide(out + r * kOutStride + c * 8, value[r][c]);
  }
};

// p of 16-bit lanes, from sigma_w and sigma_a.
struct WordProduct {
  __m256i half, limit;
  __m128i shift;
  explicit WordProduct(const ProductRounding& rounding)
      : half(_mm256_set1_epi16(static_cast<short>(rounding.shift > 0 ? 1 << (rounding.shift - 1) : 0))),
        limit(_mm256_set1_epi16(static_cast<short>(rounding.limit))),
        shift(_mm_cvtsi32_si128(rounding.shift)) {}
  template <Settling How>
  __m256i of(__m256i weight_scale, __m256i activation_scale) const {
    const __m256i exact = _mm256_mullo_epi16(weight_scale, activation_scale);
    if constexpr (How != Settling::rounded) return exact;
    // Where this sum saturates at 2^16 - 1, its shifted value is the limit.
    return _mm256_min_epu16(_mm256_srl_epi16(_mm256_adds_epu16(exact, half), shift), limit);
  }
};

// V = 16, two vectors at a time: a lane of vector A and a lane of vector B for every channel, vpmaddubsw eight times,
// vpmaddwd by (p_A, p_B) once.
template <int Rows, bool Signed, Settling How, bool Fetch>
void paired_kernel(const Work& work) {
  const WordProduct product(work.rounding);
  Sums<Rows> sums;
  const std::int8_t* w = work.weights;
  const std::int16_t* scale = work.scales != nullptr ? work.scales : kOnes;
  const std::int64_t scale_step = work.scales != nullptr ? 2 * kPanelChannels : 0;
  const std::uint8_t* codes = work.rows->codes + work.first_row * kChunkCodes;
  const std::int16_t* starts = reinterpret_cast<const std::int16_t*>(work.rows->starts) + work.first_row * kChunkBlocks;
  const std::int16_t* activation_scales = work.rows->scales[work.first_row];
  for (std::int64_t vector = 0; vector < work.vectors; vector += 2) {
    __m256i lanes[Rows][2];
    for (int r = 0; r < Rows; ++r)
      lanes[r][0] = lanes[r][1] = Signed ? broadcast32(starts + r * kChunkBlocks + vector) : _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      if constexpr (Fetch)
        if (s % 2 == 0) fetch(work.fetched + vector * (kBlockCodes / 2) + s * 32);
      const __m256i w0 = load(w + s * 64), w1 = load(w + s * 64 + 32);
      for (int r = 0; r < Rows; ++r) {
        const __m256i a = broadcast32(codes + r * 32 + s * 4);
        accumulate16(lanes[r][0], Signed ? _mm256_maddubs_epi16(w0, a) : _mm256_maddubs_epi16(a, w0));
        accumulate16(lanes[r][1], Signed ? _mm256_maddubs_epi16(w1, a) : _mm256_maddubs_epi16(a, w1));
      }
    }
    for (int c = 0; c < 2; ++c) {
      const __m256i weight_scale = load(scale + c * kPanelChannels);
      for (int r = 0; r < Rows; ++r) {
        __m256i p = weight_scale;
        if constexpr (How != Settling::weight)
          p = product.of<How>(p, broadcast32(activation_scales + r * kChunkBlocks + vector));
        sums.add(r, c, _mm256_madd_epi16(lanes[r][c], p));
      }
    }
    w += 2 * kBlockCodes;
    scale += scale_step;
    codes += Rows * 32;
  }
  sums.drain(work.out);
}

// How a plain kernel multiplies bytes.
enum class Operands : std::uint8_t {
  biased,     // unsigned weights q + kBias, signed activations
  natural,    // unsigned activations, signed weights
  sign,       // |q| and activations that take its sign: 8-bit weights
  halves,     // unsigned 8-bit activations, 8-bit weights: pairs would saturate, so one element of a pair at a time
};

// One step: four elements of one row and eight channels, added to 16-bit lanes.
template <Operands Kind>
VSQUANT_INLINE void multiply(__m256i& lanes, __m256i w, __m256i magnitude, __m256i a) {
  if constexpr (Kind == Operands::biased) accumulate16(lanes, _mm256_maddubs_epi16(w, a));
  if constexpr (Kind == Operands::natural) accumulate16(lanes, _mm256_maddubs_epi16(a, w));
  if constexpr (Kind == Operands::sign) accumulate16(lanes, _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(a, w)));
}

VSQUANT_INLINE WordPairs plain_scales(const std::int16_t* scales, std::int64_t vector) {
  if (scales == nullptr) return {{_mm256_set1_epi16(1), _mm256_set1_epi16(1)}};
  const __m256i sigma = load(scales + vector * kPanelChannels);
  return interleave(sigma, sigma);
}

// The codes and starts of a row at one step of a chunk.
template <int Rows>
struct Cursor {
  const std::uint8_t* codes;
  const std::int32_t* starts;
  explicit Cursor(const Work& work)
      : codes(work.rows->codes + work.first_row * kChunkCodes),
        starts(work.rows->starts + work.first_row * (kChunkCodes / 4)) {}
  const std::uint8_t* codes_at(std::int64_t step) const { return codes + step / 8 * (Rows * 32) + step % 8 * 4; }
  const std::int32_t* starts_at(std::int64_t step) const { return starts + step / 8 * (Rows * 8) + step % 8; }
};

// Any V: both lanes of a channel belong to one vector, which is cut into segments of `Steps` times four elements that
// 16 bits hold.
template <int Rows, Operands Kind, int Steps, Settling How>
void plain_kernel(const Work& work) {
  const WordProduct product(work.rounding);
  const __m256i even = _mm256_set1_epi16(255);
  Sums<Rows> sums;
  const Cursor<Rows> cursor(work);
  const std::int16_t* activation_scales = work.rows->scales[work.first_row];
  const std::int8_t* w = work.weights;
  std::int64_t step = 0;
  for (std::int64_t vector = 0; vector < work.vectors; ++vector) {
    const WordPairs weight_scale = plain_scales(work.scales, vector);
    __m256i p[Rows][2];
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < 2; ++c) {
        p[r][c] = weight_scale.half[c];
        if constexpr (How != Settling::weight)
          p[r][c] = product.of<How>(p[r][c], _mm256_set1_epi16(activation_scales[r * kChunkBlocks + vector]));
      }
    for (const std::int64_t end = step + work.blocks_per_vector * 4; step < end; step += Steps) {
      const std::uint8_t* codes = cursor.codes_at(step);
      const std::int32_t* starts = cursor.starts_at(step);
      __m256i lanes[Rows][2];
      for (int r = 0; r < Rows; ++r)
        lanes[r][0] = lanes[r][1] = Kind == Operands::biased ? broadcast32(starts + r * 8) : _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int s = 0; s < Steps; ++s, w += 64) {
        const __m256i w0 = load(w), w1 = load(w + 32);
        const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
        for (int r = 0; r < Rows; ++r) {
          const __m256i a = broadcast32(codes + r * 32 + s * 4);
          if constexpr (Kind == Operands::halves) {
            const __m256i first = _mm256_and_si256(a, even), second = _mm256_andnot_si256(even, a);
            sums.add(r, 0, _mm256_madd_epi16(_mm256_maddubs_epi16(first, w0), p[r][0]));
            sums.add(r, 1, _mm256_madd_epi16(_mm256_maddubs_epi16(first, w1), p[r][1]));
            sums.add(r, 0, _mm256_madd_epi16(_mm256_maddubs_epi16(second, w0), p[r][0]));
            sums.add(r, 1, _mm256_madd_epi16(_mm256_maddubs_epi16(second, w1), p[r][1]));
          } else {
            multiply<Kind>(lanes[r][0], w0, m0, a);
            multiply<Kind>(lanes[r][1], w1, m1, a);
          }
        }
      }
      if constexpr (Kind != Operands::halves)
        for (int r = 0; r < Rows; ++r)
          for (int c = 0; c < 2; ++c) sums.add(r, c, _mm256_madd_epi16(lanes[r][c], p[r][c]));
    }
  }
  sums.drain(work.out);
}

// Any scale product: one row, partial sums in 32 bits, their products in 64.
template <Operands Kind, int Steps>
void wide_kernel(const Work& work) {
  const __m256i even = _mm256_set1_epi16(255), ones = _mm256_set1_epi16(1), low_word = _mm256_set1_epi32(0xffff);
  const __m256i half = _mm256_set1_epi32(work.rounding.shift > 0 ? 1 << (work.rounding.shift - 1) : 0);
  const __m256i limit = _mm256_set1_epi32(work.rounding.limit);
  const __m128i shift = _mm_cvtsi32_si128(work.rounding.shift);
  const Cursor<1> cursor(work);
  const std::int8_t* w = work.weights;
  std::int64_t step = 0;
  __m256i sum[2][2];  // [channels 0-7, 8-15][even, odd]
  for (int c = 0; c < 2; ++c) sum[c][0] = sum[c][1] = _mm256_setzero_si256();
  for (std::int64_t vector = 0; vector < work.vectors; ++vector) {
    __m256i partial[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (const std::int64_t end = step + work.blocks_per_vector * 4; step < end; step += Steps) {
      const std::uint8_t* codes = cursor.codes_at(step);
      for (int c = 0; c < 2; ++c) {
        __m256i lanes = Kind == Operands::biased ? broadcast32(cursor.starts_at(step)) : _mm256_setzero_si256();
        for (int s = 0; s < Steps; ++s) {
          const __m256i q = load(w + s * 64 + c * 32), a = broadcast32(codes + s * 4);
          if constexpr (Kind == Operands::halves) {
            const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(a, even), q);
            partial[c] = _mm256_add_epi32(partial[c], _mm256_madd_epi16(first, ones));
            lanes = _mm256_maddubs_epi16(_mm256_andnot_si256(even, a), q);
          } else {
            multiply<Kind>(lanes, q, _mm256_abs_epi8(q), a);
          }
        }
        partial[c] = _mm256_add_epi32(partial[c], _mm256_madd_epi16(lanes, ones));
      }
      w += Steps * 64;
    }
    const WordPairs weight_scale = plain_scales(work.scales, vector);
    const __m256i activation_scale =
        _mm256_set1_epi16(work.activation_scales ? work.rows->scales[work.first_row][vector] : 1);
    for (int c = 0; c < 2; ++c) {
      const __m256i exact = _mm256_madd_epi16(_mm256_and_si256(weight_scale.half[c], low_word), activation_scale);
      const __m256i p = _mm256_min_epi32(_mm256_srl_epi32(_mm256_add_epi32(exact, half), shift), limit);
      sum[c][0] = _mm256_add_epi64(sum[c][0], _mm256_mul_epi32(partial[c], p));
      sum[c][1] = _mm256_add_epi64(
          sum[c][1], _mm256_mul_epi32(_mm256_srli_epi64(partial[c], 32), _mm256_srli_epi64(p, 32)));
    }
  }
  for (int c = 0; c < 2; ++c) {
    const __m256i low = _mm256_unpacklo_epi64(sum[c][0], sum[c][1]);   // channels 0, 1, 4, 5
    const __m256i high = _mm256_unpackhi_epi64(sum[c][0], sum[c][1]);  // 2, 3, 6, 7
    std::int64_t* out = work.out + c * 8;
    store(out, _mm256_add_epi64(load(out), _mm256_permute2x128_si256(low, high, 0x20)));
    store(out + 4, _mm256_add_epi64(load(out + 4), _mm256_permute2x128_si256(low, high, 0x31)));
  }
}

}  // namespace
