// Depthwise products in loops over 16 channels that compilers turn into the registers of any instruction set.

namespace {
namespace depthwise {

typedef std::int8_t SignedBytes __attribute__((vector_size(16)));
typedef std::uint8_t Bytes __attribute__((vector_size(16)));
typedef std::int32_t Ints __attribute__((vector_size(64)));

template <class V>
inline Ints widened(const void* from) {
  V bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, Ints);
}

template <class Codes, int Rows>
void rows(const RowTile& tile, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
          std::int32_t* out) {
  for (std::int64_t channel = first; channel < first + count; channel += 16, out += 16) {
    Ints sum[Rows] = {};
    for (int position = 0; position < tile.positions; ++position) {
      const Ints w = widened<SignedBytes>(weights + position * stride + channel);
      for (int r = 0; r < Rows; ++r) sum[r] += widened<Codes>(tile.codes[position * Rows + r] + channel) * w;
    }
    for (int r = 0; r < Rows; ++r) __builtin_memcpy(out + r * Channels::kMost, &sum[r], sizeof sum[r]);
  }
}

template <class Codes>
void by_rows(const RowTile& tile, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
             std::int32_t* out) {
  switch (tile.rows) {
    case 1: return rows<Codes, 1>(tile, weights, stride, first, count, out);
    case 2: return rows<Codes, 2>(tile, weights, stride, first, count, out);
    case 3: return rows<Codes, 3>(tile, weights, stride, first, count, out);
    case 4: return rows<Codes, 4>(tile, weights, stride, first, count, out);
    default: __builtin_unreachable();
  }
}

void tile(const RowTile& tile, const std::int8_t* weights, std::int64_t stride, std::int64_t first, int count,
          std::int32_t* out) {
  if (tile.codes_signed)
    by_rows<SignedBytes>(tile, weights, stride, first, count, out);
  else
    by_rows<Bytes>(tile, weights, stride, first, count, out);
}

}  // namespace depthwise
}  // namespace
