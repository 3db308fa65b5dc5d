// AVX-512 with VNNI: one instruction multiplies and adds 64 codes.
#include <immintrin.h>

#include "core/isa/quantize_lanes.inl"
#include "core/isa/quantize_vectors.inl"
#include "core/isa/quantize_halves.inl"
#include "core/isa/quantize.inl"
#include "core/kernels.hpp"

namespace vsquant {

#include "core/isa/products_avx512_vnni.inl"
#include "core/isa/products_avx512_vnni_folded.inl"
#include "core/isa/products_avx512_vnni_vectors.inl"
#include "core/isa/products_avx512_vnni_few.inl"
#include "core/isa/depthwise.inl"
#include "core/isa/epilogue.inl"
#include "core/isa/float_products.inl"
#include "core/isa/scaled.inl"
#include "core/isa/scale_search.inl"

namespace {

constexpr Kernels table() {
  Kernels kernels{};
  kernels.name = "avx512_vnni";
  kernels.folded_rows = kFoldedRows;
  kernels.vector_rows = kVectorRows;
  kernels.tile_panels = kPanels;
  kernels.few_rows = kFewRows;
  kernels.has_folded = true;
  kernels.word_partial_limit = 1 << 15;
  kernels.unpack_codes = unpack_codes;
  kernels.unpack_scales = unpack_scales;
  kernels.folded_tile = folded_tile;
  kernels.folded_bias = 128;
  kernels.folded_few_rows = kFoldedFewRows;
  kernels.folded_few_tile = folded_few_tile;
  kernels.vector_tile = vector_tile;
  kernels.vector_bias = 128;
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

const Kernels* avx512_vnni_kernels() {
  static constexpr Kernels kernels = table();
  return &kernels;
}

}  // namespace vsquant
