// Few rows: nibbles are multiplied as they come from memory, the scales after each vector.

namespace {

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
