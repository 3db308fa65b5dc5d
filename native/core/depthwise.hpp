// Depthwise convolutions, channels last: every output channel reads one input channel.
#pragma once

#include "core/conv.hpp"

namespace vsquant {

struct DepthwiseLayer {
  Format activation_format;     // without vectors
  const std::int8_t* weights;   // [R*S][stride]
  std::int64_t stride;          // output channels padded to whole blocks with zeros
  std::int64_t multiplier;      // output channels that read the same input channel
};

Fault depthwise_conv2d(const ThreadPool&, const Kernels&, const DepthwiseLayer&, const ConvShape&, const FloatInput&,
                       Outputs);
Fault depthwise_conv2d(const ThreadPool&, const Kernels&, const DepthwiseLayer&, const ConvShape&, const CodeInput&,
                       Outputs);

// With activations that stay floating point, as weight_only() has them.
void depthwise_weight_only(const ThreadPool&, const Kernels&, const DepthwiseLayer&, const ConvShape&, const void* x,
                           DType, Outputs);

}  // namespace vsquant
