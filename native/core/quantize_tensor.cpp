// Whole tensors: how they are cut into pieces for the threads, and what is said of one that cannot be quantized.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <vector>

#include "core/half.hpp"
#include "core/quantize.hpp"

namespace vsquant {
namespace {

// Elements of a piece: it stays in the second cache from one pass to the next.
constexpr std::int64_t kPiece = 1 << 15;
// Elements of a group that one thread takes whole where there are groups enough for all.
constexpr std::int64_t kSmallGroup = 1 << 17;
// What shares a coarse scale and is longer than this is not fetched whole while the one before it is written.
constexpr std::int64_t kLongScope = 1 << 14;
// Measured on Zen 4: stores past the caches leave loads behind unless they are this many elements ahead.
constexpr std::int64_t kStreamAhead = 2048;
// Results beyond this do not survive in the caches until they are read: they are written past them.
constexpr std::int64_t kStreamBytes = 24 << 20;

std::int64_t divided_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

// Consecutive rows of a group, or a run of whole vectors of a group that is one long row.
struct Piece {
  std::int64_t group;
  std::int64_t row;      // its first; 0 in a long row
  std::int64_t offset;   // of its first element within the tensor
  std::int64_t rows;
  std::int64_t length;
};

class Pieces {
 public:
  Pieces(const FloatTensor& x, int vector_size, bool keep_rows)
      : groups_(x.groups), rows_(x.rows), length_(x.length), group_elements_(x.rows * x.length) {
    const std::int64_t unit = vector_size == 0 ? 1 : vector_size;
    if (!keep_rows && x.length % unit == 0) {
      rows_ = 1;
      length_ = group_elements_;
      step_ = kPiece - kPiece % unit;
      count_ = divided_up(length_, step_);
    } else {
      step_ = std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, x.length));
      count_ = divided_up(rows_, step_);
      whole_rows_ = true;
    }
  }

  std::int64_t count() const { return groups_ * count_; }
  std::int64_t count_of_group() const { return count_; }

  Piece piece(std::int64_t index) const {
    const std::int64_t group = index / count_, first = index % count_ * step_;
    const std::int64_t start = group * group_elements_;
    if (!whole_rows_) return {group, 0, start + first, 1, std::min(step_, length_ - first)};
    return {group, first, start + first * length_, std::min(step_, rows_ - first), length_};
  }

 private:
  std::int64_t groups_, rows_, length_, group_elements_, step_, count_;
  bool whole_rows_ = false;
};

// The first fault that any thread meets.
class Faults {
 public:
  bool note(Fault fault) {
    if (fault != Fault::none) fault_.store(fault, std::memory_order_relaxed);
    return fault == Fault::none;
  }
  Fault result() const { return fault_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Fault> fault_{Fault::none};
};

void raise_to(std::atomic<std::int32_t>& largest, std::int32_t value) {
  std::int32_t seen = largest.load(std::memory_order_relaxed);
  while (seen < value && !largest.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

FloatRows rows_at(const FloatTensor& x, std::int64_t offset, std::int64_t rows, std::int64_t length) {
  const std::int64_t bytes = x.dtype == DType::float32 ? 4 : 2;
  return {static_cast<const char*>(x.data) + offset * bytes, x.dtype, rows, length, length};
}

FloatRows rows_of(const FloatTensor& x, const Piece& piece) {
  return rows_at(x, piece.offset, piece.rows, piece.length);
}

// Whether gamma follows from the range alone. Under -full without vectors the elements are looked at, too.
bool is_static(const Format& format, const Ranges& ranges) {
  const bool single_level = format.scale == ScaleKind::fp16 || format.scale == ScaleKind::fp32;
  return single_level || (ranges.count > 0 && !(format.scale == ScaleKind::none && format.full_range));
}

// Calls write(piece, coarse) for pieces that make up the tensor, each with the coarse scale its elements share.
template <class Write>
class Drive {
 public:
  Drive(const QuantizeKernels& kernels, const ThreadPool& pool, const Format& format, const FloatTensor& x,
        const Ranges& ranges, const Write& write)
      : kernels_(kernels), pool_(pool), format_(format), x_(x), ranges_(ranges), write_(write) {}

  Fault run(Share share) {
    if (is_static(format_, ranges_))
      run_static();
    else if (share == Share::row && x_.rows != 1)
      run_rows();
    else if (x_.rows * x_.length <= kSmallGroup && (pool_.threads == 1 || x_.groups >= 2 * pool_.threads))
      for_each_chunk(pool_, x_.groups, [&](std::int64_t group) { run_small_group(group); });
    else
      for (std::int64_t group = 0; group < x_.groups; ++group) run_group(group);
    return faults_.result();
  }

 private:
  void run_static() {
    for (std::int64_t i = 0; i < ranges_.count; ++i) {
      float coarse;
      if (!faults_.note(static_coarse(format_, ranges_.data[i], &coarse))) return;
    }
    const Pieces pieces(x_, format_.vector_size, false);
    for_each_chunk(pool_, pieces.count(), [&](std::int64_t index) {
      const Piece piece = pieces.piece(index);
      const float* range = ranges_.of(piece.group);
      float coarse;
      static_coarse(format_, range == nullptr ? 1.0f : *range, &coarse);
      faults_.note(write_(piece, coarse));
    });
  }

  void run_rows() {
    const Pieces pieces(x_, format_.vector_size, true);
    for_each_chunk(pool_, pieces.count(), [&](std::int64_t index) {
      const Piece all = pieces.piece(index);
      for (std::int64_t row = 0; row < all.rows; ++row) {
        const Piece piece{all.group, all.row + row, all.offset + row * all.length, 1, all.length};
        float coarse;
        const Extremes e = extremes_of(kernels_, rows_of(x_, piece));
        if (faults_.note(coarse_of(format_, e, ranges_.of(piece.group), &coarse))) faults_.note(write_(piece, coarse));
      }
    });
  }

  void run_small_group(std::int64_t group) {
    const Piece piece{group, 0, group * x_.rows * x_.length, x_.rows, x_.length};
    float coarse;
    const Extremes e = extremes_of(kernels_, rows_of(x_, piece));
    if (faults_.note(coarse_of(format_, e, ranges_.of(group), &coarse))) faults_.note(write_(piece, coarse));
  }

  void run_group(std::int64_t group) {
    const Pieces pieces(x_, format_.vector_size, false);
    const std::int64_t first = group * pieces.count_of_group();
    std::atomic<std::int32_t> up{0}, down{0};
    for_each_chunk(pool_, pieces.count_of_group(), [&](std::int64_t index) {
      const Extremes e = extremes_of(kernels_, rows_of(x_, pieces.piece(first + index)));
      raise_to(up, e.up);
      raise_to(down, e.down);
    });
    float coarse;
    if (!faults_.note(coarse_of(format_, {up.load(), down.load()}, ranges_.of(group), &coarse))) return;
    for_each_chunk(pool_, pieces.count_of_group(),
                   [&](std::int64_t index) { faults_.note(write_(pieces.piece(first + index), coarse)); });
  }

  const QuantizeKernels& kernels_;
  const ThreadPool& pool_;
  const Format& format_;
  const FloatTensor& x_;
  const Ranges& ranges_;
  const Write& write_;
  Faults faults_;
};

// One group where every group has the same coarse scale.
FloatTensor merged(const FloatTensor& x, const Format& format, const Ranges& ranges) {
  if (!is_static(format, ranges) || ranges.count > 1) return x;
  return {x.data, x.dtype, 1, x.groups * x.rows, x.length};
}

bool may_stream(const FloatTensor& x, const void* out) {
  return x.dtype == DType::float32 && x.length % 16 == 0 && reinterpret_cast<std::uintptr_t>(out) % 64 == 0 &&
         x.groups * x.rows * x.length * 4 >= kStreamBytes;
}

}  // namespace

bool has_coarse_per_row(const Format& format, Share share, const Ranges& ranges) {
  return share == Share::row && !is_static(format, ranges);
}

Fault fake_quantize(const QuantizeKernels& kernels, const ThreadPool& pool, const Quantizer& quantizer, Share share,
                    const FloatTensor& tensor, const Ranges& ranges, void* out) {
  const FloatTensor x = merged(tensor, quantizer.format, ranges);
  const bool past_caches = may_stream(x, out), vectors = quantizer.format.vector_size != 0;
  Streaming streaming{past_caches, past_caches && vectors ? kStreamAhead : 0};
  if (!is_static(quantizer.format, ranges)) {
    // What shares a coarse scale is read twice: what comes next is fetched during the second time.
    const std::int64_t scope = share == Share::row ? x.length : x.rows * x.length;
    if (scope <= kLongScope) streaming.ahead = scope;
  }
  const std::int64_t bytes = x.dtype == DType::float32 ? 4 : 2;
  const auto write = [&](const Piece& piece, float coarse) {
    return fake_quantize_rows(kernels, quantizer, rows_of(x, piece), coarse,
                              static_cast<char*>(out) + piece.offset * bytes, streaming);
  };
  return Drive<decltype(write)>(kernels, pool, quantizer.format, x, ranges, write).run(share);
}

Fault quantize(const QuantizeKernels& kernels, const ThreadPool& pool, const Quantizer& quantizer, Share share,
               const FloatTensor& x, const Ranges& ranges, const CodeRows& out, float* coarse_scale) {
  const Format& format = quantizer.format;
  const bool per_row = has_coarse_per_row(format, share, ranges), unpadded = x.length == out.padded;
  const auto write = [&](const Piece& piece, float coarse) {
    const std::int64_t row = piece.group * x.rows + piece.row;
    if (per_row)
      coarse_scale[row] = coarse;
    else if (piece.offset == piece.group * x.rows * x.length)
      coarse_scale[piece.group] = coarse;
    const std::int64_t start = unpadded ? piece.offset : row * out.padded;
    const std::int64_t vector = format.vector_size == 0 ? 0 : start / format.vector_size;
    const CodeRows rows{out.codes + start, unpadded ? piece.length : out.padded,
                        out.sigma ? out.sigma + vector : nullptr, out.steps ? out.steps + vector : nullptr};
    return quantize_rows(kernels, quantizer, rows_of(x, piece), coarse, rows);
  };
  if (x.rows * x.length == 0 && !per_row)
    for (std::int64_t group = 0; group < x.groups; ++group) {
      const float* range = ranges.of(group);
      const Fault fault = static_coarse(format, range == nullptr ? 0.0f : *range, coarse_scale + group);
      if (fault != Fault::none) return fault;
    }
  return Drive<decltype(write)>(kernels, pool, format, x, ranges, write).run(share);
}

}  // namespace vsquant
