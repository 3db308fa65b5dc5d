// Plain C++ on any processor: what every other instruction set must equal.
#include "core/kernels.hpp"

namespace vsquant {

#include "core/isa/products_scalar.inl"
#include "core/isa/depthwise.inl"
#include "core/isa/epilogue.inl"
#include "core/isa/float_products.inl"
#include "core/isa/scaled.inl"
#include "core/isa/scale_search.inl"

namespace {

Kernels table() {
  Kernels kernels{};
  kernels.name = "scalar";
  kernels.folded_rows = 4;
  kernels.vector_rows = 4;
  kernels.tile_panels = 1;
  kernels.has_folded = true;
  kernels.word_partial_limit = 1 << 15;
  kernels.unpack_codes = unpack_codes;
  kernels.unpack_scales = unpack_scales;
  kernels.folded_tile = folded_tile;
  kernels.vector_tile = vector_tile;
  kernels.has_wide_vectors = true;
  kernels.vector_form = vector_form;
  kernels.reads_bytes_in_place = true;
  kernels.depthwise_tile = depthwise::tile;
  kernels.scaled_rows = scaled::kMostRows;
  kernels.scaled_tile = scaled::tile;
  kernels.floats = floats::table;
  kernels.epilogue = epilogue_kernels;
  kernels.quantize = scalar_quantize;
  kernels.search_vector = searching::search_vector;
  return kernels;
}

}  // namespace

const Kernels* scalar_kernels() {
  static const Kernels kernels = table();
  return &kernels;
}

}  // namespace vsquant
