// Tiles of few rows with AVX2, which read nibbles as they lie. Included by avx2.cpp after products_avx2_tiles.inl.

namespace {

// Scales of 16 channels, each in both lanes of its channel.
template <ScaleLayout Layout>
VSQUANT_INLINE WordPairs few_scales(const std::uint8_t* scales, std::int64_t at, __m256i offset) {
  if constexpr (Layout == ScaleLayout::none) {
    return {{_mm256_set1_epi16(1), _mm256_set1_epi16(1)}};
  } else if constexpr (Layout == ScaleLayout::nibbles) {
    std::int64_t nibbles;
    __builtin_memcpy(&nibbles, scales + at * 8, sizeof nibbles);
    const __m256i both = _mm256_set1_epi64x(nibbles), low_bits = _mm256_set1_epi8(15);
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,  //
                                            4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    const __m256i low = _mm256_shuffle_epi8(_mm256_and_si256(both, low_bits), spread);
    const __m256i high = _mm256_shuffle_epi8(_mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits), spread);
    return {{_mm256_add_epi16(low, offset), _mm256_add_epi16(high, offset)}};
  } else {
    const __m256i sigma = load_scales<Layout>(scales, at, offset);
    return interleave(sigma, sigma);
  }
}

// One to four rows wait for memory: they take nibbles as they lie, q + 8 against signed codes, at most 15 * 127 * 8 in
// a lane. The first lane takes the whole start, which keeps it below 2^15 too: 8 * 127 * 8 + 8 * 127 * 8.
template <int Rows, ScaleLayout Layout, bool Activation>
void direct(const RowTile& tile, const PackedWeight& weight, std::int64_t panel, const VectorOptions& options,
            std::int64_t* out) {
  const __m256i offset = _mm256_set1_epi16(static_cast<short>(weight.scale_offset));
  const __m256i first_lane = _mm256_set1_epi32(0xffff);
  const std::uint8_t* codes = weight.codes + panel * weight.blocks * (kBlockCodes / 2);
  std::int64_t at = panel * weight.blocks, until_drain = options.drain;
  Sums<Rows> sums;
  for (int r = 0; r < Rows; ++r) __builtin_memset(out + r * kOutStride, 0, kPanelChannels * sizeof *out);
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
      for (int line = 0; line < kBlockCodes / 2; line += 64) fetch(codes + kPrefetchBytes + line);
      const WordPairs scale = few_scales<Layout>(weight.scales, at, offset);
      const Block w = load_nibbles(codes);
      for (int r = 0; r < Rows; ++r) {
        __m256i lanes[2];
        lanes[0] = lanes[1] = _mm256_and_si256(broadcast32(start[r] + block), first_lane);
        for (int g = 0; g < 4; ++g) {
          const __m256i a = broadcast32(row[r] + block * kBlockElements + g * 4);
          for (int c = 0; c < 2; ++c) accumulate16(lanes[c], _mm256_maddubs_epi16(w.code[g][c], a));
        }
        for (int c = 0; c < 2; ++c) {
          __m256i p = scale.half[c];
          if constexpr (Activation) p = _mm256_mullo_epi16(p, _mm256_set1_epi16(activation_scale[r][block]));
          sums.add(r, c, _mm256_madd_epi16(lanes[c], p));
        }
      }
      if (--until_drain == 0) {
        until_drain = options.drain;
        sums.drain(out);
        sums = Sums<Rows>();
      }
    }
  }
  sums.drain(out);
}

using DirectTile = void (*)(const RowTile&, const PackedWeight&, std::int64_t, const VectorOptions&, std::int64_t*);

template <int Rows, ScaleLayout Layout>
DirectTile direct_by_activation(const RowTile& tile) {
  return tile.scales != nullptr ? direct<Rows, Layout, true> : direct<Rows, Layout, false>;
}

template <int Rows>
DirectTile direct_by_layout(const RowTile& tile, ScaleLayout layout) {
  switch (layout) {
    case ScaleLayout::none: return direct_by_activation<Rows, ScaleLayout::none>(tile);
    case ScaleLayout::nibbles: return direct_by_activation<Rows, ScaleLayout::nibbles>(tile);
    case ScaleLayout::bytes: return direct_by_activation<Rows, ScaleLayout::bytes>(tile);
    case ScaleLayout::words: return direct_by_activation<Rows, ScaleLayout::words>(tile);
  }
  __builtin_unreachable();
}

constexpr int kDirectRows = 4;

DirectTile choose_direct(const RowTile& tile, ScaleLayout layout) {
  switch (tile.rows) {
    case 1: return direct_by_layout<1>(tile, layout);
    case 2: return direct_by_layout<2>(tile, layout);
    case 3: return direct_by_layout<3>(tile, layout);
    case 4: return direct_by_layout<4>(tile, layout);
    default: __builtin_unreachable();
  }
}

// More rows unpack a chunk into the first cache and use it at once.
void some_rows(const RowTile& tile, const PackedWeight& weight, std::int64_t first_panel, int panels,
               const VectorOptions& options, std::int64_t* out) {
  alignas(64) std::int8_t codes[kChunkBlocks * kBlockCodes];
  alignas(64) std::int16_t scales[kChunkBlocks * kPanelChannels];
  const auto weights_of = [&](int panel, const Chunk& chunk, Work& work) {
    const std::int64_t block = (first_panel + panel) * weight.blocks + chunk.at;
    const std::uint8_t* nibbles = weight.codes + block * (kBlockCodes / 2);
    unpack_pairs<true>(nibbles, chunk.blocks, _mm256_setzero_si256(), codes);
    work.weights = codes;
    work.fetched = nibbles + chunk.blocks * (kBlockCodes / 2);
    if (weight.scale_layout == ScaleLayout::none) return;
    unpack_some_scales(weight, block, chunk.blocks, Unpacked::paired_biased, scales);
    work.scales = scales;
  };
  const Course course{true, Operands::biased, settling_of(options, tile.scales != nullptr), 0, kKernelRows};
  run_tile(tile, panels, options, course, weights_of, out);
}

void few_tile(const RowTile& tile, const PackedWeight& weight, std::int64_t panel, int panels,
              const VectorOptions& options, std::int64_t* out) {
  if (tile.rows > kDirectRows) return some_rows(tile, weight, panel, panels, options, out);
  const DirectTile chosen = choose_direct(tile, weight.scale_layout);
  for (int p = 0; p < panels; ++p) chosen(tile, weight, panel + p, options, out + p * kPanelChannels);
}

}  // namespace
