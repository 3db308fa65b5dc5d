#include "core/float_scales.hpp"

namespace vsquant {

void float_scales(const Kernels& kernels, const PackedWeight& weight, std::int64_t first, int panels, Scratch& words,
                  float* out) {
  const std::int64_t count = weight.vectors() * kPanelChannels;
  for (std::int64_t panel = first; panel < first + panels; ++panel, out += count) {
    if (weight.float_scales != nullptr) {
      const std::int64_t bytes = weight.half_scales ? 2 : 4;
      kernels.quantize.to_float(weight.half_scales ? DType::float16 : DType::float32,
                                static_cast<const char*>(weight.float_scales) + panel * count * bytes, count, out);
      continue;
    }
    auto* sigma = words.get<std::int16_t>(count + kPanelChannels);
    kernels.unpack_scales(weight, panel, Unpacked::codes, sigma);
    for (std::int64_t i = 0; i < count; ++i) out[i] = sigma[i];
  }
}

}  // namespace vsquant
