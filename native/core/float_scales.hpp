// Vector scales as float32, whatever a weight keeps them as.
#pragma once

#include "core/kernels.hpp"
#include "core/scratch.hpp"

namespace vsquant {

// Whether a weight has vector scales at all, integers or floats.
inline bool has_scales(const PackedWeight& weight) {
  return weight.float_scales != nullptr || weight.scale_layout != ScaleLayout::none;
}

// The scales of panels [first, first + panels), which has_scales(): out[panel][vectors][16]. `words` is room for one.
void float_scales(const Kernels&, const PackedWeight&, std::int64_t first, int panels, Scratch& words, float* out);

}  // namespace vsquant
