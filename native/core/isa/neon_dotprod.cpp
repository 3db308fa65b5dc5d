// 64-bit Arm with the dot product instructions: sdot adds four products of signed bytes to a 32-bit lane.
#include <arm_neon.h>

#include "core/isa/quantize_lanes.inl"
#include "core/isa/quantize_vectors.inl"
#include "core/isa/quantize_halves.inl"
#include "core/isa/quantize.inl"
#include "core/kernels.hpp"

namespace vsquant {

#include "core/isa/products_neon_dotprod.inl"
#include "core/isa/depthwise.inl"
#include "core/isa/epilogue.inl"
#include "core/isa/float_products.inl"
#include "core/isa/scaled.inl"
#include "core/isa/scale_search.inl"

namespace {

constexpr Kernels table() {
  Kernels kernels{};
  kernels.name = "neon_dotprod";
  kernels.folded_rows = kRows;
  kernels.vector_rows = kRows;
  kernels.tile_panels = kPanels;
  kernels.few_rows = kRows;
  kernels.has_folded = true;
  kernels.word_partial_limit = 1 << 30;
  kernels.unpack_codes = unpack_codes;
  kernels.unpack_scales = unpack_scales;
  kernels.folded_tile = folded_tile;
  kernels.vector_tile = vector_tile;
  kernels.has_wide_vectors = true;
  kernels.vector_form = vector_form;
  kernels.few_tile = few_tile;
  kernels.reads_bytes_in_place = true;
  kernels.depthwise_tile = depthwise::tile;
  kernels.scaled_rows = scaled::kMostRows;
  kernels.scaled_tile = scaled::tile;
  kernels.floats = floats::table;
  kernels.epilogue = epilogue_kernels;
  kernels.quantize = quantization::table;
  kernels.search_vector = searching::search_vector;
  return kernels;
}

}  // namespace

const Kernels* neon_dotprod_kernels() {
  static constexpr Kernels kernels = table();
  return &kernels;
}

}  // namespace vsquant
