// Depthwise products: channels in the lanes of the instruction set at hand, four pixels to a register of weights.

namespace {
namespace depthwise {

#if defined(__AVX512F__)
typedef std::int32_t Ints __attribute__((vector_size(64)));
inline Ints widened(const std::int8_t* from) {
  return reinterpret_cast<Ints>(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
inline Ints widened(const std::uint8_t* from) {
  return reinterpret_cast<Ints>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
#elif defined(__AVX2__)
typedef std::int32_t Ints __attribute__((vector_size(32)));
inline Ints widened(const std::int8_t* from) {
  return reinterpret_cast<Ints>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
inline Ints widened(const std::uint8_t* from) {
  return reinterpret_cast<Ints>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
#elif defined(__ARM_FEATURE_DOTPROD)
typedef int32x4_t Ints;
inline Ints widened(const std::int8_t* from) {
  std::int32_t four;
  __builtin_memcpy(&four, from, 4);
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)))));
}
inline Ints widened(const std::uint8_t* from) {
  std::uint32_t four;
  __builtin_memcpy(&four, from, 4);
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))))));
}
#else
typedef std::int32_t Ints __attribute__((vector_size(16)));
template <class Code>
inline Ints widened(const Code* from) {
  return Ints{from[0], from[1], from[2], from[3]};
}
#endif

constexpr int kLanes = sizeof(Ints) / sizeof(std::int32_t);

template <class Code, int Rows>
void rows(const RowTile& tile, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
          std::int32_t* out) {
  for (std::int64_t channel = first; channel < first + count; channel += kLanes, out += kLanes) {
    Ints sum[Rows] = {};
    for (int position = 0; position < tile.positions; ++position) {
      const Ints w = widened(weights + position * stride + channel);
      for (int r = 0; r < Rows; ++r)
        sum[r] += widened(reinterpret_cast<const Code*>(tile.codes[position * Rows + r]) + channel) * w;
    }
    for (int r = 0; r < Rows; ++r) __builtin_memcpy(out + r * Channels::kMost, &sum[r], sizeof sum[r]);
  }
}

template <class Code>
void by_rows(const RowTile& tile, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
             std::int32_t* out) {
  switch (tile.rows) {
    case 1: return rows<Code, 1>(tile, weights, stride, first, count, out);
    case 2: return rows<Code, 2>(tile, weights, stride, first, count, out);
    case 3: return rows<Code, 3>(tile, weights, stride, first, count, out);
    case 4: return rows<Code, 4>(tile, weights, stride, first, count, out);
    default: __builtin_unreachable();
  }
}

void tile(const RowTile& tile, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
          std::int32_t* out) {
  if (tile.codes_signed)
    by_rows<std::int8_t>(tile, weights, stride, first, count, out);
  else
    by_rows<std::uint8_t>(tile, weights, stride, first, count, out);
}

}  // namespace depthwise
}  // namespace
