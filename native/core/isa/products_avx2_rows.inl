// Rows of activations as the AVX2 kernels read them. Included by avx2.cpp after products_avx2.inl.

namespace {

// Some blocks of the reduction, which may cross positions.
struct Chunk {
  int position = 0;          // where it starts
  std::int64_t offset = 0;   // block within that position
  std::int64_t at = 0;       // block from the start of the reduction
  std::int64_t blocks = 0;
};

// body(position, first unit there, units, units before) for the runs of a chunk's units that lie together; a unit is
// `unit` blocks.
template <class Body>
VSQUANT_INLINE void for_each_run(const RowTile& tile, const Chunk& chunk, std::int64_t unit, const Body& body) {
  const std::int64_t per_position = tile.blocks_per_position / unit;
  std::int64_t first = chunk.offset / unit, left = chunk.blocks / unit, before = 0;
  for (int position = chunk.position; left > 0; ++position, first = 0) {
    const std::int64_t count = smaller(left, per_position - first);
    body(position, first, count, before);
    left -= count;
    before += count;
  }
}

// Groups of rows that one kernel call multiplies hold their codes together, 32 at a time: [chunk's 32 codes][row][32].
struct ArrangedRows {
  alignas(64) std::uint8_t codes[kMostRows * kChunkCodes];
  // What lanes start from. Paired: int16 [row][vector]. Plain: [chunk's 32 codes][row][8 steps], pairs of lanes; the
  // first step of a segment counts.
  alignas(64) std::int32_t starts[kMostRows * kChunkCodes / 4];
  alignas(64) std::int16_t scales[kMostRows][kChunkBlocks];
};

// One row's codes of a chunk: where they lie if that is in one piece, else gathered; zeros end an odd block.
VSQUANT_INLINE const std::uint8_t* codes_of(const RowTile& tile, int row, const Chunk& chunk, std::uint8_t* gathered) {
  if (chunk.offset + chunk.blocks <= tile.blocks_per_position && chunk.blocks % 2 == 0)
    return tile.codes[chunk.position * tile.rows + row] + chunk.offset * kBlockElements;
  for_each_run(tile, chunk, 1, [&](int position, std::int64_t first, std::int64_t count, std::int64_t before) {
    __builtin_memcpy(gathered + before * kBlockElements,
                     tile.codes[position * tile.rows + row] + first * kBlockElements, count * kBlockElements);
  });
  if (chunk.blocks % 2 != 0) __builtin_memset(gathered + chunk.blocks * kBlockElements, 0, kBlockElements);
  return gathered;
}

VSQUANT_INLINE void copy_scales(const RowTile& tile, int row, const Chunk& chunk, std::int64_t unit,
                                std::int16_t* out) {
  if (chunk.blocks < unit) {  // a part of one long vector
    out[0] = tile.scales[chunk.position * tile.rows + row][chunk.offset / unit];
    return;
  }
  for_each_run(tile, chunk, unit, [&](int position, std::int64_t first, std::int64_t count, std::int64_t before) {
    __builtin_memcpy(out + before, tile.scales[position * tile.rows + row] + first, count * sizeof *out);
  });
}

// Rows [first, first + count) for paired_kernel. 32 codes are vectors A and B; they become dwords that each hold
// elements 2s, 2s + 1 of A and of B.
void arrange_paired(const RowTile& tile, const Chunk& chunk, int first, int count, ArrangedRows& rows) {
  constexpr int kSwapMiddle = 0xd8;
  const __m256i zip = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  alignas(64) std::uint8_t gathered[kChunkCodes];
  for (int r = 0; r < count; ++r) {
    const std::uint8_t* codes = codes_of(tile, first + r, chunk, gathered);
    std::uint8_t* out = rows.codes + first * kChunkCodes + r * 32;
    for (std::int64_t i = 0; i < chunk.blocks; i += 2, codes += 32, out += count * 32)
      store(out, _mm256_shuffle_epi8(_mm256_permute4x64_epi64(load(codes), kSwapMiddle), zip));
    if (tile.scales != nullptr) copy_scales(tile, first + r, chunk, 1, rows.scales[first + r]);
    if (!tile.codes_signed) continue;
    auto* starts = reinterpret_cast<std::int16_t*>(rows.starts) + (first + r) * kChunkBlocks;
    for_each_run(tile, chunk, 1, [&](int position, std::int64_t from, std::int64_t vectors, std::int64_t before) {
      const std::int32_t* given = tile.starts[position * tile.rows + first + r] + from;
      for (std::int64_t v = 0; v < vectors; ++v) starts[before + v] = static_cast<std::int16_t>(given[v]);
    });
    if (chunk.blocks % 2 != 0) starts[chunk.blocks] = 0;
  }
}

// -kBias * (sum of a segment's codes) by lanes, in every step of the segment. A segment is `steps` times four elements.
VSQUANT_INLINE __m256i segment_starts(__m256i codes, int steps) {
  __m256i sum = _mm256_maddubs_epi16(_mm256_set1_epi8(kBias), codes);
  if (steps >= 2) sum = _mm256_add_epi16(sum, _mm256_shuffle_epi32(sum, 0xb1));
  if (steps >= 4) sum = _mm256_add_epi16(sum, _mm256_shuffle_epi32(sum, 0x4e));
  if (steps >= 8) sum = _mm256_add_epi16(sum, _mm256_permute4x64_epi64(sum, 0x4e));
  return _mm256_sub_epi16(_mm256_setzero_si256(), sum);
}

// Rows [first, first + count) for plain_kernel and wide_kernel.
void arrange_plain(const RowTile& tile, const Chunk& chunk, int first, int count, std::int64_t unit, int steps,
                   ArrangedRows& rows) {
  alignas(64) std::uint8_t gathered[kChunkCodes];
  for (int r = 0; r < count; ++r) {
    const std::uint8_t* codes = codes_of(tile, first + r, chunk, gathered);
    std::uint8_t* out = rows.codes + first * kChunkCodes + r * 32;
    std::int32_t* starts = rows.starts + first * (kChunkCodes / 4) + r * 8;
    for (std::int64_t i = 0; i < chunk.blocks; i += 2, codes += 32, out += count * 32, starts += count * 8) {
      store(out, load(codes));
      if (tile.codes_signed) store(starts, segment_starts(load(codes), steps));
    }
    if (tile.scales != nullptr) copy_scales(tile, first + r, chunk, unit, rows.scales[first + r]);
  }
}

}  // namespace
