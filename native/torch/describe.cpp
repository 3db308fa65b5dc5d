// vsquant::native_description: what kernels/native.py and `vsquant doctor` know of this library, as JSON.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <string>

#include "core/dispatch.hpp"

namespace vsquant::binding {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return result + '"';
}

std::string native_description() {
  const Selection& chosen = selection();
  std::string sets;
  for (const InstructionSet& set : instruction_sets()) {
    sets += (sets.empty() ? "" : ", ") + ("{\"name\": " + quoted(set.name)) +
            ", \"built\": " + (set.kernels != nullptr ? "true" : "false") +
            ", \"supported\": " + (set.supported ? "true" : "false") + "}";
  }
  return "{\"isa\": " + (chosen.kernels != nullptr ? quoted(chosen.kernels->name) : "null") +
         ", \"forced\": " + quoted(chosen.forced) + ", \"error\": " + quoted(chosen.error) +
         ", \"instruction_sets\": [" + sets + "]}";
}

STABLE_TORCH_LIBRARY_FRAGMENT(vsquant, m) { m.def("native_description() -> str"); }
STABLE_TORCH_LIBRARY_IMPL(vsquant, CompositeExplicitAutograd, m) {
  m.impl("native_description", TORCH_BOX(&native_description));
}

}  // namespace
}  // namespace vsquant::binding
