# Run at each build (cmake -P): writes OUT, the source behind config/version.h, and leaves it alone when nothing changed.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
                ERROR_QUIET RESULT_VARIABLE failed)
set(build ${VERSION})
if(NOT failed)
  set(build ${VERSION}+${commit})
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [[
/* Written by cmake/version.cmake. */
#include "config/version.h"

const char *mn_version(void)
{
    return "@VERSION@";
}

const char *mn_version_build(void)
{
    return "@build@";
}
]])
