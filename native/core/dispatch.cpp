#include "dispatch.hpp"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace vsquant {
namespace {

#if defined(__x86_64__)

// The state components that the operating system saves (XCR0): 1-2 are SSE and AVX, 5-7 AVX-512.
std::uint64_t saved_state() {
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

struct Processor {
  bool avx2 = false;
  bool avx512_vnni = false;

  Processor() {
    std::uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return;
    const bool osxsave = ecx & (1u << 27), avx = ecx & (1u << 28), f16c = ecx & (1u << 29);
    const bool fma = ecx & (1u << 12);
    if (!osxsave || !avx || !f16c || !fma) return;
    const std::uint64_t saved = saved_state();
    if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return;
    avx2 = (ebx & (1u << 5)) && (ebx & (1u << 8));  // AVX2, BMI2
    const bool f = ebx & (1u << 16), dq = ebx & (1u << 17), bw = ebx & (1u << 30), vl = ebx & (1u << 31);
    const bool vnni = ecx & (1u << 11);
    avx512_vnni = avx2 && f && dq && bw && vl && vnni && (saved & 0xe6) == 0xe6;
  }
};

bool has_avx2() { return Processor().avx2; }
bool has_avx512_vnni() { return Processor().avx512_vnni; }
bool has_neon_dotprod() { return false; }

#elif defined(__aarch64__)

bool has_avx2() { return false; }
bool has_avx512_vnni() { return false; }
bool has_neon_dotprod() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & (1ul << 20);  // HWCAP_ASIMDDP
#elif defined(__APPLE__)
  return true;  // every Apple processor that runs macOS
#else
  return false;
#endif
}

#else

bool has_avx2() { return false; }
bool has_avx512_vnni() { return false; }
bool has_neon_dotprod() { return false; }

#endif

std::string choices() {
  std::string text;
  for (const InstructionSet& set : instruction_sets())
    if (set.usable()) text += (text.empty() ? "" : ", ") + std::string(set.name);
  return text;
}

}  // namespace

#ifndef VSQUANT_BUILT_AVX2
const Kernels* avx2_kernels() { return nullptr; }
#endif
#ifndef VSQUANT_BUILT_AVX512_VNNI
const Kernels* avx512_vnni_kernels() { return nullptr; }
#endif
#ifndef VSQUANT_BUILT_NEON_DOTPROD
const Kernels* neon_dotprod_kernels() { return nullptr; }
#endif

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> sets{
      {"avx512_vnni", has_avx512_vnni(), avx512_vnni_kernels()},
      {"avx2", has_avx2(), avx2_kernels()},
      {"neon_dotprod", has_neon_dotprod(), neon_dotprod_kernels()},
      {"scalar", true, scalar_kernels()},
  };
  return sets;
}

Selection select(const char* forced) {
  Selection selection{nullptr, forced == nullptr ? "" : forced, ""};
  std::string why = "is not an instruction set that vsquant knows";
  for (const InstructionSet& set : instruction_sets()) {
    if (!selection.forced.empty() && selection.forced != set.name) continue;
    if (set.usable()) {
      selection.kernels = set.kernels;
      return selection;
    }
    why = set.kernels != nullptr ? "this processor does not have" : "was not built";
  }
  selection.error = "VSQUANT_ISA must be one of " + choices() + ", not '" + selection.forced + "', which " + why;
  return selection;
}

const Selection& selection() {
  static const Selection chosen = select(std::getenv("VSQUANT_ISA"));
  return chosen;
}

const Kernels& kernels() {
  const Selection& chosen = selection();
  if (chosen.kernels == nullptr) throw std::runtime_error(chosen.error);
  return *chosen.kernels;
}

}  // namespace vsquant
