// Two-dimensional convolutions, channels last, without a copy of the windows: the tiles of products read the pixels of
// each kernel position where they lie, and padding points at a row of zeros.
#pragma once

#include "core/linear.hpp"

namespace vsquant {

// How a convolution walks its input.
struct Walk {
  std::int64_t kernel[2];    // R, S
  std::int64_t stride[2];
  std::int64_t padding[4];   // zeros at top, bottom, left, right
  std::int64_t dilation[2];
  std::int64_t groups;
  std::int64_t positions() const { return kernel[0] * kernel[1]; }
};

struct ConvShape {
  std::int64_t samples, height, width, channels, outputs;
  Walk walk;

  std::int64_t out_height() const { return out(0, height + walk.padding[0] + walk.padding[1]); }
  std::int64_t out_width() const { return out(1, width + walk.padding[2] + walk.padding[3]); }
  std::int64_t in_pixels() const { return height * width; }
  std::int64_t out_pixels() const { return out_height() * out_width(); }

 private:
  std::int64_t out(int axis, std::int64_t size) const {
    const std::int64_t rest = size - (walk.kernel[axis] - 1) * walk.dilation[axis] - 1;
    return rest < 0 ? 0 : rest / walk.stride[axis] + 1;
  }
};

// The pixels of a convolution's input; the weight and the outputs of one group, where those of the first are given.
ActivationShape activation_shape(const ConvShape&, const LinearLayer&);
PackedWeight weight_of_group(PackedWeight, std::int64_t group);
Outputs outputs_of_group(Outputs, std::int64_t first_channel);

// `layer.weight` is the first group's; those of other groups follow it. Activations are `samples` of height * width
// rows; coarse scales are one for every sample, or one for all.
Fault conv2d(const ThreadPool&, const Kernels&, const LinearLayer&, const ConvShape&, const FloatInput&, Outputs);
Fault conv2d(const ThreadPool&, const Kernels&, const LinearLayer&, const ConvShape&, const CodeInput&, Outputs);

}  // namespace vsquant
