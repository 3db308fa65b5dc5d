// Quantization by one scale for all elements, and the table of all kernels; the readable twin is
// core/quantize_scalar.cpp. Included after the other quantize*.inl.

namespace vsquant {
namespace {
namespace quantization {

void extremes(const float* x, std::int64_t count, Extremes* io) {
  Ints up[2]{}, down[2]{};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes)
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      const Ints bits = load<Ints>(x + i + k * kLanes);
      up[k] = larger(up[k], bits);
      down[k] = larger(down[k], bits ^ ~kAbsolute);
    }
  for (int k = 0; i < count; i += kLanes, ++k) {
    Ints bits{};
    const std::int64_t rest = count - i < kLanes ? count - i : kLanes;
    __builtin_memcpy(&bits, x + i, static_cast<std::size_t>(rest) * sizeof(float));
    up[k] = larger(up[k], bits);
    down[k] = larger(down[k], bits ^ ~kAbsolute);
  }
  const std::int32_t largest = largest_lane(larger(up[0], up[1])), smallest = largest_lane(larger(down[0], down[1]));
  io->up = largest > io->up ? largest : io->up;
  io->down = smallest > io->down ? smallest : io->down;
}

template <bool stream>
bool fake_elements_of(const ElementRule& rule, const float* x, std::int64_t count, float* out, std::int64_t ahead) {
  const Floats divisor = splat(rule.divisor), multiplier = splat(rule.multiplier);
  const Floats qmin = splat(rule.qmin), qmax = splat(rule.qmax);
  Ints all{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    if (ahead != 0) __builtin_prefetch(x + i + ahead, 0, 2);
    const Floats v = load<Floats>(x + i);
    all = larger(all, cast<Ints>(v) & kAbsolute);
    write<stream>(out + i, (shifted_code(v, divisor, qmin, qmax) - kRounder) * multiplier);
  }
  if (i < count) {
    const auto bytes = static_cast<std::size_t>(count - i) * sizeof(float);
    Floats v{};
    __builtin_memcpy(&v, x + i, bytes);
    all = larger(all, cast<Ints>(v) & kAbsolute);
    v = (shifted_code(v, divisor, qmin, qmax) - kRounder) * multiplier;
    __builtin_memcpy(out + i, &v, bytes);
  }
  return none_set(all >= kInfinity);
}

bool fake_elements(const ElementRule& rule, const float* x, std::int64_t count, float* out, bool stream,
                   std::int64_t ahead) {
  if (!stream) return fake_elements_of<false>(rule, x, count, out, ahead);
  const bool valid = fake_elements_of<true>(rule, x, count, out, ahead);
  fence();
  return valid;
}

bool code_elements(const ElementRule& rule, const float* x, std::int64_t count, std::uint8_t* codes) {
  const Floats divisor = splat(rule.divisor), qmin = splat(rule.qmin), qmax = splat(rule.qmax);
  Ints all{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats v = load<Floats>(x + i);
    all = larger(all, cast<Ints>(v) & kAbsolute);
    write_codes(codes + i, shifted_code(v, divisor, qmin, qmax));
  }
  if (i < count) {
    Floats v{};
    std::uint8_t tail[kLanes];
    __builtin_memcpy(&v, x + i, static_cast<std::size_t>(count - i) * sizeof(float));
    all = larger(all, cast<Ints>(v) & kAbsolute);
    write_codes(tail, shifted_code(v, divisor, qmin, qmax));
    __builtin_memcpy(codes + i, tail, static_cast<std::size_t>(count - i));
  }
  return none_set(all >= kInfinity);
}

// Sums of 16 codes each for as many runs as there are lanes.
inline Ints sums_of_sixteen(const std::uint8_t* codes, bool is_signed) {
  Ints v[4];
  for (int i = 0; i < 4; ++i) v[i] = sums_of_four(codes + i * 4 * kLanes, is_signed);
  for (int half = 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] = even_lanes(v[2 * i], v[2 * i + 1]) + odd_lanes(v[2 * i], v[2 * i + 1]);
  return v[0];
}

inline std::int32_t sum_of(const std::uint8_t* codes, bool is_signed, int count) {
  std::int32_t sum = 0;
  for (int i = 0; i < count; ++i) sum += is_signed ? static_cast<std::int8_t>(codes[i]) : codes[i];
  return sum;
}

void code_sums(const std::uint8_t* codes, bool is_signed, std::int64_t count, int elements, std::int32_t* sums) {
  std::int64_t i = 0;
  if (elements == 16) {
    for (; i + kLanes <= count; i += kLanes) store(sums + i, sums_of_sixteen(codes + i * 16, is_signed));
  } else if (elements % (16 * kLanes) == 0) {
    for (; i < count; ++i) {
      Ints total{};
      for (int j = 0; j < elements; j += 16 * kLanes) total += sums_of_sixteen(codes + i * elements + j, is_signed);
      sums[i] = 0;
      for (int lane = 0; lane < kLanes; ++lane) sums[i] += total[lane];
    }
  }
  for (; i < count; ++i) sums[i] = sum_of(codes + i * elements, is_signed, elements);
}

constexpr QuantizeKernels table{extremes,     fake_elements, fake_vectors, code_elements,
                                code_vectors, code_sums,     to_float,     from_float};

}  // namespace quantization
}  // namespace
}  // namespace vsquant
