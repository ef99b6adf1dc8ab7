# SPDX-License-Identifier: Apache-2.0

# volmgr_library(NAME SOURCES a.c b.c [USES other volmgr libraries and packages])
# One static library per folder; the include edges between folders are checked by tests/lint.
function(volmgr_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;USES" ${ARGN})
  add_library(volmgr_${name} STATIC ${arg_SOURCES})
  target_link_libraries(volmgr_${name} PUBLIC ${arg_USES})
endfunction()

# Instrumented programs are several times slower.
macro(volmgr_scale_timeout variable)
  if(NOT VOLMGR_SANITIZE STREQUAL "none")
    math(EXPR ${variable} "${${variable}} * 5")
  endif()
endmacro()

# volmgr_add_test(LABEL/NAME TIMEOUT seconds COMMAND program arguments...)
# Anything that ctest runs under that label. Exit status 77: skipped. The time limit is that of
# programs without a sanitizer.
function(volmgr_add_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "COMMAND" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  volmgr_scale_timeout(arg_TIMEOUT)
  string(REGEX REPLACE "/.*" "" label ${name})
  add_test(NAME ${name} COMMAND ${arg_COMMAND})
  set_tests_properties(${name} PROPERTIES
    LABELS ${label} TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()

# volmgr_test(NAME LABEL label SOURCES a.c [USES libraries] [TIMEOUT seconds] [ARGS ...])
# A test program that ctest runs under the label (unit, model, crash, sim).
function(volmgr_test name)
  cmake_parse_arguments(arg "" "LABEL;TIMEOUT" "SOURCES;USES;ARGS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_USES} PkgConfig::CMOCKA Threads::Threads)
  volmgr_add_test(${arg_LABEL}/${name} TIMEOUT ${arg_TIMEOUT} COMMAND ${name} ${arg_ARGS})
endfunction()

# volmgr_system_test(NAME COMMAND program arguments... [TIMEOUT seconds])
# A test of the real programs. It runs alone, finds them in VOLMGR_BIN_DIR, and exits with 77 when
# the machine lacks what it needs.
function(volmgr_system_test name)
  volmgr_add_test(system/${name} ${ARGN})
  set_tests_properties(system/${name} PROPERTIES
    RUN_SERIAL TRUE
    ENVIRONMENT "VOLMGR_BIN_DIR=${PROJECT_BINARY_DIR}/bin;VOLMGR_SOURCE_DIR=${PROJECT_SOURCE_DIR}")
endfunction()
