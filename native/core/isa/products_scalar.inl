// Products as the definition says them: every instruction set's tiles must give these numbers. Included by scalar.cpp.

namespace {

int biased_nibble(const std::uint8_t* block, int channel, int element) {
  const int half = element / 8, within = element % 8;
  const std::uint8_t byte = block[half * 64 + channel * 4 + within % 4];
  return within < 4 ? byte & 15 : byte >> 4;
}

int code_of(const PackedWeight& weight, std::int64_t panel, std::int64_t block, int channel, int element) {
  const bool nibbles = weight.code_layout == CodeLayout::nibbles;
  const std::uint8_t* at = weight.codes + (panel * weight.blocks + block) * (nibbles ? kBlockCodes / 2 : kBlockCodes);
  if (nibbles) return biased_nibble(at, channel, element) - 8;
  return static_cast<std::int8_t>(at[element / 4 * 64 + channel * 4 + element % 4]);
}

int scale_of(const PackedWeight& weight, std::int64_t panel, std::int64_t vector, int channel) {
  const std::int64_t at = panel * weight.vectors() + vector;
  const std::uint8_t* scales = weight.scales;
  switch (weight.scale_layout) {
    case ScaleLayout::none:
      return 1;
    case ScaleLayout::nibbles:
      return weight.scale_offset + (scales[at * 8 + channel % 8] >> (channel / 8 * 4) & 15);
    case ScaleLayout::bytes:
      return weight.scale_offset + scales[at * 16 + channel];
    case ScaleLayout::words:
      return weight.scale_offset + scales[(at * 16 + channel) * 2] + 256 * scales[(at * 16 + channel) * 2 + 1];
  }
  return 1;
}

void unpack_codes(const PackedWeight& weight, std::int64_t panel, std::int64_t first, std::int64_t count,
                  Unpacked form, std::int8_t* out) {
  for (std::int64_t block = first; block < first + count; ++block) {
    for (int element = 0; element < kBlockElements; ++element) {
      for (int channel = 0; channel < kPanelChannels; ++channel) {
        int value = code_of(weight, panel, block, channel, element);
        if (form == Unpacked::folded) value *= scale_of(weight, panel, block / weight.blocks_per_vector, channel);
        out[(block - first) * kBlockCodes + element / 4 * 64 + channel * 4 + element % 4] =
            static_cast<std::int8_t>(value);
      }
    }
  }
}

void unpack_scales(const PackedWeight& weight, std::int64_t panel, Unpacked, std::int16_t* out) {
  for (std::int64_t vector = 0; vector < weight.vectors(); ++vector)
    for (int channel = 0; channel < kPanelChannels; ++channel)
      out[vector * kPanelChannels + channel] = static_cast<std::int16_t>(scale_of(weight, panel, vector, channel));
}

int activation(const RowTile& tile, int row, int position, std::int64_t element) {
  const std::uint8_t code = tile.codes[position * tile.rows + row][element];
  return tile.codes_signed ? static_cast<std::int8_t>(code) : code;
}

// Dot product of one row and one channel over `count` blocks of one position.
std::int64_t dot(const RowTile& tile, int row, int position, std::int64_t first, std::int64_t count,
                 const std::int8_t* weights, int channel) {
  std::int64_t sum = 0;
  for (std::int64_t element = first * kBlockElements; element < (first + count) * kBlockElements; ++element)
    sum += activation(tile, row, position, element) * weights[element / 4 * 64 + channel * 4 + element % 4];
  return sum;
}

void folded_tile(const RowTile& tile, const std::int8_t* const* weights, int panels, std::int32_t* out) {
  for (int row = 0; row < tile.rows; ++row) {
    for (int column = 0; column < panels * kPanelChannels; ++column) {
      std::int64_t sum = 0;
      for (int position = 0; position < tile.positions; ++position)
        sum += dot(tile, row, position, 0, tile.blocks_per_position,
                   weights[column / 16] + position * tile.blocks_per_position * kBlockCodes, column % 16);
      out[row * kPanelChannels + column] = static_cast<std::int32_t>(sum);
    }
  }
}

Unpacked vector_form(const VectorOptions&, int, bool) { return Unpacked::codes; }

std::int64_t product_of(const VectorOptions& options, std::int64_t weight_scale, std::int64_t activation_scale) {
  const std::int64_t exact = weight_scale * activation_scale;
  if (!options.round_product) return exact;
  const std::int64_t half = options.rounding.shift > 0 ? std::int64_t{1} << (options.rounding.shift - 1) : 0;
  const std::int64_t rounded = (exact + half) >> options.rounding.shift;
  return rounded < options.rounding.limit ? rounded : options.rounding.limit;
}

void vector_tile(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                 int panels, const VectorOptions& options, std::int64_t* out) {
  const std::int64_t per_position = tile.blocks_per_position / options.blocks_per_vector;
  for (int row = 0; row < tile.rows; ++row) {
    for (int column = 0; column < panels * kPanelChannels; ++column) {
      const int panel = column / kPanelChannels, channel = column % kPanelChannels;
      std::int64_t sum = 0;
      for (int position = 0; position < tile.positions; ++position) {
        const std::int8_t* codes = weights[panel] + position * tile.blocks_per_position * kBlockCodes;
        for (std::int64_t vector = 0; vector < per_position; ++vector) {
          const std::int64_t at = (position * per_position + vector) * kPanelChannels + channel;
          const std::int64_t weight_scale = weight_scales ? weight_scales[panel][at] : 1;
          const std::int64_t activation_scale = tile.scales ? tile.scales[position * tile.rows + row][vector] : 1;
          sum += product_of(options, weight_scale, activation_scale) *
                 dot(tile, row, position, vector * options.blocks_per_vector, options.blocks_per_vector, codes, channel);
        }
      }
      out[row * kPanelChannels + column] = sum;
    }
  }
}

}  // namespace
