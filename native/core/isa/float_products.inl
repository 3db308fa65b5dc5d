// Rows of floats times panels of codes: layers whose activations stay floating point. Few rows make floats of the codes
// in registers; more rows do so once, in the cache, for many tiles.

namespace {
namespace floats {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kPanels = 2, kMostRows = 12;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kPanels = 1, kMostRows = 6;
#else
constexpr int kLanes = 4, kPanels = 1, kMostRows = 6;
#endif
constexpr int kRegisters = kPanelChannels / kLanes;  // of a panel
constexpr int kDepthwiseRows = 4;

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));

inline Floats load(const float* from) {
  Floats v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Floats v) { __builtin_memcpy(to, &v, sizeof v); }

// The code whose bits begin at `shift` in lanes of four codes, and a * b + c, rounded once where there is a way.
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
#else
inline Floats splat(float value) { return value - Floats{}; }
inline Floats nibble(Ints four, int shift) { return __builtin_convertvector(((four >> shift) & 15) - 8, Floats); }
#if defined(__AVX2__)
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return reinterpret_cast<Floats>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
#else
inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
#endif
#endif
inline Floats byte(Ints four, int shift) { return __builtin_convertvector((four << (24 - shift)) >> 24, Floats); }

// Elements of a part of a block, 64 bytes of codes.
template <CodeLayout Layout>
constexpr int kPart = Layout == CodeLayout::nibbles ? 8 : 4;
template <CodeLayout Layout>
inline Floats element(Ints four, int e) {
  return Layout == CodeLayout::nibbles ? nibble(four, e % 4 * 8 + e / 4 * 4) : byte(four, e * 8);
}

// A register's channels of a part of a block.
template <CodeLayout Layout>
inline Ints codes_at(const PackedWeight& weight, std::int64_t panel, std::int64_t block, int part, int lane) {
  constexpr int kBytes = kBlockCodes * kPart<CodeLayout::bytes> / kPart<Layout>;
  Ints four;
  __builtin_memcpy(&four, weight.codes + (panel * weight.blocks + block) * kBytes + part * 64 + lane * 4, sizeof four);
  return four;
}

// out[row * kPanels * 16 + channel] = sum of x * (q * s). Few rows take several sums at once, to not wait for one.
template <CodeLayout Layout, bool Scaled, int Rows, int Panels>
void few(const float* x, std::int64_t stride, const PackedWeight& weight, std::int64_t panel, const float* scales,
         float* out) {
  constexpr int kSplit = Rows >= 4 ? 1 : 4, kWide = Panels * kRegisters, kElements = kPart<Layout>;
  const std::int64_t panel_scales = weight.vectors() * kPanelChannels;
  Floats sum[Rows][kWide][kSplit] = {};
  for (std::int64_t block = 0; block < weight.blocks; ++block) {
    Floats scale[kWide];
    for (int i = 0; Scaled && i < kWide; ++i)
      scale[i] = load(scales + i / kRegisters * panel_scales + block / weight.blocks_per_vector * kPanelChannels +
                      i % kRegisters * kLanes);
    for (int part = 0; part < kBlockElements / kElements; ++part) {
      Ints four[kWide];
      for (int i = 0; i < kWide; ++i)
        four[i] = codes_at<Layout>(weight, panel + i / kRegisters, block, part, i % kRegisters * kLanes);
      const std::int64_t first = block * kBlockElements + part * kElements;
#pragma GCC unroll 8
      for (int e = 0; e < kElements; ++e) {
        Floats w[kWide];
        for (int i = 0; i < kWide; ++i) {
          w[i] = element<Layout>(four[i], e);
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
      store(out + r * kPanels * kPanelChannels + i * kLanes, all);
    }
  }
}

template <int Rows, int Panels>
void few_by_layout(const float* x, std::int64_t stride, const PackedWeight& weight, std::int64_t panel,
                   const float* scales, float* out) {
  if (weight.code_layout == CodeLayout::nibbles)
    return scales ? few<CodeLayout::nibbles, true, Rows, Panels>(x, stride, weight, panel, scales, out)
                  : few<CodeLayout::nibbles, false, Rows, Panels>(x, stride, weight, panel, scales, out);
  return scales ? few<CodeLayout::bytes, true, Rows, Panels>(x, stride, weight, panel, scales, out)
                : few<CodeLayout::bytes, false, Rows, Panels>(x, stride, weight, panel, scales, out);
}

template <int Rows>
int few_by_panels(const float* x, std::int64_t stride, const PackedWeight& weight, std::int64_t panel, int panels,
                  const float* scales, float* out) {
  if (panels == 1)
    few_by_layout<Rows, 1>(x, stride, weight, panel, scales, out);
  else
    few_by_layout<Rows, kPanels>(x, stride, weight, panel, scales, out);
  return Rows;
}

int few_tile(const float* x, std::int64_t stride, int rows, const PackedWeight& weight, std::int64_t panel, int panels,
             const float* scales, float* out) {
  if (rows >= 4) return few_by_panels<4>(x, stride, weight, panel, panels, scales, out);
  if (rows >= 2) return few_by_panels<2>(x, stride, weight, panel, panels, scales, out);
  return few_by_panels<1>(x, stride, weight, panel, panels, scales, out);
}

template <CodeLayout Layout>
void unpack_layout(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                   const float* scales, float* out) {
  constexpr int kElements = kPart<Layout>;
  for (std::int64_t block = first; block < first + count; ++block) {
    for (int lane = 0; lane < kPanelChannels; lane += kLanes) {
      const Floats scale =
          scales == nullptr ? splat(1.0f) : load(scales + block / weight.blocks_per_vector * kPanelChannels + lane);
      for (int part = 0; part < kBlockElements / kElements; ++part) {
        const Ints four = codes_at<Layout>(weight, panel, block, part, lane);
#pragma GCC unroll 8
        for (int e = 0; e < kElements; ++e)
          store(out + ((block - first) * kBlockElements + part * kElements + e) * kPanelChannels + lane,
                element<Layout>(four, e) * scale);
      }
    }
  }
}

void unpack(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count, const float* scales,
            float* out) {
  if (weight.code_layout == CodeLayout::nibbles) return unpack_layout<CodeLayout::nibbles>(weight, panel, first, count, scales, out);
  unpack_layout<CodeLayout::bytes>(weight, panel, first, count, scales, out);
}

template <int Rows, int Panels>
void rows_of(const FloatRun& run, float* sums) {
  constexpr int kWide = Panels * kRegisters;
  Floats sum[Rows][kWide];
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < kWide; ++i) sum[r][i] = load(sums + r * kPanels * kPanelChannels + i * kLanes);
  for (std::int64_t position = 0; position < run.positions; ++position) {
    const float* row[Rows];
    for (int r = 0; r < Rows; ++r) row[r] = reinterpret_cast<const float*>(run.x[position * Rows + r]) + run.first;
    const float* weights = run.weights + position * run.position_stride;
    for (std::int64_t k = 0; k < run.count; ++k) {
      Floats w[kWide];
      for (int i = 0; i < kWide; ++i)
        w[i] = load(weights + i / kRegisters * run.panel_stride + k * kPanelChannels + i % kRegisters * kLanes);
      for (int r = 0; r < Rows; ++r) {
        const Floats a = splat(row[r][k]);
        for (int i = 0; i < kWide; ++i) sum[r][i] = multiply_add(a, w[i], sum[r][i]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < kWide; ++i) store(sums + r * kPanels * kPanelChannels + i * kLanes, sum[r][i]);
}

template <int Rows>
void rows_by_panels(const FloatRun& run, int rows, int panels, float* sums) {
  if constexpr (Rows > 1)
    if (rows < Rows) return rows_by_panels<Rows - 1>(run, rows, panels, sums);
  if (panels == 1) return rows_of<Rows, 1>(run, sums);
  rows_of<Rows, kPanels>(run, sums);
}

template <int Rows>
void depthwise_rows(const std::uint8_t* const* x, int rows, int positions, const float* weights, std::int64_t stride,
                    std::int64_t first, int count, float* out) {
  if constexpr (Rows > 1)
    if (rows < Rows) return depthwise_rows<Rows - 1>(x, rows, positions, weights, stride, first, count, out);
  for (std::int64_t channel = first; channel < first + count; channel += kLanes, out += kLanes) {
    Floats sum[Rows] = {};
    for (int position = 0; position < positions; ++position) {
      const Floats w = load(weights + position * stride + channel);
      for (int r = 0; r < Rows; ++r)
        sum[r] = multiply_add(load(reinterpret_cast<const float*>(x[position * Rows + r]) + channel), w, sum[r]);
    }
    for (int r = 0; r < Rows; ++r) store(out + r * Channels::kMost, sum[r]);
  }
}

constexpr FloatKernels table{kPanels, kMostRows, few_tile, unpack, rows_by_panels<kMostRows>, depthwise_rows<kDepthwiseRows>};

}  // namespace floats
}  // namespace
