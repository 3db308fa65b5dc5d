// Bits of floats, and the two 16-bit floats, rounded to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

namespace vsquant {

constexpr std::int32_t kInfinityBits = 0x7f800000;

inline std::int32_t bits_of(float value) {
  std::int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float float_of_bfloat(std::uint16_t half) {
  return float_of(static_cast<std::int32_t>(static_cast<std::uint32_t>(half) << 16));
}

// NaN stays NaN: the sum cannot carry the payloads that arithmetic makes into the exponent.
inline std::uint16_t bfloat_of(float value) {
  const auto bits = static_cast<std::uint32_t>(bits_of(value));
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float float_of_half(std::uint16_t half) {
  const std::int32_t sign = static_cast<std::int32_t>(static_cast<std::uint32_t>(half & 0x8000) << 16);
  const std::int32_t rest = half & 0x7fff;
  if (rest >= 0x7c00) return float_of(sign | kInfinityBits | (rest & 0x3ff) << 13);
  // Exponents are biased by 15 here and by 127 there; the product is exact, for subnormals too.
  return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));
}

inline std::uint16_t half_of(float value) {
  const auto sign = static_cast<std::uint16_t>(static_cast<std::uint32_t>(bits_of(value)) >> 16 & 0x8000);
  const std::int32_t rest = bits_of(value) & 0x7fffffff;
  if (rest > kInfinityBits) return sign | 0x7e00;
  if (rest >= bits_of(65536.0f)) return sign | 0x7c00;
  // Below 2^-14 half precision counts in steps of 2^-24, as float32 does from 1/2 on.
  if (rest < bits_of(0x1p-14f)) return sign | static_cast<std::uint16_t>(bits_of(float_of(rest) + 0.5f) - bits_of(0.5f));
  const std::int32_t rounded = rest + 0xfff + (rest >> 13 & 1);
  return sign | static_cast<std::uint16_t>((rounded >> 13) - (112 << 10));
}

// A normal half-precision value: what a stored scale must be.
inline bool fits_fp16(float value) { return value >= 0x1p-14f && value <= 65504.0f; }

}  // namespace vsquant
