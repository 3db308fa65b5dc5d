// Linear layers whose activations stay floating point: y = f(gamma_w * sum(x * q_w * sigma_w) + b + residual) in float32.
#pragma once

#include "core/multiply.hpp"

namespace vsquant {

// `x` has contiguous rows; its dtype is that of the outputs, whose activation gammas are not read.
void weight_only_linear(const ThreadPool&, const Kernels&, const PackedWeight&, const FloatRows& x, Outputs);

}  // namespace vsquant
