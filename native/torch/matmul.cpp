// vsquant::matmul on the CPU.
#include "core/matmul.hpp"

#include <algorithm>

#include "core/dispatch.hpp"
#include "torch/layers.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

MatmulOperand operand(const Tensor& x, const char* name, const std::optional<Tensor>& range, const char* range_name,
                      const std::string& format) {
  require_shape(x, name, {-1, -1, -1});
  MatmulOperand result{x.const_data_ptr(), float_dtype(x, name), activation_format(format), {}, x.size(1)};
  if (!range.has_value()) return result;
  const auto sizes = range->sizes();
  if (sizes.size() != 1 || (sizes[0] != 1 && sizes[0] != x.size(0)))
    fail(Error::shape, std::string(range_name) + " must be one value or one per group (" + std::to_string(x.size(0)) +
                           "), not of shape " + shape_text(*range));
  result.ranges = {elements<float>(*range, range_name), sizes[0]};
  return result;
}

void require_fit(const Tensor& left, const Tensor& right) {
  if (left.size(0) != right.size(0) || left.size(2) != right.size(2))
    fail(Error::shape, "right must have the groups and the length of left " + shape_text(left) + ", not " +
                           shape_text(right));
}

// One thing of many that may be wrong: the left operand's is told first, as eager kernels meet it.
void require_finite(Fault fault, const Matmul& matmul) {
  if (fault == Fault::none) return;
  for (const MatmulOperand* x : {&matmul.left, &matmul.right}) {
    const Quantizer quantizer{x->format, matmul.mode};
    const FloatTensor tensor{x->data, x->dtype, matmul.groups, x->rows, matmul.length};
    if (refusal(quantizer, matmul.share, tensor, x->ranges).fault != Fault::none)
      require_none(fault, quantizer, matmul.share, tensor, x->ranges);
  }
}

Tensor product(const Tensor& left, const Tensor& right, const std::optional<Tensor>& left_range,
               const std::optional<Tensor>& right_range, const std::string& left_format,
               const std::string& right_format, const std::string& share, const std::string& scale_mode,
               std::int64_t product_bits, const std::optional<Tensor>& out) {
  Matmul matmul{operand(left, "left", left_range, "left_range", left_format),
                operand(right, "right", right_range, "right_range", right_format),
                parse_share(share),
                parse_scale_mode(scale_mode),
                static_cast<int>(std::clamp<std::int64_t>(product_bits, 0, 64)),
                left.size(0),
                left.size(2),
                0,
                0};
  require_fit(left, right);
  matmul.vector_elements = vector_elements(matmul.right.format, matmul.left.format);
  matmul.vector_size = spread_size(matmul.right.format, matmul.left.format);
  const Shape shape{matmul.groups, matmul.left.rows, matmul.right.rows};
  Tensor y = result(out, shape, matmul.left.dtype);
  require_finite(vsquant::matmul(torch_threads(), kernels(), matmul, y.mutable_data_ptr()), matmul);
  return y;
}

Tensor matmul_op(const Tensor& left, const Tensor& right, const std::optional<Tensor>& left_range,
                 const std::optional<Tensor>& right_range, const std::string& left_format,
                 const std::string& right_format, const std::string& share, const std::string& scale_mode,
                 std::int64_t product_bits) {
  return product(contiguous(left), contiguous(right), left_range, right_range, left_format, right_format, share,
                 scale_mode, product_bits, std::nullopt);
}

Tensor matmul_out(const Tensor& left, const Tensor& right, const std::optional<Tensor>& left_range,
                  const std::optional<Tensor>& right_range, const std::string& left_format,
                  const std::string& right_format, const std::string& share, const std::string& scale_mode,
                  std::int64_t product_bits, const Tensor& out) {
  return product(contiguous(left), contiguous(right), left_range, right_range, left_format, right_format, share,
                 scale_mode, product_bits, out);
}

STABLE_TORCH_LIBRARY_IMPL(vsquant, CPU, m) {
  m.impl("matmul", TORCH_BOX(&matmul_op));
  m.impl("matmul.out", TORCH_BOX(&matmul_out));
}

}  // namespace
}  // namespace vsquant::binding
