// What a tensor format is, as the kernels see it. The Python spec is the source; its text form is parsed once a call.
#pragma once

#include <cstdint>

namespace vsquant {

enum class ScaleKind : std::uint8_t { none, integer, fp16, fp32 };
constexpr bool is_float(ScaleKind kind) { return kind == ScaleKind::fp16 || kind == ScaleKind::fp32; }
enum class ScaleMode : std::uint8_t { paper, requantize };
enum class Share : std::uint8_t { group, row };
enum class DType : std::uint8_t { float32, bfloat16, float16 };

// N-bit integer elements, vectors of `vector_size` elements (0: none), M-bit scales under a coarse scale.
struct Format {
  int bits = 8;
  bool is_signed = true;
  bool full_range = false;
  int vector_size = 0;
  ScaleKind scale = ScaleKind::none;
  int scale_bits = 0;
  bool scale_top_pow2 = false;
  bool coarse_fp16 = false;

  constexpr int qmax() const { return is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1; }
  constexpr int qmin() const { return !is_signed ? 0 : full_range ? -(1 << (bits - 1)) : -qmax(); }
  constexpr int scale_min() const { return scale_top_pow2 ? 1 : 0; }
  constexpr int scale_top() const {
    return scale != ScaleKind::integer ? 1 : (1 << scale_bits) - (scale_top_pow2 ? 0 : 1);
  }
  // Largest |q|.
  constexpr int magnitude() const { return -qmin() > qmax() ? -qmin() : qmax(); }
};

// Reads "4-s4-v16", "8u", "4u-s6-v16", "6-sfp16-v32", with "-full", "-top", "-g16"; false if it is no such text.
bool parse_format(const char* text, Format* format);

}  // namespace vsquant
