#include <cstdio>
#include <initializer_list>

#include "core/format.hpp"
#include "tests/check.hpp"

using namespace vsquant;

namespace {

void check_fields() {
  Format f;
  CHECK(parse_format("4-s4-v16", &f) && f.bits == 4 && f.is_signed && f.scale == ScaleKind::integer);
  CHECK(f.scale_bits == 4 && f.vector_size == 16 && f.qmax() == 7 && f.qmin() == -7 && f.scale_top() == 15);
  CHECK(parse_format("8u", &f) && f.bits == 8 && !f.is_signed && f.vector_size == 0 && f.qmax() == 255);
  CHECK(f.scale == ScaleKind::none);
  CHECK(parse_format("6-sfp16-v32", &f) && f.scale == ScaleKind::fp16 && f.vector_size == 32);
  CHECK(parse_format("3-s10-v64-full-top-g16", &f) && f.full_range && f.scale_top_pow2 && f.coarse_fp16);
  CHECK(f.qmin() == -4 && f.scale_top() == 1024 && f.scale_min() == 1 && f.magnitude() == 4);
}

void check_refusals() {
  for (const char* text : {"", "4-", "1", "9", "16", "4-s4", "4-s1-v16", "4-s11-v16", "4-s4-v", "4-s4-v0", "4-s4-v016",
                           "4-s4-v16-x", "4-s4-v99999999999", "u4", "4-top-full", "nvfp4:e2m1-e4m3-v16-tensor"}) {
    Format f;
    if (parse_format(text, &f)) std::fprintf(stderr, "accepted: %s\n", text);
    CHECK(!parse_format(text, &f));
  }
}

}  // namespace

int main() {
  check_fields();
  check_refusals();
  return test::result();
}
