// Folded tiles: the int8 codes times scales are plain dot products, one vpdpbusd for 64 of them.

namespace {

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

}  // namespace
