# How a build is made, apart from what the compiler is asked for in warnings.cmake.

# MNEME_SANITIZE names the sanitizers of a build (the presets asan and tsan set it). A finding ends the program: a test that
# goes on after one proves nothing.
set(MNEME_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread; empty for none")
if(MNEME_SANITIZE)
  add_compile_options(-fsanitize=${MNEME_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${MNEME_SANITIZE})
endif()

# ccache, where there is one, makes a second build short.
find_program(MNEME_CCACHE ccache)
if(MNEME_CCACHE AND NOT CMAKE_C_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${MNEME_CCACHE})
endif()

# Programs stand together in bin/, where each finds the others; tests keep to their own folders.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
