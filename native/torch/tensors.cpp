#include "torch/tensors.hpp"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace vsquant::binding {
namespace {

const char* class_name(Error error) {
  switch (error) {
    case Error::spec: return "SpecError";
    case Error::shape: return "ShapeError";
    case Error::non_finite: return "NonFiniteError";
    case Error::scale_range: return "ScaleRangeError";
    case Error::backend: return "BackendError";
  }
  return "BackendError";
}

const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Double: return "float64";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    default: return "of another dtype";
  }
}

template <class T>
constexpr ScalarType type_of();
template <>
constexpr ScalarType type_of<float>() { return ScalarType::Float; }
template <>
constexpr ScalarType type_of<double>() { return ScalarType::Double; }
template <>
constexpr ScalarType type_of<std::uint8_t>() { return ScalarType::Byte; }
template <>
constexpr ScalarType type_of<std::int8_t>() { return ScalarType::Char; }
template <>
constexpr ScalarType type_of<std::int16_t>() { return ScalarType::Short; }
template <>
constexpr ScalarType type_of<std::int32_t>() { return ScalarType::Int; }

std::string shape_text(const std::int64_t* sizes, std::size_t count) {
  std::string text = "(";
  for (std::size_t i = 0; i < count; ++i)
    text += (i == 0 ? "" : ", ") + (sizes[i] < 0 ? std::string("any") : std::to_string(sizes[i]));
  return text + (count == 1 ? ",)" : ")");
}

}  // namespace

// std::invalid_argument is ValueError in Python, and every class named here derives from ValueError: where nothing
// translates (a compiled graph), `except ValueError` still holds.
void fail(Error error, const std::string& message) {
  throw std::invalid_argument(std::string(class_name(error)) + ": " + message);
}

void require_dtype(const Tensor& tensor, const char* name, ScalarType dtype) {
  if (tensor.scalar_type() != dtype)
    fail(Error::shape, std::string(name) + " must be " + dtype_name(dtype) + ", not " + dtype_name(tensor.scalar_type()));
}

void require_shape(const Tensor& tensor, const char* name, const std::int64_t* wanted, std::size_t dims) {
  const auto sizes = tensor.sizes();
  const bool equal = sizes.size() == dims &&
                     std::equal(wanted, wanted + dims, sizes.begin(),
                                [](std::int64_t size, std::int64_t given) { return size < 0 || size == given; });
  if (!equal)
    fail(Error::shape,
         std::string(name) + " must have the shape " + shape_text(wanted, dims) + ", not " + shape_text(tensor));
}

void require_contiguous(const Tensor& tensor, const char* name) {
  if (!tensor.is_contiguous())
    fail(Error::shape, std::string(name) + " must be contiguous; call .contiguous() on it first");
}

std::string shape_text(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return shape_text(sizes.data(), sizes.size());
}

DType float_dtype(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Half: return DType::float16;
    default:
      fail(Error::shape, std::string(name) + " must be float32, bfloat16 or float16, not " +
                             dtype_name(tensor.scalar_type()));
  }
}

ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::float32: return ScalarType::Float;
    case DType::bfloat16: return ScalarType::BFloat16;
    case DType::float16: return ScalarType::Half;
  }
  return ScalarType::Float;
}

template <class T>
const T* elements(const Tensor& tensor, const char* name) {
  require_dtype(tensor, name, type_of<T>());
  require_contiguous(tensor, name);
  return static_cast<const T*>(tensor.const_data_ptr());
}
template const float* elements(const Tensor&, const char*);
template const double* elements(const Tensor&, const char*);
template const std::uint8_t* elements(const Tensor&, const char*);
template const std::int8_t* elements(const Tensor&, const char*);
template const std::int16_t* elements(const Tensor&, const char*);
template const std::int32_t* elements(const Tensor&, const char*);

const void* float_elements(const Tensor& tensor, const char* name) {
  require_contiguous(tensor, name);
  return tensor.const_data_ptr();
}

Tensor contiguous(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

Tensor empty(const std::int64_t* sizes, std::size_t dims, ScalarType dtype) {
  constexpr std::size_t kMaxDims = 8;
  std::array<std::int64_t, kMaxDims> strides{};
  if (dims > kMaxDims) throw std::logic_error("a result has at most 8 dimensions");
  std::int64_t stride = 1;
  for (std::size_t i = dims; i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<std::int64_t>(sizes[i], 1);
  }
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<std::int64_t>(dims), sizes, strides.data(),
      torch::stable::detail::to<std::int32_t>(torch::stable::detail::from(dtype)), aoti_torch_device_type_cpu(), 0,
      &handle));
  return Tensor(handle);
}

Format parse_format(const std::string& text) {
  Format format;
  if (!vsquant::parse_format(text.c_str(), &format))
    fail(Error::spec, "a tensor format must read like '4-s4-v16' or '8u' to run natively, not '" + text + "'");
  return format;
}

Share parse_share(const std::string& text) {
  if (text == "group") return Share::group;
  if (text == "row") return Share::row;
  fail(Error::spec, "share must be 'group' or 'row', not '" + text + "'");
}

ScaleMode parse_scale_mode(const std::string& text) {
  if (text == "paper") return ScaleMode::paper;
  if (text == "requantize") return ScaleMode::requantize;
  fail(Error::spec, "scale_mode must be 'paper' or 'requantize', not '" + text + "'");
}

}  // namespace vsquant::binding
