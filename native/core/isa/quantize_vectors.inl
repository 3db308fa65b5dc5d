// Quantization of vectors with scales of their own. Included after quantize_lanes.inl.
//
// Lanes are elements while elements are worked on, and vectors while scales are: a batch is as many vectors as there
// are lanes, and a tree of shuffles turns one register of elements a vector into one register of their maxima.

namespace vsquant {
namespace {
namespace quantization {

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

}  // namespace quantization
}  // namespace
}  // namespace vsquant
