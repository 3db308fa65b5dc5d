#include "core/scale_search.hpp"

#include <algorithm>
#include <vector>

namespace vsquant {
namespace {

// What one chunk of work should take: enough to be worth a thread's while.
constexpr std::int64_t kChunkElements = 1 << 12;

class Searcher {
 public:
  Searcher(SearchVector search, const Format& format, const SearchTensor& tensor, const SearchResult& out)
      : search_(search), tensor_(tensor), out_(out) {
    rule_.vector_size = format.vector_size;
    rule_.qmin = static_cast<float>(format.qmin());
    rule_.qmax = static_cast<float>(format.qmax());
    rule_.sigma_min = format.scale_min();
    rule_.sigma_top = format.scale_top();
    vectors_ = (tensor.length + format.vector_size - 1) / format.vector_size;
  }

  void row(std::int64_t index) const {
    const std::int64_t group = index / tensor_.rows;
    const float* x = tensor_.x + index * tensor_.length;
    const double* h = tensor_.weights;
    if (h != nullptr && tensor_.weight_rows > 1) h += group * tensor_.length;
    SearchRule rule = rule_;
    rule.gamma = tensor_.gamma[group];
    const std::int64_t size = rule.vector_size, whole = tensor_.length / size;
    for (std::int64_t j = 0; j < whole; ++j) vector(rule, index, j, x + j * size, h == nullptr ? h : h + j * size);
    if (whole < vectors_) tail(rule, index, x + whole * size, h == nullptr ? h : h + whole * size);
  }

 private:
  void vector(const SearchRule& rule, std::int64_t row, std::int64_t j, const float* x, const double* h) const {
    const std::int64_t at = row * vectors_ + j;
    search_(rule, x, h, out_.codes + at * rule.vector_size, out_.sigma + at, out_.error + at);
  }

  void tail(const SearchRule& rule, std::int64_t row, const float* x, const double* h) const {
    const std::int64_t count = tensor_.length % rule.vector_size;
    std::vector<float> padded(rule.vector_size, 0.0f);
    std::vector<double> weights(rule.vector_size, 0.0);
    std::copy(x, x + count, padded.begin());
    if (h != nullptr) std::copy(h, h + count, weights.begin());
    vector(rule, row, vectors_ - 1, padded.data(), h == nullptr ? nullptr : weights.data());
  }

  SearchVector search_;
  SearchTensor tensor_;
  SearchResult out_;
  SearchRule rule_{};
  std::int64_t vectors_;
};

}  // namespace

void search_scales(SearchVector search, const ThreadPool& pool, const Format& format, const SearchTensor& tensor,
                   const SearchResult& out) {
  if (tensor.length == 0) return;
  const Searcher searcher(search, format, tensor, out);
  const std::int64_t rows = tensor.groups * tensor.rows;
  const std::int64_t together = std::max<std::int64_t>(1, kChunkElements / tensor.length);
  for_each_chunk(pool, (rows + together - 1) / together, [&](std::int64_t chunk) {
    const std::int64_t end = std::min(rows, (chunk + 1) * together);
    for (std::int64_t row = chunk * together; row < end; ++row) searcher.row(row);
  });
}

}  // namespace vsquant
