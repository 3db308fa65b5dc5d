#include "torch/threads.hpp"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

namespace vsquant::binding {
namespace {

struct Call {
  void (*task)(int index, void* context);
  void* context;
};

void run_range(std::int64_t begin, std::int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  for (std::int64_t index = begin; index < end; ++index) call.task(static_cast<int>(index), call.context);
}

void run(int count, void (*task)(int index, void* context), void* context) {
  Call call{task, context};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, 1, &run_range, &call));
}

}  // namespace

ThreadPool torch_threads() {
  std::uint32_t threads = 1;
  STABLE_TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
  return {static_cast<int>(threads), &run};
}

}  // namespace vsquant::binding
