#include "core/format.hpp"

#include <cstring>

namespace vsquant {
namespace {

// Moves past `word` where the text begins with it.
bool take(const char** text, const char* word) {
  const std::size_t length = std::strlen(word);
  if (std::strncmp(*text, word, length) != 0) return false;
  *text += length;
  return true;
}

// A number of one to four digits; leading zeros and anything else are refused.
bool take_number(const char** text, int* number) {
  const char* at = *text;
  if (*at < '1' || *at > '9') return false;
  int value = 0;
  for (; *at >= '0' && *at <= '9'; ++at) {
    value = value * 10 + (*at - '0');
    if (value > 9999) return false;
  }
  *text = at;
  *number = value;
  return true;
}

bool take_scale(const char** text, Format* format) {
  if (take(text, "fp16")) {
    format->scale = ScaleKind::fp16;
    return true;
  }
  if (take(text, "fp32")) {
    format->scale = ScaleKind::fp32;
    return true;
  }
  format->scale = ScaleKind::integer;
  return take_number(text, &format->scale_bits) && format->scale_bits >= 2 && format->scale_bits <= 10;
}

}  // namespace

bool parse_format(const char* text, Format* format) {
  Format result;
  if (!take_number(&text, &result.bits) || result.bits < 2 || result.bits > 8) return false;
  result.is_signed = !take(&text, "u");
  if (take(&text, "-s"))
    if (!take_scale(&text, &result) || !take(&text, "-v") || !take_number(&text, &result.vector_size)) return false;
  result.full_range = take(&text, "-full");
  result.scale_top_pow2 = take(&text, "-top");
  result.coarse_fp16 = take(&text, "-g16");
  if (*text != '\0') return false;
  *format = result;
  return true;
}

}  // namespace vsquant
