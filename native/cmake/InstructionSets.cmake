# One file of core/isa/ per instruction set, compiled with that set's flags. A set is built where the processor family
# has it, the compiler knows its flags and its file exists; core/dispatch.cpp learns of it as VSQUANT_BUILT_<NAME>.
include(CheckCXXCompilerFlag)

set(VSQUANT_ISA_SCALAR_FLAGS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(VSQUANT_ISAS scalar avx2 avx512_vnni)
  set(VSQUANT_ISA_AVX2_FLAGS -mavx2 -mfma -mf16c -mbmi2)
  # GCC's own AVX-512 header starts registers from themselves and then warns of it (its bug 105593).
  set(VSQUANT_ISA_AVX512_VNNI_FLAGS -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mf16c -mbmi2
      -Wno-uninitialized -Wno-maybe-uninitialized)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(VSQUANT_ISAS scalar neon_dotprod)
  set(VSQUANT_ISA_NEON_DOTPROD_FLAGS -march=armv8.2-a+dotprod)
else()
  set(VSQUANT_ISAS scalar)
endif()

# Fully instrumented, a file of unrolled kernels compiles four times as long. A null pointer crashes by itself, and
# AddressSanitizer sees an access outside an object.
set(VSQUANT_ISA_SANITIZE_FLAGS "")
if(VSQUANT_SANITIZE)
  set(VSQUANT_ISA_SANITIZE_FLAGS -fno-sanitize=null,object-size,pointer-overflow)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND VSQUANT_ISA_SANITIZE_FLAGS --param=asan-instrumentation-with-call-threshold=0)
  endif()
endif()

function(vsquant_add_instruction_sets target)
  foreach(isa IN LISTS VSQUANT_ISAS)
    set(source ${CMAKE_CURRENT_SOURCE_DIR}/core/isa/${isa}.cpp)
    string(TOUPPER ${isa} upper)
    set(flags ${VSQUANT_ISA_${upper}_FLAGS})
    string(REPLACE ";" " " flags_text "${flags}")
    set(known_${isa} TRUE)
    if(flags)
      check_cxx_compiler_flag("${flags_text}" VSQUANT_COMPILER_HAS_${upper})
      set(known_${isa} ${VSQUANT_COMPILER_HAS_${upper}})
    endif()
    if(known_${isa} AND EXISTS ${source})
      target_sources(${target} PRIVATE ${source})
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags};${VSQUANT_ISA_SANITIZE_FLAGS}")
      target_compile_definitions(${target} PRIVATE VSQUANT_BUILT_${upper}=1)
    endif()
  endforeach()
endfunction()
