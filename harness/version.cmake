cmake_minimum_required(VERSION 3.25)
# Writes assay_build_info.h: run at every build, so that the recorded commit is the one that was compiled, and
# rewritten only when it changed. A tarball made by `git archive` carries its commit in commit.txt (export-subst).
execute_process(COMMAND git -C ${SOURCE_DIR} rev-parse HEAD
  OUTPUT_VARIABLE commit ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
# A tarball unpacked inside some other repository must not claim that repository's commit.
execute_process(COMMAND git -C ${SOURCE_DIR} rev-parse --show-toplevel
  OUTPUT_VARIABLE top ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(top)
  file(REAL_PATH ${top} top)
endif()
file(REAL_PATH ${SOURCE_DIR} source)
if(failed OR NOT top STREQUAL source)
  file(READ ${SOURCE_DIR}/harness/commit.txt commit)
  string(STRIP "${commit}" commit)
  if(NOT commit MATCHES "^[0-9a-f]+$")
    set(commit unknown)
  endif()
else()
  execute_process(COMMAND git -C ${SOURCE_DIR} status --porcelain --untracked-files=no
    OUTPUT_VARIABLE changes ERROR_QUIET)
  if(changes)
    string(APPEND commit "-dirty")
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT
"#pragma once
#define ASSAY_BUILD_VERSION \"@VERSION@\"
#define ASSAY_BUILD_COMMIT \"@commit@\"
#define ASSAY_BUILD_TYPE \"@BUILD_TYPE@\"
#define ASSAY_BUILD_COMPILER \"@COMPILER@\"
")
