// Quantization in vectors of the instruction set at hand; the readable twin is core/quantize_scalar.cpp.
//
// Lanes are elements while elements are worked on, and vectors while scales are: a batch is as many vectors as there
// are lanes, and a tree of shuffles turns one register of elements a vector into one register of their maxima.
#include "core/quantize_kernels.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

// Unrolled by the compiler into hundreds of registers, which it cannot do within reason if it must check every index.
#define VSQUANT_PLAIN __attribute__((no_sanitize("undefined")))

namespace vsquant {
namespace {
namespace quantization {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef std::uint32_t Unsigned __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef std::int16_t Words __attribute__((vector_size(kLanes * 2)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));

#if defined(__AVX512F__)
constexpr Ints kEven{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
#elif defined(__AVX2__)
constexpr Ints kEven{0, 2, 4, 6, 8, 10, 12, 14};
#else
constexpr Ints kEven{0, 2, 4, 6};
#endif
constexpr std::int32_t kInfinity = 0x7f800000;
constexpr std::int32_t kAbsolute = 0x7fffffff;
// Added to a float below 2^22 in size it leaves the nearest integer, ties to even, in the low bits.
constexpr float kRounder = 12582912.0f;
constexpr std::int32_t kRounderBits = 0x4b400000;

template <class To, class From>
inline To cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a cast keeps the bits");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
template <class V, class T>
inline V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class V, class T>
inline void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}
inline Floats splat(float value) { return value - Floats{}; }
inline Ints splat(std::int32_t value) { return value - Ints{}; }
inline Ints larger(Ints a, Ints b) { return a > b ? a : b; }

inline Floats clip(Floats x, Floats low, Floats high) {
  x = x > low ? x : low;
  return x < high ? x : high;
}

// A store that may go past the caches, the fence that orders such stores, and the sums of four bytes each.
#if defined(__AVX512F__)
inline void stream_to(float* to, Floats v) { _mm512_stream_ps(to, cast<__m512>(v)); }
inline void fence() { _mm_sfence(); }
inline Ints sums_of_four(const std::uint8_t* codes, bool is_signed) {
  const __m512i ones = _mm512_set1_epi8(1), bytes = load<__m512i>(codes);
  const __m512i pairs = is_signed ? _mm512_maddubs_epi16(ones, bytes) : _mm512_maddubs_epi16(bytes, ones);
  return cast<Ints>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#elif defined(__AVX2__)
inline void stream_to(float* to, Floats v) { _mm256_stream_ps(to, cast<__m256>(v)); }
inline void fence() { _mm_sfence(); }
inline Ints sums_of_four(const std::uint8_t* codes, bool is_signed) {
  const __m256i ones = _mm256_set1_epi8(1), bytes = load<__m256i>(codes);
  const __m256i pairs = is_signed ? _mm256_maddubs_epi16(ones, bytes) : _mm256_maddubs_epi16(bytes, ones);
  return cast<Ints>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#else
inline void stream_to(float* to, Floats v) { store(to, v); }
inline void fence() {}
inline Ints sums_of_four(const std::uint8_t* codes, bool is_signed) {
  return is_signed ? cast<Ints>(vpaddlq_s16(vpaddlq_s8(vld1q_s8(reinterpret_cast<const std::int8_t*>(codes)))))
                   : cast<Ints>(vpaddlq_u16(vpaddlq_u8(vld1q_u8(codes))));
}
#endif

template <bool stream>
inline void write(float* to, Floats v) {
  if (stream)
    stream_to(to, v);
  else
    store(to, v);
}

inline bool none_set(Ints lanes) {
  std::int32_t any = 0;
  for (int i = 0; i < kLanes; ++i) any |= lanes[i];
  return any == 0;
}

inline std::int32_t largest_lane(Ints v) {
  std::int32_t largest = v[0];
  for (int i = 1; i < kLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

// The even and the odd lanes of a, then of b.
inline Ints even_lanes(Ints a, Ints b) { return __builtin_shuffle(a, b, kEven); }
inline Ints odd_lanes(Ints a, Ints b) { return __builtin_shuffle(a, b, kEven + 1); }

// Lane i of the result is the largest lane of register i.
VSQUANT_PLAIN inline Ints largest_of_each(Ints (&v)[kLanes]) {
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i)
      v[i] = larger(even_lanes(v[2 * i], v[2 * i + 1]), odd_lanes(v[2 * i], v[2 * i + 1]));
  return v[0];
}

// Eq. (3) plus kRounder: its low bits are the code.
inline Floats shifted_code(Floats x, Floats divisor, Floats qmin, Floats qmax) {
  return clip(x / divisor, qmin, qmax) + kRounder;
}

inline void write_codes(std::uint8_t* to, Floats shifted) {
  store(to, __builtin_convertvector(cast<Ints>(shifted) - kRounderBits, Bytes));
}

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

// As many vectors as there are lanes. Where there are fewer left, the last stands in for the rest.
template <int size_, bool whole>
struct Batch {
  const float* first;
  int vectors;
  int runtime_size;
  int size() const { return size_ > 0 ? size_ : runtime_size; }
  const float* at(int j) const { return first + (whole || j < vectors ? j : vectors - 1) * size(); }
};

struct Scales {
  Floats stored;  // sigma or s
  Floats divisor;
  Floats multiplier;
  Ints wrong;  // not zero in a lane whose vector is not finite or whose scale does not fit fp16
};

// Bits whose upper part is the nearest, ties to even, once the `dropped` low ones are dropped. NaN may wrap.
inline Ints to_nearest(Ints bits, int dropped) {
  const Unsigned u = cast<Unsigned>(bits);
  return cast<Ints>(u + ((1u << (dropped - 1)) - 1) + (u >> dropped & 1));
}

// A positive float to the nearest half-precision float, ties to even, as if the exponent had no end above.
inline Floats nearest_half(Floats value) {
  const Ints bits = cast<Ints>(value);
  const Ints normal = to_nearest(bits, 13) & ~0x1fff;
  return bits < 0x38800000 ? (value + 0.5f) - 0.5f : cast<Floats>(normal);
}

// Eqs. (2), (4) and (5) for the vectors of a batch, lane by lane.
inline Scales scales_of(const VectorRule& rule, Ints up_bits, Ints down_bits, Ints wrong) {
  const Floats up = cast<Floats>(up_bits);
  Floats step = up / rule.qmax;
  if (rule.sides == Sides::both) {
    const Floats other = cast<Floats>(down_bits) / -rule.qmin;
    step = step > other ? step : other;
  }
  Scales scales{step, step, step, wrong};
  if (rule.scale == ScaleKind::fp16) {
    scales.stored = scales.divisor = scales.multiplier = nearest_half(step);
    scales.wrong |= (step > 0.0f) & ((scales.stored < 0x1p-14f) | (scales.stored > 65504.0f));
  } else if (rule.scale == ScaleKind::integer) {
    const float gamma_divisor = rule.gamma > 0 ? rule.gamma : __builtin_inff();
    Floats sigma = (clip(step / gamma_divisor, splat(rule.sigma_min), splat(rule.sigma_top)) + kRounder) - kRounder;
    if (!rule.paper && rule.gamma > 0) {
      const Ints occupied = (up_bits | down_bits) > 0;
      sigma = occupied & (sigma < 1.0f) ? splat(1.0f) : sigma;
    }
    scales.stored = sigma;
    scales.multiplier = sigma * rule.gamma;
    if (!rule.paper) scales.divisor = scales.multiplier;
    else if (!(rule.gamma > 0)) scales.divisor = Floats{};
  }
  scales.divisor = scales.divisor > 0.0f ? scales.divisor : splat(__builtin_inff());
  return scales;
}

// The scales of a batch's vectors. Registers of one vector are reduced lane by lane first.
template <Sides sides, class B>
VSQUANT_PLAIN inline Scales sided_scales(const VectorRule& rule, const B& batch) {
  Ints up[kLanes], down[kLanes], all{};
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) {
    up[j] = down[j] = Ints{};
    for (int i = 0; i < batch.size(); i += kLanes) {
      const Ints bits = load<Ints>(batch.at(j) + i);
      const Ints absolute = bits & kAbsolute;
      up[j] = larger(up[j], sides == Sides::magnitude ? absolute : bits);
      if (sides == Sides::both) down[j] = larger(down[j], bits ^ ~kAbsolute);
      if (sides == Sides::positive) all = larger(all, absolute);
    }
  }
  const Ints largest = largest_of_each(up);
  const Ints smallest = sides == Sides::both ? largest_of_each(down) : Ints{};
  all = sides == Sides::positive ? all : larger(largest, smallest);
  return scales_of(rule, largest, smallest, all >= kInfinity);
}

template <class B>
inline Scales batch_scales(const VectorRule& rule, const B& batch) {
  if (rule.sides == Sides::magnitude) return sided_scales<Sides::magnitude>(rule, batch);
  if (rule.sides == Sides::positive) return sided_scales<Sides::positive>(rule, batch);
  return sided_scales<Sides::both>(rule, batch);
}

// Calls work(batch, scales, first) for all vectors; true where all of them are as they must be. Scales are found one
// batch ahead: their long chain of divisions then runs beside the work on elements.
template <int size, class Work>
inline bool each_batch(const VectorRule& rule, const float* x, std::int64_t vectors, const Work& work) {
  const std::int64_t whole = vectors - vectors % kLanes;
  const auto at = [&](std::int64_t first) {
    return Batch<size, true>{x + first * rule.vector_size, kLanes, rule.vector_size};
  };
  Ints wrong{};
  if (whole > 0) {
    Scales scales = batch_scales(rule, at(0));
    for (std::int64_t first = 0; first < whole; first += kLanes) {
      Scales next = scales;
      if (first + kLanes < whole) next = batch_scales(rule, at(first + kLanes));
      wrong |= scales.wrong;
      work(at(first), scales, first);
      scales = next;
    }
  }
  if (whole < vectors) {
    const int rest = static_cast<int>(vectors - whole);
    const Batch<size, false> batch{x + whole * rule.vector_size, rest, rule.vector_size};
    const Scales scales = batch_scales(rule, batch);
    wrong |= scales.wrong;
    work(batch, scales, whole);
  }
  return none_set(wrong);
}

template <int size, bool stream>
bool fake_vectors_of(const VectorRule& rule, const float* x, std::int64_t vectors, float* out, std::int64_t ahead) {
  const Floats qmin = splat(rule.qmin), qmax = splat(rule.qmax);
  return each_batch<size>(rule, x, vectors, [&](const auto& batch, const Scales& scales, std::int64_t first) {
    float* to = out + first * rule.vector_size;
#pragma GCC unroll 4
    for (int j = 0; j < batch.vectors; ++j, to += batch.size()) {
      const Floats divisor = splat(scales.divisor[j]), multiplier = splat(scales.multiplier[j]);
      for (int i = 0; i < batch.size(); i += kLanes) {
        if (ahead != 0) __builtin_prefetch(batch.at(j) + i + ahead, 0, 2);
        const Floats shifted = shifted_code(load<Floats>(batch.at(j) + i), divisor, qmin, qmax);
        write<stream>(to + i, (shifted - kRounder) * multiplier);
      }
    }
  });
}

bool fake_vectors(const VectorRule& rule, const float* x, std::int64_t vectors, float* out, bool stream,
                  std::int64_t ahead) {
  if (!stream) {
    return rule.vector_size == 16 ? fake_vectors_of<16, false>(rule, x, vectors, out, ahead)
                                  : fake_vectors_of<0, false>(rule, x, vectors, out, ahead);
  }
  const bool valid = rule.vector_size == 16 ? fake_vectors_of<16, true>(rule, x, vectors, out, ahead)
                                            : fake_vectors_of<0, true>(rule, x, vectors, out, ahead);
  fence();
  return valid;
}

template <int size>
bool code_vectors_of(const VectorRule& rule, const float* x, std::int64_t vectors, std::uint8_t* codes,
                     std::int16_t* sigma, float* steps) {
  const Floats qmin = splat(rule.qmin), qmax = splat(rule.qmax);
  return each_batch<size>(rule, x, vectors, [&](const auto& batch, const Scales& scales, std::int64_t first) {
    std::uint8_t* to = codes + first * rule.vector_size;
#pragma GCC unroll 4
    for (int j = 0; j < batch.vectors; ++j, to += batch.size()) {
      const Floats divisor = splat(scales.divisor[j]);
      for (int i = 0; i < batch.size(); i += kLanes)
        write_codes(to + i, shifted_code(load<Floats>(batch.at(j) + i), divisor, qmin, qmax));
    }
    if (rule.scale == ScaleKind::integer) {
      const Words words = __builtin_convertvector(cast<Ints>(scales.stored + kRounder) - kRounderBits, Words);
      __builtin_memcpy(sigma + first, &words, static_cast<std::size_t>(batch.vectors) * sizeof(std::int16_t));
    } else {
      __builtin_memcpy(steps + first, &scales.stored, static_cast<std::size_t>(batch.vectors) * sizeof(float));
    }
  });
}

bool code_vectors(const VectorRule& rule, const float* x, std::int64_t vectors, std::uint8_t* codes,
                  std::int16_t* sigma, float* steps) {
  return rule.vector_size == 16 ? code_vectors_of<16>(rule, x, vectors, codes, sigma, steps)
                                : code_vectors_of<0>(rule, x, vectors, codes, sigma, steps);
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

constexpr QuantizeKernels table{extremes,     fake_elements, fake_vectors, code_elements,
                                code_vectors, code_sums,     to_float,     from_float};

}  // namespace quantization
}  // namespace
}  // namespace vsquant
