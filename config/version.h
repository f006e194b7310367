/*
 * version.h - which Mneme this is. The text is made at build time (cmake/version.cmake) from the project's version and
 * the commit that was built.
 */
#ifndef MN_CONFIG_VERSION_H
#define MN_CONFIG_VERSION_H

/* "0.1.0" */
const char *mn_version(void);
/* "0.1.0+1a2b3c4" when built from a git checkout, else as mn_version. */
const char *mn_version_build(void);

#endif
