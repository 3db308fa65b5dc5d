// Which instruction set runs: the widest that was built and that this processor and operating system have, or the one
// that the environment variable VSQUANT_ISA names.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace vsquant {

struct InstructionSet {
  const char* name;
  bool supported;          // by the processor and the operating system
  const Kernels* kernels;  // null where it was not built
  bool usable() const { return supported && kernels != nullptr; }
};

// All that vsquant knows, the preferred first.
const std::vector<InstructionSet>& instruction_sets();

// The kernels in use and how they came to be: settled once, at the first call. `kernels` is null where VSQUANT_ISA names
// none that can run; `error` then says what it must be.
struct Selection {
  const Kernels* kernels;
  std::string forced;
  std::string error;
};
const Selection& selection();

// What selection() would be with VSQUANT_ISA = forced ("" or null: not set).
Selection select(const char* forced);

// The kernels in use; throws std::runtime_error with selection().error where there are none.
const Kernels& kernels();

}  // namespace vsquant
