// What the operators of integer layers share: their arguments checked against the formats, and their results.
#pragma once

#include <array>
#include <functional>
#include <tuple>
#include <vector>

#include "core/linear.hpp"
#include "torch/tensors.hpp"

namespace vsquant::binding {

// A tensor's sizes, up to five.
struct Shape {
  std::array<std::int64_t, 5> sizes{};
  std::size_t dims = 0;
  Shape(std::initializer_list<std::int64_t> given);
  // These sizes without the last, and then others.
  Shape lead_and(std::initializer_list<std::int64_t> last) const;
  std::int64_t samples() const { return sizes[0]; }
  std::int64_t rows() const;  // of a sample
  std::int64_t channels() const { return sizes[dims - 1]; }
};
Tensor empty(const Shape&, ScalarType);
void require_shape(const Tensor&, const char* name, const Shape&);

// ---- the layer

// WEIGHT of the operators' schemas.
struct WeightTensors {
  const Tensor& codes;
  const Tensor& scale;
  const Tensor& sums;
  const Tensor& coarse;
};

// The texts that name a layer's formats, and P.
struct FormatArguments {
  const std::string& weight;
  const std::string& activation;
  std::int64_t product_bits;
};

// A weight (outputs, channels, positions), `channels` of one group. Codes of activations tell channels only up to their
// vectors' padding: `fewest_channels` are those without it.
struct WeightShape {
  std::int64_t outputs;
  std::int64_t channels;
  std::int64_t fewest_channels;
  std::int64_t positions = 1;
  std::int64_t groups = 1;
};

// Activations that are not quantized.
inline bool stays_float(const std::string& activation_format) { return activation_format == "16"; }
// Activations without vectors, which a weight is laid out for where they stay floating point.
inline const std::string kAnyActivation = "8";
// Formats that native products have; a BackendError names what they have not.
Format weight_format(const std::string& text);
Format activation_format(const std::string& text);
// What vectors of activations are padded to: the vector size of either format in whole blocks, or a block.
int vector_elements(const Format& weight, const Format& activation);
// The vector size where it is no multiple of 16, else 0.
int spread_size(const Format& weight, const Format& activation);
// The layer of the first group; a ShapeError where tensors do not fit formats and shape.
LinearLayer layer_of(const WeightTensors&, const FormatArguments&, const WeightShape&);

// ---- activations

struct FloatArguments {
  const Tensor x;  // contiguous
  const std::optional<Tensor>& range;
  const std::string& share;
  const std::string& scale_mode;
};
FloatInput float_input(const FloatArguments&, const Format&);

struct CodeArguments {
  const Tensor codes;  // (..., vectors, V), contiguous
  const Tensor& vector_scale;
  const Tensor& coarse_scale;
};
CodeInput code_input(const CodeArguments&, const Format&, std::int64_t samples, std::int64_t rows);
// Channels of one of `parts` equal parts of codes, padding included.
std::int64_t channels_of_codes(const Tensor& codes, const Format&, std::int64_t parts);

// ---- results

// Memory for a result: `given` once it is checked, or a new tensor.
Tensor result(const std::optional<Tensor>& given, const Shape&, DType);
Tensor result(const Tensor* given, const char* name, const Shape&, ScalarType);

struct EpilogueArguments {
  const std::optional<Tensor>& bias;
  const std::optional<Tensor>& residual;
  const std::string& function;
};

// gamma_w of a weight of this format: one a channel, or none under float vector scales.
struct WeightCoarse {
  const Tensor& values;
  const std::string& format;
};

// Outputs of one shape; `residual` and what is made here are kept alive here.
struct Results {
  Results(const EpilogueArguments&, const WeightCoarse&, const Shape&);
  // Memory for y, as result() gives it.
  Tensor y(const std::optional<Tensor>& given, DType);
  // The same for memory that is checked already.
  void write_to(Tensor* y, DType);

  Shape shape;
  Outputs outputs{};
  std::optional<Tensor> residual;
  std::vector<float> ones;  // for weights without gamma
};

using RunLayer = std::function<Fault(const Outputs&)>;
using Quantized = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct RequantizeArguments {
  const Tensor& range;
  const std::string& format;
  const std::string& scale_mode;
  bool keep_float;
};
// Codes, vector scales, gamma and floats of a layer that `run` computes into the outputs it is given; into `out` where
// there is such memory.
Quantized requantized(const RequantizeArguments&, Results&, std::int64_t groups, const RunLayer& run,
                      const Quantized* out);

// Raises what was wrong with a tensor that was to be quantized.
void require_none(Fault, const Quantizer&, Share, const FloatTensor&, const Ranges&);

}  // namespace vsquant::binding
