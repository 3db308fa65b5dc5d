// Products with Arm's dot products. sdot wants both operands signed: unsigned activations become a - 128, and 128 times
// the sum of the weights is added back. Included by neon_dotprod.cpp alone.

namespace {

constexpr int kRows = 4, kPanels = 4;
constexpr std::int64_t kOutStride = kPanels * kPanelChannels;

// Four registers of 4 channels each.
using Channels32 = int32x4_t[4];

// ---- unpacking -----------------------------------------------------------------------------------------------------

// Codes of one block: [4 groups of elements][4 x 4 channels].
struct Block {
  int8x16_t code[4][4];
};

// Nibbles as q + 8.
inline Block load_nibbles(const std::uint8_t* at) {
  Block block;
  for (int h = 0; h < 2; ++h)
    for (int c = 0; c < 4; ++c) {
      const uint8x16_t both = vld1q_u8(at + h * 64 + c * 16);
      block.code[2 * h][c] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
      block.code[2 * h + 1][c] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
    }
  return block;
}

inline Block load_bytes(const std::int8_t* at) {
  Block block;
  for (int g = 0; g < 4; ++g)
    for (int c = 0; c < 4; ++c) block.code[g][c] = vld1q_s8(at + g * 64 + c * 16);
  return block;
}

// sigma of 16 channels, less the offset of stored scales.
inline uint16x8x2_t load_stored_scales(const PackedWeight& weight, std::int64_t at) {
  if (weight.scale_layout == ScaleLayout::nibbles) {
    const uint8x8_t both = vld1_u8(weight.scales + at * 8);
    return {{vmovl_u8(vand_u8(both, vdup_n_u8(15))), vmovl_u8(vshr_n_u8(both, 4))}};
  }
  if (weight.scale_layout == ScaleLayout::bytes) {
    const uint8x16_t bytes = vld1q_u8(weight.scales + at * 16);
    return {{vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes))}};
  }
  const std::uint8_t* words = weight.scales + at * 32;
  return {{vreinterpretq_u16_u8(vld1q_u8(words)), vreinterpretq_u16_u8(vld1q_u8(words + 16))}};
}

// sigma of 16 channels.
inline uint16x8x2_t load_scales(const PackedWeight& weight, std::int64_t at) {
  if (weight.scale_layout == ScaleLayout::none) return {{vdupq_n_u16(1), vdupq_n_u16(1)}};
  const uint16x8_t offset = vdupq_n_u16(static_cast<std::uint16_t>(weight.scale_offset));
  const uint16x8x2_t stored = load_stored_scales(weight, at);
  return {{vaddq_u16(stored.val[0], offset), vaddq_u16(stored.val[1], offset)}};
}

inline void widen(uint16x8x2_t sigma, Channels32 out) {
  for (int half = 0; half < 2; ++half) {
    out[2 * half] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(sigma.val[half])));
    out[2 * half + 1] = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(sigma.val[half])));
  }
}

void unpack_codes(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                  Unpacked form, std::int8_t* out) {
  const bool nibbles = weight.code_layout == CodeLayout::nibbles;
  const int bytes = nibbles ? kBlockCodes / 2 : kBlockCodes;
  const std::uint8_t* codes = weight.codes + (panel * weight.blocks + first) * bytes;
  const int8x16_t bias = vdupq_n_s8(nibbles ? 8 : 0);
  for (std::int64_t block = 0; block < count; ++block, codes += bytes) {
    Block q = nibbles ? load_nibbles(codes) : load_bytes(reinterpret_cast<const std::int8_t*>(codes));
    int8x16_t scale[4];
    for (int c = 0; c < 4; ++c) scale[c] = vdupq_n_s8(1);
    if (form == Unpacked::folded) {  // then sigma fits a byte, and each of four goes to its channel's elements
      const std::int64_t vector = panel * weight.vectors() + (first + block) / weight.blocks_per_vector;
      Channels32 sigma;
      widen(load_scales(weight, vector), sigma);
      for (int c = 0; c < 4; ++c)
        scale[c] = vreinterpretq_s8_s32(vmulq_n_s32(sigma[c], 0x01010101));
    }
    for (int g = 0; g < 4; ++g)
      for (int c = 0; c < 4; ++c, out += 16) vst1q_s8(out, vmulq_s8(vsubq_s8(q.code[g][c], bias), scale[c]));
  }
}

void unpack_scales(const PackedWeight& weight, std::int64_t panel, Unpacked, std::int16_t* out) {
  const std::int64_t vectors = weight.vectors();
  for (std::int64_t vector = 0; vector < vectors; ++vector, out += kPanelChannels) {
    const uint16x8x2_t sigma = load_scales(weight, panel * vectors + vector);
    vst1q_s16(out, vreinterpretq_s16_u16(sigma.val[0]));
    vst1q_s16(out + 8, vreinterpretq_s16_u16(sigma.val[1]));
  }
}

// ---- one block -----------------------------------------------------------------------------------------------------

// sums += w * a over the 16 elements of a block: lane g of `a` holds elements 4g to 4g + 3.
inline void multiply(Channels32 sums, const Block& w, int8x16_t a) {
  for (int c = 0; c < 4; ++c) {
    sums[c] = vdotq_laneq_s32(sums[c], w.code[0][c], a, 0);
    sums[c] = vdotq_laneq_s32(sums[c], w.code[1][c], a, 1);
    sums[c] = vdotq_laneq_s32(sums[c], w.code[2][c], a, 2);
    sums[c] = vdotq_laneq_s32(sums[c], w.code[3][c], a, 3);
  }
}

// A row's codes of one block as signed bytes.
template <bool Signed>
inline int8x16_t load_row(const std::uint8_t* codes) {
  const uint8x16_t a = vld1q_u8(codes);
  return vreinterpretq_s8_u8(Signed ? a : veorq_u8(a, vdupq_n_u8(128)));
}

inline void set(Channels32 sums, int32x4_t value) {
  for (int c = 0; c < 4; ++c) sums[c] = value;
}

// sums += 128 * w over a block: what unsigned activations lack.
inline void add_bias(Channels32 sums, const Block& w) {
  // 128 has no signed byte; -128 has.
  Channels32 negative;
  set(negative, vdupq_n_s32(0));
  multiply(negative, w, vdupq_n_s8(-128));
  for (int c = 0; c < 4; ++c) sums[c] = vsubq_s32(sums[c], negative[c]);
}

// ---- folded tiles --------------------------------------------------------------------------------------------------

template <int Rows, bool Signed>
void folded(const RowTile& tile, const std::int8_t* w, std::int32_t* out) {
  Channels32 sum[Rows], bias;
  set(bias, vdupq_n_s32(0));
  for (int r = 0; r < Rows; ++r) set(sum[r], vdupq_n_s32(0));
  for (int position = 0; position < tile.positions; ++position) {
    const std::uint8_t* const* row = tile.codes + position * Rows;
    for (std::int64_t block = 0; block < tile.blocks_per_position; ++block, w += kBlockCodes) {
      const Block codes = load_bytes(w);
      if constexpr (!Signed) add_bias(bias, codes);
      for (int r = 0; r < Rows; ++r) multiply(sum[r], codes, load_row<Signed>(row[r] + block * kBlockElements));
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < 4; ++c) vst1q_s32(out + r * kOutStride + c * 4, vaddq_s32(sum[r][c], bias[c]));
}

template <int Rows>
void folded_panels(const RowTile& tile, const std::int8_t* const* weights, int panels, std::int32_t* out) {
  for (int p = 0; p < panels; ++p, out += kPanelChannels) {
    if (tile.codes_signed)
      folded<Rows, true>(tile, weights[p], out);
    else
      folded<Rows, false>(tile, weights[p], out);
  }
}

void folded_tile(const RowTile& tile, const std::int8_t* const* weights, int panels, std::int32_t* out) {
  switch (tile.rows) {
    case 1: return folded_panels<1>(tile, weights, panels, out);
    case 2: return folded_panels<2>(tile, weights, panels, out);
    case 3: return folded_panels<3>(tile, weights, panels, out);
    case 4: return folded_panels<4>(tile, weights, panels, out);
    default: __builtin_unreachable();
  }
}

// ---- vector tiles --------------------------------------------------------------------------------------------------

Unpacked vector_form(const VectorOptions&, int, bool) { return Unpacked::codes; }

// p = sigma_w * sigma_a, rounded where asked.
struct Product {
  int32x4_t half, limit, shift;
  explicit Product(const VectorOptions& options)
      : half(vdupq_n_s32(options.rounding.shift > 0 ? 1 << (options.rounding.shift - 1) : 0)),
        limit(vdupq_n_s32(options.round_product ? options.rounding.limit : 0x7fffffff)),
        shift(vdupq_n_s32(-options.rounding.shift)) {}
  int32x4_t of(int32x4_t weight_scale, std::int32_t activation_scale) const {
    const int32x4_t exact = vmulq_n_s32(weight_scale, activation_scale);
    return vminq_s32(vshlq_s32(vaddq_s32(exact, half), shift), limit);
  }
};

inline void add_to(std::int64_t* out, int64x2_t term) { vst1q_s64(out, vaddq_s64(vld1q_s64(out), term)); }

// Empties int32 sums into int64.
inline void drain(Channels32 sums, std::int64_t* out) {
  for (int c = 0; c < 4; ++c) {
    add_to(out + c * 4, vmovl_s32(vget_low_s32(sums[c])));
    add_to(out + c * 4 + 2, vmovl_high_s32(sums[c]));
    sums[c] = vdupq_n_s32(0);
  }
}

inline void settle(const Channels32 partial, const Channels32 p, Channels32 sums) {
  for (int c = 0; c < 4; ++c) sums[c] = vmlaq_s32(sums[c], partial[c], p[c]);
}

inline void settle_wide(const Channels32 partial, const Channels32 p, std::int64_t* out) {
  for (int c = 0; c < 4; ++c) {
    add_to(out + c * 4, vmull_s32(vget_low_s32(partial[c]), vget_low_s32(p[c])));
    add_to(out + c * 4 + 2, vmull_high_s32(partial[c], p[c]));
  }
}

// `block_of(b)` gives the codes of block b of a panel, `scale_of(v, out)` sigma of its vector v. Partial sums begin at
// `starts`, if any.
template <int Rows, bool Signed, class BlockOf, class ScaleOf>
void vectors(const RowTile& tile, const VectorOptions& options, const std::int32_t* const* starts,
             const BlockOf& block_of, const ScaleOf& scale_of, std::int64_t* out) {
  const Product product(options);
  const std::int64_t per_position = tile.blocks_per_position / options.blocks_per_vector;
  Channels32 sum[Rows];
  for (int r = 0; r < Rows; ++r) {
    set(sum[r], vdupq_n_s32(0));
    __builtin_memset(out + r * kOutStride, 0, kPanelChannels * sizeof *out);
  }
  std::int64_t until_drain = options.drain, at = 0;
  for (int position = 0; position < tile.positions; ++position) {
    for (std::int64_t vector = 0; vector < per_position; ++vector, ++at) {
      Channels32 partial[Rows], bias, scale, p;
      set(bias, vdupq_n_s32(0));
      for (int r = 0; r < Rows; ++r)
        set(partial[r], vdupq_n_s32(starts != nullptr ? starts[position * Rows + r][vector] : 0));
      for (std::int64_t b = 0; b < options.blocks_per_vector; ++b) {
        const Block codes = block_of(at * options.blocks_per_vector + b);
        const std::int64_t element = (vector * options.blocks_per_vector + b) * kBlockElements;
        if constexpr (!Signed) add_bias(bias, codes);
        for (int r = 0; r < Rows; ++r)
          multiply(partial[r], codes, load_row<Signed>(tile.codes[position * Rows + r] + element));
      }
      scale_of(at, scale);
      for (int r = 0; r < Rows; ++r) {
        const std::int32_t activation_scale = tile.scales != nullptr ? tile.scales[position * Rows + r][vector] : 1;
        for (int c = 0; c < 4; ++c) {
          p[c] = product.of(scale[c], activation_scale);
          partial[r][c] = vaddq_s32(partial[r][c], bias[c]);
        }
        if (options.drain == 0)
          settle_wide(partial[r], p, out + r * kOutStride);
        else
          settle(partial[r], p, sum[r]);
      }
      if (--until_drain != 0) continue;
      until_drain = options.drain;
      for (int r = 0; r < Rows; ++r) drain(sum[r], out + r * kOutStride);
    }
  }
  for (int r = 0; r < Rows; ++r) drain(sum[r], out + r * kOutStride);
}

template <int Rows>
void vectors_panels(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                    int panels, const VectorOptions& options, std::int64_t* out) {
  for (int p = 0; p < panels; ++p, out += kPanelChannels) {
    const std::int8_t* codes = weights[p];
    const std::int16_t* scales = weight_scales != nullptr ? weight_scales[p] : nullptr;
    const auto block_of = [codes](std::int64_t block) { return load_bytes(codes + block * kBlockCodes); };
    const auto scale_of = [scales](std::int64_t vector, Channels32 sigma) {
      if (scales == nullptr) return set(sigma, vdupq_n_s32(1));
      const auto* at = reinterpret_cast<const std::uint16_t*>(scales + vector * kPanelChannels);
      widen({{vld1q_u16(at), vld1q_u16(at + 8)}}, sigma);
    };
    if (tile.codes_signed)
      vectors<Rows, true>(tile, options, nullptr, block_of, scale_of, out);
    else
      vectors<Rows, false>(tile, options, nullptr, block_of, scale_of, out);
  }
}

void vector_tile(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                 int panels, const VectorOptions& options, std::int64_t* out) {
  switch (tile.rows) {
    case 1: return vectors_panels<1>(tile, weights, weight_scales, panels, options, out);
    case 2: return vectors_panels<2>(tile, weights, weight_scales, panels, options, out);
    case 3: return vectors_panels<3>(tile, weights, weight_scales, panels, options, out);
    case 4: return vectors_panels<4>(tile, weights, weight_scales, panels, options, out);
    default: __builtin_unreachable();
  }
}

// Codes of nibbles as they lie, q + 8; the starts undo it.
template <int Rows>
void few_panels(const RowTile& tile, const PackedWeight& weight, std::int64_t panel, int panels,
                const VectorOptions& options, std::int64_t* out) {
  for (int p = 0; p < panels; ++p, ++panel, out += kPanelChannels) {
    const std::uint8_t* codes = weight.codes + panel * weight.blocks * (kBlockCodes / 2);
    const auto block_of = [codes](std::int64_t block) { return load_nibbles(codes + block * (kBlockCodes / 2)); };
    const auto scale_of = [&weight, panel](std::int64_t vector, Channels32 sigma) {
      widen(load_scales(weight, panel * weight.vectors() + vector), sigma);
    };
    vectors<Rows, true>(tile, options, tile.starts, block_of, scale_of, out);
  }
}

void few_tile(const RowTile& tile, const PackedWeight& weight, std::int64_t panel, int panels,
              const VectorOptions& options, std::int64_t* out) {
  switch (tile.rows) {
    case 1: return few_panels<1>(tile, weight, panel, panels, options, out);
    case 2: return few_panels<2>(tile, weight, panel, panels, options, out);
    case 3: return few_panels<3>(tile, weight, panel, panels, options, out);
    case 4: return few_panels<4>(tile, weight, panel, panels, options, out);
    default: __builtin_unreachable();
  }
}

}  // namespace
