// Integer products of activation rows and weight panels: what each instruction set implements, in one table.
//
// A panel holds 16 output channels; a block is 16 elements along the reduction of those 16 channels. The bytes of a
// block are ordered [group of 4 elements][channel][4 elements], so that one 64-byte register holds 4 elements of 16
// channels and one 32-bit lane belongs to one channel.
#pragma once

#include <cstdint>

namespace vsquant {

constexpr int kPanelChannels = 16;
constexpr int kBlockElements = 16;
constexpr int kBlockCodes = kPanelChannels * kBlockElements;

// How weights lie in memory (docs/design/packed-layouts.md, "interleaved layout").
//   nibbles: 128 bytes a block; byte [h*64 + channel*4 + i] holds code q+8 of element 8h+i in its low four bits and of
//            element 8h+4+i in its high four (h = 0, 1; i = 0..3).
//   bytes:   256 bytes a block; byte [g*64 + channel*4 + i] holds int8 code q of element 4g+i (g = 0..3).
enum class CodeLayout : std::uint8_t { nibbles, bytes };
// Vector scales (sigma, or sigma - 1 under -top) of a panel's 16 channels at one vector:
//   nibbles: 8 bytes; byte c (c = 0..7) holds channel c in its low four bits and channel c + 8 in its high four.
//   bytes:   16 bytes.      words: 16 little-endian uint16.      none: the weight has no vector scales.
enum class ScaleLayout : std::uint8_t { none, nibbles, bytes, words };

struct PackedWeight {
  const std::uint8_t* codes;   // [panels][blocks][128 or 256], 64-byte aligned
  const std::uint8_t* scales;  // [panels][vectors][8, 16 or 32], or null
  const std::int32_t* sums;    // [channels]: sum over all elements of q * sigma, modulo 2^32
  CodeLayout code_layout;
  ScaleLayout scale_layout;
  int scale_offset;                // 1 under -top, else 0
  int blocks_per_vector;           // V / 16
  std::int64_t channels;           // K
  std::int64_t blocks;             // kernel positions * blocks of one position
  const void* float_scales = nullptr;  // [panels][vectors][16] float32, or float16; then scale_layout is none
  bool half_scales = false;
  std::int64_t panels() const { return (channels + kPanelChannels - 1) / kPanelChannels; }
  std::int64_t vectors() const { return blocks / blocks_per_vector; }
};

// The rows of activations one tile reads, kernel position by kernel position: 1 for a linear layer, R*S for a
// convolution. Entry [position * rows + row]. Codes are the plain integers q, one a byte; padding points at zeros.
struct RowTile {
  const std::uint8_t* const* codes;   // -> blocks_per_position * 16 codes, int8 or uint8
  // -> for every vector what its partial sum starts from, minus the bias of the weights times the sum of its codes:
  // vector tiles with signed codes bias the weights by Kernels::vector_bias, few_tile by 8. Null for unsigned codes.
  // For scaled_tile the bits of every vector's float scale, or null.
  const std::int32_t* const* starts;
  const std::int16_t* const* scales;  // -> for every vector its activation scale, or null
  int rows;
  int positions;
  std::int64_t blocks_per_position;
  bool codes_signed;
};

// sigma_w * sigma_a rounded to P bits by eq. (8): min((p + half) >> shift, limit); shift 0 and limit 2^31-1 keep p.
struct ProductRounding {
  int shift = 0;
  std::int32_t limit = 0x7fffffff;
};

}  // namespace vsquant
