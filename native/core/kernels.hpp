// The table of functions that one instruction set implements.
#pragma once

#include <cstdint>

#include "core/epilogue.hpp"
#include "core/float_kernels.hpp"
#include "core/products.hpp"
#include "core/quantize_kernels.hpp"
#include "core/scale_search.hpp"

namespace vsquant {

// How a weight panel is laid out for a tile. Codes lie as [blocks][4 groups][16 channels][4 elements], scales as
// [vectors][16 channels]. Paired (V = 16) codes lie as [pairs of blocks][8 groups][16 channels][2 elements of the first
// block, 2 of the second], scales as [pairs of vectors][16 channels][2]; a missing second block may hold anything.
enum class Unpacked : std::uint8_t {
  codes,          // q
  folded,         // q * sigma, |q * sigma| <= 127
  biased,         // q + Kernels::vector_bias, unsigned
  paired_codes,   // q, paired
  paired_biased,  // q + Kernels::vector_bias, paired
};
// What a panel's blocks, or vectors, take once unpacked: the last pair is a whole one.
constexpr std::int64_t unpacked_room(std::int64_t blocks) { return blocks + blocks % 2; }

// How a vector tile settles one vector: S += p * partial.
struct VectorOptions {
  bool partial_is_word;     // |partial| < 2^15 and p < 2^15, so that one multiply-add of 16-bit pairs does it
  bool round_product;       // p = rounded by eq. (8)
  ProductRounding rounding;
  int blocks_per_vector;    // V / 16
  std::int64_t drain;       // vectors after which an int32 accumulator is emptied into int64;
                            // 0: one vector's product may pass int32 already (Kernels::has_wide_vectors)
  std::int64_t element_limit;  // largest |a * w| of one element
  Unpacked form;               // of the weights, as Kernels::vector_form says
};

struct Kernels {
  const char* name;

  // ---- integer products. Accumulators of a tile lie as [row][tile_panels * 16].
  int folded_rows;          // most rows of folded_tile
  int vector_rows;          // most rows of vector_tile
  int tile_panels;          // most panels of a tile
  int few_rows;             // most rows of few_tile; 0: there is none
  bool has_folded;          // whether folded_tile exists (int8 x int8 dot products without saturation)
  int word_partial_limit;   // a vector tile may be asked for partial_is_word while |partial| stays below this

  // Blocks [first, first + count) of one panel as int8; `first` even.
  void (*unpack_codes)(const PackedWeight&, std::int64_t panel, std::int64_t first, std::int64_t count, Unpacked,
                       std::int8_t* out);
  // Vector scales of one panel, sigma as int16.
  void (*unpack_scales)(const PackedWeight&, std::int64_t panel, Unpacked, std::int16_t* out);

  // out[row][panel*16 + channel] = sum over all elements of a * w for codes of a and (folded) codes of w. Where the
  // codes of a are signed, `weights` of panel p still are plain: the tile adds 128 to a and the caller subtracts
  // 128 * sum(w), which is `folded_bias` * sums.
  void (*folded_tile)(const RowTile&, const std::int8_t* const* weights, int panels, std::int32_t* out);
  int folded_bias;          // 128 where folded_tile leaves the bias of signed codes to its caller, else 0

  // As folded_tile for panels of nibbles whose scales, if any, are nibbles too, read without unpacking; codes are
  // unsigned or biased by 128 already.
  int folded_few_rows;      // most rows of folded_few_tile; 0: there is none
  void (*folded_few_tile)(const RowTile&, const PackedWeight&, std::int64_t panel, int panels, std::int32_t* out);

  // out = sum over vectors of p * (sum over a vector of a * w), exact int64. `weight_scales` may be null (sigma_w = 1).
  // Signed codes: partial sums start from RowTile::starts = -vector_bias * (sum of the vector's codes).
  void (*vector_tile)(const RowTile&, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                      int panels, const VectorOptions&, std::int64_t* out);
  int vector_bias;
  bool has_wide_vectors;
  // The form in which vector_tile wants weights of at most |w| = `weight_magnitude`; `options` lack only it.
  Unpacked (*vector_form)(const VectorOptions& options, int weight_magnitude, bool codes_signed);

  // As vector_tile for panels of nibbles, V = 16, signed codes, partial_is_word, read without unpacking; starts are
  // -8 * (sum of the vector's codes).
  void (*few_tile)(const RowTile&, const PackedWeight&, std::int64_t panel, int panels, const VectorOptions&,
                   std::int64_t* out);

  // Whether tiles read plain int8 codes (CodeLayout::bytes) where they lie, so that they need no unpacking.
  bool reads_bytes_in_place;

  // Sums [row][Channels::kMost] of `count` channels (a multiple of 16) from `first` on, of up to 4 rows whose codes and
  // weights [position][stride] lie channel by channel; codes are plain.
  void (*depthwise_tile)(const RowTile&, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
                         std::int32_t* out);

  // out[row * stride + channel] = fl(S) of one panel of int8 codes under float scales (core/scaled.hpp), `scales`
  // [vectors][16] or null.
  int scaled_rows;          // most rows of scaled_tile
  void (*scaled_tile)(const RowTile&, const std::int8_t* weights, const float* scales, int blocks_per_vector, float* out,
                      std::int64_t stride);

  FloatKernels floats;

  EpilogueKernels epilogue;
  QuantizeKernels quantize;
  SearchVector search_vector;
};

// What is compiled in; null where an instruction set was not built. Dispatch asks the processor first.
const Kernels* scalar_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_vnni_kernels();
const Kernels* neon_dotprod_kernels();

}  // namespace vsquant
