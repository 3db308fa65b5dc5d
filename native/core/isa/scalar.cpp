// The plain twin of every kernel: no vector instructions, for any processor.
#include "core/kernels.hpp"

namespace vsquant {
namespace {

constexpr Kernels table() {
  Kernels kernels{};
  kernels.name = "scalar";
  return kernels;
}

}  // namespace

const Kernels* scalar_kernels() {
  static constexpr Kernels kernels = table();
  return &kernels;
}

}  // namespace vsquant
