#include "core/matmul.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace vsquant {
namespace {

// A thread's buffers for the right operand; the left one uses those of every layer.
struct RightMemory {
  ActivationMemory activations;
  Scratch codes, panels, scales, sums, coarse, left;
};

// A code up to 255 is no signed byte, but the sum of three: q = h + h + (q - 2h) with h = q / 2. A right operand of
// such codes is laid out vector by vector as all h, all h again and all rests, against the left vector three times.
constexpr int kParts = 3;
int parts_of(const Format& right) { return right.qmax() > 127 ? kParts : 1; }

void copy_left_parts(const std::uint8_t* codes, std::int64_t vectors, std::int64_t size, std::uint8_t* out) {
  for (std::int64_t i = 0; i < vectors * kParts; ++i) std::memcpy(out + i * size, codes + i / kParts * size, size);
}

void split_right_parts(const std::uint8_t* codes, std::int64_t vectors, std::int64_t size, std::uint8_t* out) {
  for (std::int64_t v = 0; v < vectors; ++v, codes += size, out += kParts * size) {
    for (std::int64_t i = 0; i < size; ++i) {
      const auto half = static_cast<std::uint8_t>(codes[i] / 2);
      out[i] = out[size + i] = half;
      out[2 * size + i] = static_cast<std::uint8_t>(codes[i] - 2 * half);
    }
  }
}

RightMemory& right_memory() {
  static thread_local RightMemory memory;
  return memory;
}

std::int64_t bytes_of(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

const void* group_of(const MatmulOperand& operand, const Matmul& matmul, std::int64_t group) {
  return static_cast<const char*>(operand.data) + group * operand.rows * matmul.length * bytes_of(operand.dtype);
}

Fault quantize_group(const ThreadPool& pool, const Kernels& kernels, const Matmul& matmul, const MatmulOperand& operand,
                     std::int64_t group, bool sums, ActivationMemory& memory, Activations* out) {
  const ActivationQuantizer how{{operand.format, matmul.mode}, matmul.share, operand.ranges.of(group)};
  const ActivationShape rows{1, operand.rows, matmul.length, 1, matmul.vector_elements, matmul.vector_size};
  return quantize_activations(pool, kernels, how, rows, group_of(operand, matmul, group), operand.dtype, sums, memory,
                              out);
}

// A signed format with the largest code of an unsigned one, or of the parts of one.
Format as_weight(Format format) {
  if (!format.is_signed && format.bits < 8) ++format.bits;
  format.is_signed = true;
  return format;
}

// The layer whose weight the right operand will be; only its codes are missing.
LinearLayer layer_for(const Matmul& matmul) {
  LinearLayer layer;
  layer.weight_format = as_weight(matmul.right.format);
  layer.activation_format = matmul.left.format;
  layer.product_bits = matmul.product_bits;
  layer.weight.code_layout = CodeLayout::bytes;
  layer.weight.scale_layout = ScaleLayout::none;
  layer.weight.scale_offset = 0;
  layer.weight.blocks_per_vector = parts_of(matmul.right.format) * matmul.vector_elements / kBlockElements;
  layer.weight.channels = matmul.right.rows;
  const ActivationShape row{1, 1, matmul.length, 1, matmul.vector_elements, matmul.vector_size};
  layer.weight.blocks = row.vectors() * layer.weight.blocks_per_vector;
  return layer;
}

// Rows of codes as panels of 16: four elements of a row after four of the next.
void pack_panels(const std::uint8_t* codes, std::int64_t rows, std::int64_t padded, std::uint8_t* out) {
  const std::int64_t panels = (rows + kPanelChannels - 1) / kPanelChannels;
  for (std::int64_t row = 0; row < panels * kPanelChannels; ++row) {
    std::uint8_t* to = out + row / kPanelChannels * kPanelChannels * padded + row % kPanelChannels * 4;
    for (std::int64_t k = 0; k < padded; k += 4, to += kPanelChannels * 4) {
      if (row < rows)
        std::memcpy(to, codes + row * padded + k, 4);
      else
        std::memset(to, 0, 4);
    }
  }
}

// Scales (rows, vectors) as those of panels [panel][vector][16].
template <class Scale>
void pack_scales(const Scale* scales, std::int64_t rows, std::int64_t vectors, Scale* out) {
  const std::int64_t panels = (rows + kPanelChannels - 1) / kPanelChannels;
  for (std::int64_t row = 0; row < panels * kPanelChannels; ++row)
    for (std::int64_t v = 0; v < vectors; ++v)
      out[(row / kPanelChannels * vectors + v) * kPanelChannels + row % kPanelChannels] =
          row < rows ? scales[row * vectors + v] : Scale{0};
}

// The right operand's codes as a weight; where the plan folds weights they are folded before they are packed.
void pack_right(const Kernels& kernels, const Activations& right, ScaleKind right_scale, RightMemory& memory,
                Multiplication* m) {
  PackedWeight& weight = m->weight;
  const std::int64_t rows = weight.channels, padded = weight.blocks * kBlockElements, vectors = weight.vectors();
  const int elements = weight.blocks_per_vector * kBlockElements;
  const std::uint8_t* codes = right.codes;
  if (right.scales != nullptr && m->plan.fold_weights) {
    auto* folded = memory.codes.get<std::uint8_t>(rows * padded);
    kernels.epilogue.fit_codes(codes, right.scales, rows * vectors, elements, 0, folded);
    codes = folded;
  } else if (right.scales != nullptr) {
    auto* scales = memory.scales.get<std::int16_t>(weight.panels() * kPanelChannels * vectors);
    pack_scales(right.scales, rows, vectors, scales);
    weight.scales = reinterpret_cast<const std::uint8_t*>(scales);
    weight.scale_layout = ScaleLayout::words;
  }
  if (is_float(right_scale)) {
    auto* scales = memory.scales.get<float>(weight.panels() * kPanelChannels * vectors);
    pack_scales(reinterpret_cast<const float*>(right.starts), rows, vectors, scales);
    weight.float_scales = scales;
  }
  auto* panels = memory.panels.get<std::uint8_t>(weight.panels() * kPanelChannels * padded);
  pack_panels(codes, rows, padded, panels);
  weight.codes = panels;
  auto* sums = memory.sums.get<std::int32_t>(rows);
  if (padded > 0)
    kernels.quantize.code_sums(codes, true, rows, static_cast<int>(padded), sums);
  else
    std::fill_n(sums, rows, 0);
  weight.sums = sums;
}

// Both operands in parts, vectors `parts` times as long; the left one's sums are taken anew where it has them.
void split_both(const ThreadPool& pool, const Kernels& kernels, const Matmul& matmul, const ActivationShape& shape,
                RightMemory& memory, Activations* left, Activations* right) {
  const std::int64_t size = matmul.vector_elements, vectors = shape.vectors();
  auto* split = memory.codes.get<std::uint8_t>(matmul.right.rows * shape.padded());
  split_right_parts(right->codes, matmul.right.rows * vectors, size, split);
  right->codes = split;
  auto* copied = memory.left.get<std::uint8_t>(shape.all_rows() * shape.padded());
  copy_left_parts(left->codes, shape.all_rows() * vectors, size, copied);
  left->codes = copied;
  if (left->starts != nullptr && !is_float(matmul.left.format.scale))
    adopt_activations(pool, kernels, matmul.left.format, shape, copied, shape.padded(), true, activation_memory(), left);
}

class Rows final : public RowSource {
 public:
  Rows(const Activations& activations, std::int64_t padded, std::int64_t vectors)
      : activations_(activations), padded_(padded), vectors_(vectors) {}

  void point(std::int64_t first_row, int rows, const std::uint8_t** codes, const std::int32_t** starts,
             const std::int16_t** scales) const override {
    for (int r = 0; r < rows; ++r) {
      const std::int64_t row = first_row + r;
      codes[r] = activations_.codes + row * padded_;
      if (activations_.starts != nullptr) starts[r] = activations_.starts + row * vectors_;
      if (activations_.scales != nullptr) scales[r] = activations_.scales + row * vectors_;
    }
  }

 private:
  const Activations& activations_;
  std::int64_t padded_, vectors_;
};

Fault run_group(const ThreadPool& pool, const Kernels& kernels, const Matmul& matmul, std::int64_t group, void* y) {
  const LinearLayer layer = layer_for(matmul);
  Multiplication m = multiplication_of(kernels, layer, matmul.left.rows, 1, layer.weight.blocks);
  RightMemory& memory = right_memory();
  Activations left, right;
  Fault fault = quantize_group(pool, kernels, matmul, matmul.left, group, m.start_bias() != 0, activation_memory(), &left);
  if (fault != Fault::none) return fault;
  fault = quantize_group(pool, kernels, matmul, matmul.right, group, false, memory.activations, &right);
  if (fault != Fault::none) return fault;
  const int parts = parts_of(matmul.right.format);
  const ActivationShape rows{1, matmul.left.rows, m.weight.blocks * kBlockElements, 1, parts * matmul.vector_elements};
  if (parts > 1) split_both(pool, kernels, matmul, rows, memory, &left, &right);
  pack_right(kernels, right, matmul.right.format.scale, memory, &m);
  fit_activations(pool, m, rows, activation_memory(), &left);
  auto* coarse = memory.coarse.get<float>(matmul.right.rows);
  for (std::int64_t row = 0; row < matmul.right.rows; ++row) coarse[row] = right.coarse[row / right.rows_per_coarse];
  Outputs outputs{};
  outputs.activation_coarse = left.coarse;
  outputs.rows_per_coarse = std::max<std::int64_t>(1, left.rows_per_coarse);
  outputs.weight_coarse = coarse;
  outputs.dtype = matmul.left.dtype;
  outputs.stride = matmul.right.rows;
  outputs.y = y;
  return multiply(pool, m, Rows(left, rows.padded(), rows.vectors()), outputs);
}

}  // namespace

Fault matmul(const ThreadPool& pool, const Kernels& kernels, const Matmul& matmul, void* y) {
  const std::int64_t group_bytes = matmul.left.rows * matmul.right.rows * bytes_of(matmul.left.dtype);
  const auto run = [&](const ThreadPool& threads, std::int64_t group) {
    return run_group(threads, kernels, matmul, group, static_cast<char*>(y) + group * group_bytes);
  };
  if (matmul.groups == 1) return run(pool, 0);
  std::atomic<Fault> fault{Fault::none};
  for_each_chunk(pool, matmul.groups, [&](std::int64_t group) {
    const Fault here = run(ThreadPool{}, group);
    if (here != Fault::none) fault.store(here, std::memory_order_relaxed);
  });
  return fault.load();
}

}  // namespace vsquant
