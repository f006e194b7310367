# What every target of ours is compiled with. Frame pointers stay: a profile of a running daemon must show its stacks.
add_compile_options(-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
                    -Wformat=2 -Wundef -Wno-unused-parameter -fno-omit-frame-pointer -fno-math-errno)
add_compile_definitions(_GNU_SOURCE)
if(MNEME_FAULTS)
  add_compile_definitions(MN_FAULTS=1)
endif()
# Every folder is included as <folder>/<file>.h, so that an include line shows where it reaches.
include_directories(${PROJECT_SOURCE_DIR})
include(${CMAKE_CURRENT_LIST_DIR}/build.cmake)
