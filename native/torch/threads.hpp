// PyTorch's threads as the core's: the ones the caller has set with torch.set_num_threads.
#pragma once

#include "core/threads.hpp"

namespace vsquant::binding {

ThreadPool torch_threads();

}  // namespace vsquant::binding
