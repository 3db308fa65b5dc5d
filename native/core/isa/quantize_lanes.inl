// Registers of the instruction set at hand, as quantization uses them. All quantize*.inl are included by each
// instruction set's file, this one first.
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

// Bits whose upper part is the nearest, ties to even, once the `dropped` low ones are dropped. NaN may wrap.
inline Ints to_nearest(Ints bits, int dropped) {
  const Unsigned u = cast<Unsigned>(bits);
  return cast<Ints>(u + ((1u << (dropped - 1)) - 1) + (u >> dropped & 1));
}

}  // namespace quantization
}  // namespace
}  // namespace vsquant
