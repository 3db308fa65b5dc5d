#include <string>

#include "core/dispatch.hpp"
#include "tests/check.hpp"

using namespace vsquant;

namespace {

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The first set that is built and supported, unless one is named.
void check_choice() {
  const InstructionSet* best = nullptr;
  for (const InstructionSet& set : instruction_sets())
    if (best == nullptr && set.usable()) best = &set;
  CHECK(best != nullptr && select("").kernels == best->kernels && select(nullptr).kernels == best->kernels);
}

void check_force() {
  for (const InstructionSet& set : instruction_sets()) {
    const Selection chosen = select(set.name);
    CHECK((chosen.kernels != nullptr) == set.usable());
    if (chosen.kernels != nullptr) {
      CHECK(chosen.kernels == set.kernels && std::string(chosen.kernels->name) == set.name);
    } else {
      CHECK(contains(chosen.error, set.kernels != nullptr ? "this processor does not have" : "was not built"));
    }
  }
}

void check_unknown() {
  const Selection chosen = select("sse9");
  CHECK(chosen.kernels == nullptr && contains(chosen.error, "VSQUANT_ISA must be one of "));
  CHECK(contains(chosen.error, "scalar, not 'sse9', which is not an instruction set that vsquant knows"));
}

}  // namespace

// With an argument: the instruction set that this processor must be given.
int main(int count, char** arguments) {
  if (count > 1) CHECK(select("").kernels->name == std::string(arguments[1]));
  check_choice();
  check_force();
  check_unknown();
  return test::result();
}
