# The module behind torch.ops.vsquant. It uses the stable ABI of PyTorch 2.10 alone, so one build serves every later
# PyTorch and, having no Python symbol either, every Python.
find_package(Python REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "from importlib.util import find_spec as f; s = f('torch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT EXISTS "${torch_dir}/include/torch/csrc/stable/library.h")
  message(FATAL_ERROR "${Python_EXECUTABLE} must have PyTorch 2.10 or later, with its headers, not '${torch_dir}'")
endif()
find_library(torch_cpu torch_cpu PATHS "${torch_dir}/lib" NO_DEFAULT_PATH NO_CACHE REQUIRED)

file(GLOB torch_sources CONFIGURE_DEPENDS torch/*.cpp)
add_library(_native MODULE ${torch_sources})
target_include_directories(_native SYSTEM PRIVATE "${torch_dir}/include")
target_compile_definitions(_native PRIVATE TORCH_TARGET_VERSION=0x020a000000000000)
target_link_libraries(_native PRIVATE vsquant_core ${torch_cpu})
set_target_properties(_native PROPERTIES PREFIX "" SUFFIX ".so" SKIP_BUILD_RPATH ON INSTALL_RPATH "")

set(VSQUANT_OUTPUT "${CMAKE_CURRENT_BINARY_DIR}" CACHE PATH "Folder that the module is put into")
set_target_properties(_native PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${VSQUANT_OUTPUT}")
