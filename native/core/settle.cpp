#include "core/settle.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

namespace vsquant {
namespace {

std::int64_t bytes_of(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

template <int Write>
void fetch(const void* data, DType dtype, std::int64_t first, std::int64_t count) {
  const auto* bytes = static_cast<const char*>(data) + first * bytes_of(dtype);
  for (std::int64_t byte = 0; byte < count * bytes_of(dtype); byte += 64) __builtin_prefetch(bytes + byte, Write);
}

CodeRule code_rule(const Format& format, float step) {
  const float divisor = step > 0 ? step : std::numeric_limits<float>::infinity();
  return {divisor, reciprocal_of(divisor), static_cast<float>(format.qmin()), static_cast<float>(format.qmax())};
}

}  // namespace

// Let r = fl(1/s), q = fl(x r) and c = fl(q + fl(x - q s) r): before its last rounding, c is x/s within a share 2^-46.
// Its code can differ from that of fl(x/s) only where a bound of rounding to some k + 1/2, k < 256, lies between the
// two: a number M 2^e of 25 bits with M = 1 or -1 modulo 2^15. Then X 2^n - M S, where X and S are the 24-bit integers
// of x and s and n > 15, is not 0, at most 8 in size, and S or -S modulo 2^15.
float reciprocal_of(float divisor) {
  std::uint32_t bits;
  std::memcpy(&bits, &divisor, sizeof bits);
  const std::uint32_t rest = bits & 0x7fff;
  const bool decides = rest == 0 || (rest > 8 && rest < 0x8000 - 8);
  return decides && divisor > 0x1p-90f && divisor < 0x1p90f ? 1.0f / divisor : 0.0f;
}

Settler::Settler(const Kernels& kernels, const Outputs& outputs, const SettledChannels& channels, float power,
                 std::int64_t sum_stride)
    : kernels_(kernels),
      out_(outputs),
      first_(channels.first),
      width_(std::min<std::int64_t>(channels.count, channels.channels - channels.first)),
      sum_stride_(sum_stride) {
  settling_.power = power;
  settling_.function = outputs.function;
  settling_.count = channels.count;
  const bool whole = width_ == channels.count;
  direct_ = outputs.y != nullptr && outputs.dtype == DType::float32 && whole && outputs.requantizer == nullptr;
  if (outputs.requantizer != nullptr) {
    const int size = outputs.requantizer->format.vector_size;
    whole_vectors_ = whole && (size == 0 || channels.count % size == 0);
    direct_codes_ = whole && size == 0 && outputs.dtype == DType::float32 && outputs.residual_dtype == DType::float32;
    rule_ = code_rule(outputs.requantizer->format, outputs.requantized_coarse);
  }
  std::copy_n(outputs.weight_coarse + first_, width_, channels_.coarse);
  channels_.has_bias = outputs.bias != nullptr;
  if (channels_.has_bias) std::copy_n(outputs.bias + first_, width_, channels_.bias);
  for (std::int64_t c = 0; channels.sums != nullptr && c < width_; ++c)
    channels_.correction[c] = static_cast<std::int32_t>(static_cast<std::uint32_t>(channels.bias) *
                                                        static_cast<std::uint32_t>(channels.sums[first_ + c]));
}

void Settler::foresee(std::int64_t first_row, int rows) const {
  for (std::int64_t row = first_row; row < first_row + rows; ++row) {
    const std::int64_t at = row * out_.stride + first_;
    if (out_.residual != nullptr) fetch<0>(out_.residual, out_.residual_dtype, at, width_);
    if (out_.y != nullptr) fetch<1>(out_.y, out_.dtype, at, width_);
  }
}

Fault Settler::operator()(std::int64_t first_row, int rows, const std::int32_t* sums) {
  return settle(first_row, rows, sums);
}
Fault Settler::operator()(std::int64_t first_row, int rows, const std::int64_t* sums) {
  return settle(first_row, rows, sums);
}

Fault Settler::operator()(std::int64_t first_row, int rows, const float* sums) {
  return settle(first_row, rows, sums);
}

template <class Sum>
Fault Settler::settle(std::int64_t first_row, int rows, const Sum* sums) {
  if constexpr (std::is_same_v<Sum, std::int32_t>)
    if (direct_codes_ && settle_codes(first_row, rows, sums)) return Fault::none;
  for (int r = 0; r < rows; ++r) {
    const std::int64_t row = first_row + r, at = row * out_.stride + first_;
    settling_.activation_coarse = out_.activation_coarse[row / out_.rows_per_coarse];
    settling_.residual = out_.residual == nullptr ? nullptr : residual(at);
    float* y = direct_ ? static_cast<float*>(out_.y) + at : rows_ + r * settling_.count;
    if constexpr (std::is_same_v<Sum, float>)
      kernels_.epilogue.settle_floats(channels_, settling_, sums + r * sum_stride_, y);
    else if constexpr (sizeof(Sum) == 4)
      kernels_.epilogue.settle32(channels_, settling_, sums + r * sum_stride_, y);
    else
      kernels_.epilogue.settle64(channels_, settling_, sums + r * sum_stride_, y);
    if (out_.y != nullptr && !direct_) store(at, y);
  }
  return out_.requantizer == nullptr ? Fault::none : requantize(first_row, rows);
}

// Straight from sums to codes; false where that cannot be, and then nothing is settled yet.
bool Settler::settle_codes(std::int64_t first_row, int rows, const std::int32_t* sums) {
  const std::int64_t coarse = first_row / out_.rows_per_coarse, at = first_row * out_.stride + first_;
  if ((first_row + rows - 1) / out_.rows_per_coarse != coarse) return false;
  settling_.activation_coarse = out_.activation_coarse[coarse];
  settling_.residual = out_.residual == nullptr ? nullptr : static_cast<const float*>(out_.residual) + at;
  float* y = out_.y == nullptr ? nullptr : static_cast<float*>(out_.y) + at;
  return kernels_.epilogue.settle_codes(channels_, settling_, rule_,
                                        {rows, sums, sum_stride_, out_.stride, y,
                                         out_.codes.codes + first_row * out_.codes.padded + first_, out_.codes.padded});
}

const float* Settler::residual(std::int64_t at) {
  const DType dtype = out_.residual_dtype;
  if (dtype == DType::float32 && width_ == settling_.count) return static_cast<const float*>(out_.residual) + at;
  const auto* bytes = static_cast<const std::uint8_t*>(out_.residual) + at * bytes_of(dtype);
  if (dtype == DType::float32)
    std::memcpy(residual_, bytes, width_ * sizeof(float));
  else
    kernels_.quantize.to_float(dtype, bytes, width_, residual_);
  return residual_;
}

void Settler::store(std::int64_t at, const float* y) const {
  auto* bytes = static_cast<std::uint8_t*>(out_.y) + at * bytes_of(out_.dtype);
  if (out_.dtype == DType::float32)
    std::memcpy(bytes, y, width_ * sizeof(float));
  else
    kernels_.quantize.from_float(out_.dtype, y, width_, bytes);
}

// Rows of whole vectors are quantized at once, and their codes then moved to where their rows lie.
Fault Settler::requantize(std::int64_t first_row, int rows) {
  const Quantizer& quantizer = *out_.requantizer;
  const std::int64_t size = quantizer.format.vector_size, count = settling_.count, padded = out_.codes.padded;
  const auto codes_at = [&](std::int64_t row) { return out_.codes.codes + row * padded + first_; };
  const auto sigma_at = [&](std::int64_t row) {
    return out_.codes.sigma == nullptr ? nullptr : out_.codes.sigma + (row * padded + first_) / size;
  };
  if (whole_vectors_) {
    alignas(64) std::uint8_t codes[kMostTileRows * Channels::kMost];
    std::int16_t sigma[kMostTileRows * Channels::kMost / kBlockElements];
    const Fault fault =
        quantize_rows(kernels_.quantize, quantizer, {rows_, DType::float32, rows, count, count},
                      out_.requantized_coarse, {codes, count, out_.codes.sigma == nullptr ? nullptr : sigma});
    for (int r = 0; r < rows; ++r) {
      std::memcpy(codes_at(first_row + r), codes + r * count, count);
      if (out_.codes.sigma != nullptr)
        std::memcpy(sigma_at(first_row + r), sigma + r * (count / size), count / size * sizeof(std::int16_t));
    }
    return fault;
  }
  Fault fault = Fault::none;
  for (int r = 0; r < rows; ++r) {
    const Fault here = requantize_row(kernels_.quantize, quantizer, rows_ + r * count, width_, out_.requantized_coarse,
                                      {codes_at(first_row + r), std::min<std::int64_t>(padded - first_, count),
                                       sigma_at(first_row + r)});
    if (here != Fault::none) fault = here;
  }
  return fault;
}

}  // namespace vsquant
