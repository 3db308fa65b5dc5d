// Half-precision and bfloat16 to float32 and back, ties to even. Included after quantize_lanes.inl.

namespace vsquant {
namespace {
namespace quantization {

inline Floats floats_of(DType dtype, Halves halves) {
  const Ints wide = __builtin_convertvector(halves, Ints);
  if (dtype == DType::bfloat16) return cast<Floats>(cast<Unsigned>(wide) << 16);
  const Ints sign = (wide & 0x8000) << 16, rest = wide & 0x7fff;
  const Ints finite = cast<Ints>(cast<Floats>(rest << 13) * 0x1p112f);
  return cast<Floats>(sign | (rest >= 0x7c00 ? (rest << 13) | kInfinity : finite));
}

inline Halves halves_of(DType dtype, Floats floats) {
  const Ints bits = cast<Ints>(floats);
  if (dtype == DType::bfloat16) return __builtin_convertvector(to_nearest(bits, 16) >> 16, Halves);
  const Ints rest = bits & kAbsolute;
  const Ints subnormal = cast<Ints>(cast<Floats>(rest) + 0.5f) - 0x3f000000;
  const Ints normal = (to_nearest(rest, 13) >> 13) - (112 << 10);
  const Ints special = rest > kInfinity ? splat(0x7e00) : splat(0x7c00);
  const Ints half = rest >= 0x47800000 ? special : rest < 0x38800000 ? subnormal : normal;
  return __builtin_convertvector(half | (bits >> 16 & 0x8000), Halves);
}

template <DType dtype>
void widen(const std::uint16_t* x, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, floats_of(dtype, load<Halves>(x + i)));
  if (i == count) return;
  Halves tail{};
  __builtin_memcpy(&tail, x + i, static_cast<std::size_t>(count - i) * sizeof(std::uint16_t));
  const Floats floats = floats_of(dtype, tail);
  __builtin_memcpy(out + i, &floats, static_cast<std::size_t>(count - i) * sizeof(float));
}

template <DType dtype>
void narrow(const float* x, std::int64_t count, std::uint16_t* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, halves_of(dtype, load<Floats>(x + i)));
  if (i == count) return;
  Floats tail{};
  __builtin_memcpy(&tail, x + i, static_cast<std::size_t>(count - i) * sizeof(float));
  const Halves halves = halves_of(dtype, tail);
  __builtin_memcpy(out + i, &halves, static_cast<std::size_t>(count - i) * sizeof(std::uint16_t));
}

void to_float(DType dtype, const void* x, std::int64_t count, float* out) {
  if (dtype == DType::float32) __builtin_memcpy(out, x, static_cast<std::size_t>(count) * sizeof(float));
  if (dtype == DType::bfloat16) widen<DType::bfloat16>(static_cast<const std::uint16_t*>(x), count, out);
  if (dtype == DType::float16) widen<DType::float16>(static_cast<const std::uint16_t*>(x), count, out);
}

void from_float(DType dtype, const float* x, std::int64_t count, void* out) {
  if (dtype == DType::float32) __builtin_memcpy(out, x, static_cast<std::size_t>(count) * sizeof(float));
  if (dtype == DType::bfloat16) narrow<DType::bfloat16>(x, count, static_cast<std::uint16_t*>(out));
  if (dtype == DType::float16) narrow<DType::float16>(x, count, static_cast<std::uint16_t*>(out));
}

}  // namespace quantization
}  // namespace
}  // namespace vsquant
