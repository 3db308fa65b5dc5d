#include "core/stem.hpp"

#include <cstring>

namespace vsquant {
namespace {

constexpr std::int64_t kGroupBytes = kPanelChannels * 4;  // of four elements of a panel
constexpr std::int64_t kMostChannels = 8;

struct StemMemory {
  Scratch unpacked, weights, image;
};

StemMemory& stem_memory() {
  static thread_local StemMemory memory;
  return memory;
}

std::int64_t bytes_of_pixel(const ConvShape& shape) { return shape.channels <= 4 ? 4 : 8; }

std::int64_t blocks_of_row(const ConvShape& shape) {
  return (shape.walk.kernel[1] * bytes_of_pixel(shape) + kBlockElements - 1) / kBlockElements;
}

// The weight with its scales folded, R positions of S pixels each.
PackedWeight dense_weight(const Multiplication& m, const ConvShape& shape, StemMemory& memory) {
  const PackedWeight& given = m.weight;
  const std::int64_t row_bytes = blocks_of_row(shape) * kBlockCodes, position_bytes = given.blocks / shape.walk.positions() * kBlockCodes;
  const std::int64_t used = bytes_of_pixel(shape) / 4 * kGroupBytes, panel_bytes = shape.walk.kernel[0] * row_bytes;
  auto* unpacked = memory.unpacked.get<std::int8_t>(given.blocks * kBlockCodes);
  auto* dense = memory.weights.get<std::uint8_t>(given.panels() * panel_bytes);
  std::memset(dense, 0, given.panels() * panel_bytes);
  const Unpacked form = given.scale_layout == ScaleLayout::none ? Unpacked::codes : Unpacked::folded;
  for (std::int64_t panel = 0; panel < given.panels(); ++panel) {
    m.kernels->unpack_codes(given, panel, 0, given.blocks, form, unpacked);
    for (std::int64_t r = 0; r < shape.walk.kernel[0]; ++r)
      for (std::int64_t s = 0; s < shape.walk.kernel[1]; ++s)
        std::memcpy(dense + panel * panel_bytes + r * row_bytes + s * used,
                    unpacked + (r * shape.walk.kernel[1] + s) * position_bytes, used);
  }
  PackedWeight result = given;
  result.codes = dense;
  result.scales = nullptr;
  result.code_layout = CodeLayout::bytes;
  result.scale_layout = ScaleLayout::none;
  result.blocks_per_vector = 1;
  result.blocks = shape.walk.kernel[0] * blocks_of_row(shape);
  return result;
}

// Pixels of a line, each in a word of 4 or 8 bytes whose codes are exclusive-or `zero`. Words are put together in
// registers: bytes stored one by one and read as a word would wait for each other.
template <int Channels, class Word>
void widen(const std::uint8_t* from, std::int64_t step, std::int64_t pixels, std::uint8_t zero, std::uint8_t* to) {
  const Word sign = static_cast<Word>(~Word{0} / 255 * zero);
  for (std::int64_t x = 0; x < pixels; ++x) {
    Word pixel = sign;
    for (int c = 0; c < Channels; ++c) pixel ^= static_cast<Word>(from[x * step + c]) << 8 * c;
    std::memcpy(to + x * sizeof pixel, &pixel, sizeof pixel);
  }
}

void widen(std::int64_t channels, const std::uint8_t* from, std::int64_t step, std::int64_t pixels, std::uint8_t zero,
           std::uint8_t* to) {
  switch (channels) {
    case 1: return widen<1, std::uint32_t>(from, step, pixels, zero, to);
    case 2: return widen<2, std::uint32_t>(from, step, pixels, zero, to);
    case 3: return widen<3, std::uint32_t>(from, step, pixels, zero, to);
    case 4: return widen<4, std::uint32_t>(from, step, pixels, zero, to);
    case 5: return widen<5, std::uint64_t>(from, step, pixels, zero, to);
    case 6: return widen<6, std::uint64_t>(from, step, pixels, zero, to);
    case 7: return widen<7, std::uint64_t>(from, step, pixels, zero, to);
    case 8: return widen<8, std::uint64_t>(from, step, pixels, zero, to);
  }
}

// The image with its padding, every pixel 4 or 8 bytes; output row n reads R runs of it.
class Strips final : public RowSource {
 public:
  // `zero` is the byte of a code 0.
  Strips(const ThreadPool& pool, const ConvShape& shape, const Image& image, std::uint8_t zero, StemMemory& memory)
      : walk_(shape.walk), pixel_(bytes_of_pixel(shape)), out_width_(shape.out_width()), out_pixels_(shape.out_pixels()) {
    const std::int64_t height = shape.height + walk_.padding[0] + walk_.padding[1];
    row_ = (shape.width + walk_.padding[2] + walk_.padding[3]) * pixel_;
    sample_ = height * row_;
    // The last window's whole blocks may end behind the image.
    const std::int64_t bytes = shape.samples * sample_ + kBlockElements;
    auto* strips = memory.image.get<std::uint8_t>(bytes);
    std::memset(strips, zero, bytes);
    for_each_chunk(pool, shape.samples * shape.height, [&](std::int64_t y) {
      const std::int64_t sample = y / shape.height, row = y % shape.height + walk_.padding[0];
      std::uint8_t* line = strips + sample * sample_ + row * row_ + walk_.padding[2] * pixel_;
      widen(shape.channels, image.codes + y * image.row_bytes, image.pixel_bytes, shape.width, zero, line);
    });
    strips_ = strips;
  }

  void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t**,
             const std::int16_t**) const override {
    std::int64_t sample = first_row / out_pixels_, x = first_row % out_width_;
    std::int64_t y = first_row % out_pixels_ / out_width_;
    for (int row = 0; row < rows; ++row) {
      const std::uint8_t* corner =
          strips_ + sample * sample_ + y * walk_.stride[0] * row_ + x * walk_.stride[1] * pixel_;
      for (std::int64_t r = 0; r < walk_.kernel[0]; ++r) codes[r * rows + row] = corner + r * walk_.dilation[0] * row_;
      if (++x < out_width_) continue;
      x = 0;
      if (++y < out_pixels_ / out_width_) continue;
      y = 0;
      ++sample;
    }
  }

 private:
  const Walk& walk_;
  std::int64_t pixel_, out_width_, out_pixels_, row_, sample_;
  const std::uint8_t* strips_;
};

}  // namespace

bool suits_stem(const Multiplication& m, const ConvShape& shape) {
  return shape.channels > 0 && shape.channels <= kMostChannels && shape.walk.groups == 1 &&
         shape.walk.dilation[1] == 1 && shape.walk.positions() > 1 && m.plan.path == ProductPath::folded && !m.runs_few();
}

Fault stem_conv2d(const ThreadPool& pool, const Multiplication& m, const ConvShape& shape, const Image& image,
                  const Outputs& outputs) {
  Multiplication dense = m;
  dense.weight = dense_weight(m, shape, stem_memory());
  dense.positions = static_cast<int>(shape.walk.kernel[0]);
  dense.blocks_per_position = blocks_of_row(shape);
  dense.plan.few = false;
  return multiply(pool, dense, Strips(pool, shape, image, m.biased ? 128 : 0, stem_memory()), outputs);
}

}  // namespace vsquant
