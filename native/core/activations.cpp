#include "core/activations.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace vsquant {
namespace {

constexpr std::int64_t kElementsPerChunk = 1 << 15;

std::int64_t rows_per_chunk(const ActivationShape& shape) {
  return std::max<std::int64_t>(1, kElementsPerChunk / std::max<std::int64_t>(1, shape.padded()));
}

// body(first row, last row) on chunks of rows.
template <class Body>
void for_each_rows(const ThreadPool& pool, const ActivationShape& shape, const Body& body) {
  const std::int64_t step = rows_per_chunk(shape), rows = shape.all_rows();
  for_each_chunk(pool, (rows + step - 1) / step,
                 [&](std::int64_t chunk) { body(chunk * step, std::min(rows, (chunk + 1) * step)); });
}

const std::uint8_t* element_at(const void* data, DType dtype, std::int64_t index) {
  return static_cast<const std::uint8_t*>(data) + index * (dtype == DType::float32 ? 4 : 2);
}

// gamma of every sample, or of every row.
Fault find_coarse(const ThreadPool& pool, const Kernels& kernels, const ActivationQuantizer& how,
                  const ActivationShape& shape, const void* data, DType dtype, float* coarse) {
  const Format& format = how.quantizer.format;
  const std::int64_t rows_each = how.share == Share::row ? 1 : shape.rows;
  std::atomic<Fault> fault{Fault::none};
  for_each_chunk(pool, rows_each == 0 ? 0 : shape.all_rows() / rows_each, [&](std::int64_t index) {
    const FloatRows rows{element_at(data, dtype, index * rows_each * shape.length), dtype, rows_each, shape.length,
                         shape.length};
    const Fault here = dynamic_coarse(kernels.quantize, format, rows, coarse + index);
    if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
  });
  return fault.load();
}

// Vectors of `size` codes, of which there are `length`, each spread to `elements` codes by zeros.
void spread_codes(const std::uint8_t* from, std::int64_t length, std::int64_t size, std::int64_t elements,
                  std::uint8_t* to) {
  for (std::int64_t first = 0; first < length; first += size, to += elements) {
    const std::int64_t count = std::min(size, length - first);
    std::memcpy(to, from + first, count);
    std::memset(to + count, 0, elements - count);
  }
}

// As quantize_rows for one row whose vectors are spread.
Fault quantize_spread(const Kernels& kernels, const Quantizer& quantizer, const ActivationShape& shape,
                      const FloatRows& row, float coarse, const CodeRows& out) {
  static thread_local Scratch scratch;
  CodeRows dense = out;
  const std::int64_t unit = quantizer.format.vector_size == 0 ? 1 : quantizer.format.vector_size;
  dense.padded = (row.length + unit - 1) / unit * unit;
  dense.codes = scratch.get<std::uint8_t>(dense.padded);
  dense.sums = nullptr;
  const Fault fault = quantize_rows(kernels.quantize, quantizer, row, coarse, dense);
  spread_codes(dense.codes, row.length, shape.vector_size, shape.vector_elements, out.codes);
  if (out.sums != nullptr)
    kernels.quantize.code_sums(out.codes, quantizer.format.is_signed || quantizer.format.bits < 8,
                               shape.padded_part() / shape.vector_elements, shape.vector_elements, out.sums);
  return fault;
}

// Rows [first, last) of one part of the channels under one coarse scale.
Fault quantize_part(const Kernels& kernels, const Quantizer& quantizer, const ActivationShape& shape, const void* data,
                    DType dtype, float coarse, std::int64_t first, std::int64_t last, int part, CodeRows all) {
  // Parts of a row are not contiguous rows.
  const std::int64_t step = shape.groups == 1 && shape.vector_size == 0 ? last - first : 1;
  Fault fault = Fault::none;
  for (std::int64_t row = first; row < last; row += step) {
    CodeRows out = all;
    out.codes += row * shape.padded() + part * shape.padded_part();
    const std::int64_t vector = row * shape.vectors() + part * (shape.vectors() / shape.groups);
    if (out.sigma != nullptr) out.sigma += vector;
    if (out.sums != nullptr) out.sums += vector;
    if (out.steps != nullptr) out.steps += vector;
    const FloatRows rows{element_at(data, dtype, row * shape.length + part * shape.part()), dtype, step, shape.part(),
                         shape.length};
    const Fault here = shape.vector_size != 0 ? quantize_spread(kernels, quantizer, shape, rows, coarse, out)
                                              : quantize_rows(kernels.quantize, quantizer, rows, coarse, out);
    if (here != Fault::none) fault = here;
  }
  return fault;
}

}  // namespace

ActivationMemory& activation_memory() {
  static thread_local ActivationMemory memory;
  return memory;
}

Fault quantize_activations(const ThreadPool& pool, const Kernels& kernels, const ActivationQuantizer& how,
                           const ActivationShape& shape, const void* data, DType dtype, bool sums,
                           ActivationMemory& memory, Activations* out) {
  const Format& format = how.quantizer.format;
  const std::int64_t rows = shape.all_rows();
  const bool by_row = how.share == Share::row && how.range == nullptr;
  float* coarse = memory.coarse.get<float>(by_row ? rows : shape.samples);
  if (how.range != nullptr) {
    const Fault fault = static_coarse(format, *how.range, coarse);
    if (fault != Fault::none) return fault;
  } else {
    const Fault fault = find_coarse(pool, kernels, how, shape, data, dtype, coarse);
    if (fault != Fault::none) return fault;
  }
  out->rows_per_coarse = how.range != nullptr ? std::max<std::int64_t>(1, rows) : by_row ? 1 : shape.rows;
  CodeRows codes{};
  codes.codes = memory.codes.get<std::uint8_t>(rows * shape.padded());
  codes.padded = shape.padded_part();
  codes.sum_elements = shape.vector_elements;
  if (format.scale == ScaleKind::integer) codes.sigma = memory.scales.get<std::int16_t>(rows * shape.vectors());
  if (sums) codes.sums = memory.sums.get<std::int32_t>(rows * shape.vectors());
  if (is_float(format.scale)) codes.steps = memory.sums.get<float>(rows * shape.vectors());
  std::atomic<Fault> fault{Fault::none};
  for_each_rows(pool, shape, [&](std::int64_t first, std::int64_t last) {
    while (first < last) {
      const std::int64_t end = std::min(last, (first / out->rows_per_coarse + 1) * out->rows_per_coarse);
      for (int part = 0; part < shape.groups; ++part) {
        const Fault here = quantize_part(kernels, how.quantizer, shape, data, dtype,
                                         coarse[first / out->rows_per_coarse], first, end, part, codes);
        if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
      }
      first = end;
    }
  });
  out->codes = codes.codes;
  out->scales = codes.sigma;
  out->starts = codes.steps == nullptr ? codes.sums : reinterpret_cast<const std::int32_t*>(codes.steps);
  out->coarse = coarse;
  return fault.load();
}

void adopt_activations(const ThreadPool& pool, const Kernels& kernels, const Format& format,
                       const ActivationShape& shape, const std::uint8_t* codes, std::int64_t given_length, bool sums,
                       ActivationMemory& memory, Activations* out) {
  const bool copy = given_length != shape.padded() || shape.vector_size != 0;
  std::uint8_t* padded = copy ? memory.codes.get<std::uint8_t>(shape.all_rows() * shape.padded()) : nullptr;
  std::int32_t* totals = sums ? memory.sums.get<std::int32_t>(shape.all_rows() * shape.vectors()) : nullptr;
  out->codes = copy ? padded : codes;
  out->starts = totals;
  if (!copy && !sums) return;
  for_each_rows(pool, shape, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; copy && row < last; ++row) {
      for (int part = 0; part < shape.groups; ++part) {
        const std::uint8_t* from = codes + row * given_length + part * shape.part();
        std::uint8_t* to = padded + row * shape.padded() + part * shape.padded_part();
        spread_codes(from, shape.part(), shape.vector_length(), shape.vector_elements, to);
      }
    }
    if (sums)
      kernels.quantize.code_sums(out->codes + first * shape.padded(), format.is_signed || format.bits < 8,
                                 (last - first) * shape.vectors(), shape.vector_elements,
                                 totals + first * shape.vectors());
  });
}

void fit_activations(const ThreadPool& pool, const Multiplication& m, const ActivationShape& shape,
                     ActivationMemory& memory, Activations* activations) {
  if (m.float_scaled && activations->scales != nullptr) {
    const std::int64_t count = shape.all_rows() * shape.vectors();
    auto* scales = memory.sums.get<float>(count);
    std::copy_n(activations->scales, count, scales);
    activations->starts = reinterpret_cast<const std::int32_t*>(scales);
    activations->scales = nullptr;
  }
  if (m.float_scaled) return;
  const bool fold = m.plan.fold_activations && !m.runs_few() && activations->scales != nullptr;
  const int bias = m.start_bias();
  const bool rewrite = fold || m.biased;
  if (!rewrite && bias == 0) return;
  // In place where the codes are this call's own.
  std::uint8_t* fitted = rewrite ? memory.codes.get<std::uint8_t>(shape.all_rows() * shape.padded()) : nullptr;
  const std::uint8_t sign = m.biased ? 128 : 0;
  auto* starts = const_cast<std::int32_t*>(activations->starts);  // ours: sums that this call computed
  for_each_rows(pool, shape, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t first_vector = first * shape.vectors(), last_vector = last * shape.vectors();
    for (std::int64_t v = first_vector; bias != 0 && v < last_vector; ++v) starts[v] *= -bias;
    if (rewrite)
      m.kernels->epilogue.fit_codes(activations->codes + first * shape.padded(),
                                    fold ? activations->scales + first_vector : nullptr, last_vector - first_vector,
                                    shape.vector_elements, sign, fitted + first * shape.padded());
  });
  if (rewrite) activations->codes = fitted;
  if (fold) activations->scales = nullptr;
}

}  // namespace vsquant
