// vsquant::search_scales on the CPU.
#include "core/scale_search.hpp"

#include <tuple>

#include "core/dispatch.hpp"
#include "torch/tensors.hpp"
#include "torch/threads.hpp"

namespace vsquant::binding {
namespace {

std::tuple<Tensor, Tensor, Tensor> search_scales_op(const Tensor& x, const Tensor& coarse_scale,
                                                    const std::optional<Tensor>& importance,
                                                    const std::string& format) {
  const Format f = parse_format(format);
  if (f.scale != ScaleKind::integer) fail(Error::spec, "scales can be searched where they are integers (-sM)");
  require_dtype(x, "x", ScalarType::Float);
  require_shape(x, "x", {-1, -1, -1});
  const Tensor input = contiguous(x), gamma = contiguous(coarse_scale);
  const std::int64_t groups = x.size(0), rows = x.size(1), length = x.size(2);
  require_shape(gamma, "coarse_scale", {groups});
  SearchTensor tensor{elements<float>(input, "x"), groups, rows, length, elements<float>(gamma, "coarse_scale"),
                      nullptr, 1};
  const Tensor weights = importance.has_value() ? contiguous(*importance) : none(ScalarType::Double);
  if (importance.has_value()) {
    tensor.weight_rows = weights.dim() == 2 && weights.size(0) == groups ? groups : 1;
    require_shape(weights, "importance", {tensor.weight_rows, length});
    tensor.weights = elements<double>(weights, "importance");
  }
  const std::int64_t vectors = (length + f.vector_size - 1) / f.vector_size;
  Tensor codes = empty({groups, rows, vectors, f.vector_size}, f.qmax() > 127 ? ScalarType::Byte : ScalarType::Char);
  Tensor sigma = empty({groups, rows, vectors}, ScalarType::Short);
  Tensor error = empty({groups, rows, vectors}, ScalarType::Double);
  search_scales(kernels().search_vector, torch_threads(), f, tensor,
                {static_cast<std::uint8_t*>(codes.mutable_data_ptr()),
                 static_cast<std::int16_t*>(sigma.mutable_data_ptr()), static_cast<double*>(error.mutable_data_ptr())});
  return {codes, sigma, error};
}

STABLE_TORCH_LIBRARY_IMPL(vsquant, CPU, m) { m.impl("search_scales", TORCH_BOX(&search_scales_op)); }

}  // namespace
}  // namespace vsquant::binding
