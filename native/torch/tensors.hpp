// Tensors at the border: what an operator asks of its arguments, how it allocates its results, and how it fails.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "core/format.hpp"

namespace vsquant::binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The classes of vsquant.errors that native operators raise. The message carries the class's name in front, and
// kernels/native.py turns it back into that class.
enum class Error { spec, shape, non_finite, scale_range, backend };
[[noreturn]] void fail(Error error, const std::string& message);

// Each check raises a ShapeError that names the argument. In a shape, -1 stands for any size.
void require_dtype(const Tensor& tensor, const char* name, ScalarType dtype);
void require_shape(const Tensor& tensor, const char* name, const std::int64_t* sizes, std::size_t dims);
inline void require_shape(const Tensor& tensor, const char* name, std::initializer_list<std::int64_t> shape) {
  require_shape(tensor, name, shape.begin(), shape.size());
}
void require_contiguous(const Tensor& tensor, const char* name);
std::string shape_text(const Tensor& tensor);

// float32, bfloat16 or float16; anything else is a ShapeError.
DType float_dtype(const Tensor& tensor, const char* name);
ScalarType scalar_type(DType dtype);

// The elements of a contiguous tensor of this dtype, after both are checked.
template <class T>
const T* elements(const Tensor& tensor, const char* name);
// Those of an optional tensor: null where there is none, or where it has no elements.
template <class T>
const T* optional_elements(const std::optional<Tensor>& tensor, const char* name) {
  return tensor.has_value() && tensor->numel() > 0 ? elements<T>(*tensor, name) : nullptr;
}
// The bytes of a contiguous tensor whose dtype float_dtype() has told.
const void* float_elements(const Tensor& tensor, const char* name);

// The same tensor, or a contiguous copy.
Tensor contiguous(const Tensor& tensor);
// A contiguous CPU tensor, its elements not set.
Tensor empty(const std::int64_t* sizes, std::size_t dims, ScalarType dtype);
inline Tensor empty(std::initializer_list<std::int64_t> shape, ScalarType dtype) {
  return empty(shape.begin(), shape.size(), dtype);
}
// Stands for "none" in a result: shape (0,).
inline Tensor none(ScalarType dtype = ScalarType::Float) { return empty({0}, dtype); }

// The texts of an operator's arguments; a SpecError where they cannot be read.
Format parse_format(const std::string& text);
Share parse_share(const std::string& text);
ScaleMode parse_scale_mode(const std::string& text);

}  // namespace vsquant::binding
