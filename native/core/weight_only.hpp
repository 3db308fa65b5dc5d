// Layers whose activations stay floating point: y = f(gamma_w * sum(x * q_w * s_w) + b + residual) in float32.
#pragma once

#include "core/conv.hpp"

namespace vsquant {

// A linear layer's rows as the pixels of a convolution.
ConvShape linear_shape(std::int64_t rows, std::int64_t channels, std::int64_t outputs);

// `x` (samples, height, width, channels) is contiguous; its dtype is that of the outputs, whose activation gammas are
// not read. `layer.weight` is the first group's, as in conv2d.
void weight_only(const ThreadPool&, const Kernels&, const LinearLayer& layer, const ConvShape&, const void* x, DType,
                 Outputs);

}  // namespace vsquant
