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

# volmgr_test(NAME LABEL label SOURCES a.c [USES libraries] [TIMEOUT seconds] [ARGS ...])
# A test program that ctest runs under the label (unit, model, crash, sim). Exit status 77: skipped.
function(volmgr_test name)
  cmake_parse_arguments(arg "" "LABEL;TIMEOUT" "SOURCES;USES;ARGS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  volmgr_scale_timeout(arg_TIMEOUT)
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_USES} PkgConfig::CMOCKA Threads::Threads)
  add_test(NAME ${arg_LABEL}/${name} COMMAND ${name} ${arg_ARGS})
  set_tests_properties(${arg_LABEL}/${name} PROPERTIES
    LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()

# volmgr_fuzz(NAME SOURCES a.c [USES libraries])
# A fuzz target: LLVMFuzzerTestOneInput() of tests/fuzz/fuzz.h. With VOLMGR_FUZZ it is a libFuzzer
# program; otherwise it is linked with a driver that replays tests/fuzz/corpus/NAME and a few
# thousand repeatable mutations of it, which is what ctest runs in both cases.
function(volmgr_fuzz name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;USES" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  volmgr_scale_timeout(arg_TIMEOUT)
  set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  if(VOLMGR_FUZZ)
    add_executable(${name} ${arg_SOURCES})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    if(EXISTS ${corpus})
      set(arguments -runs=0 ${corpus})
    else()
      set(arguments -runs=10000 -seed=1)
    endif()
  else()
    add_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
    set(arguments ${corpus})
  endif()
  target_link_libraries(${name} PRIVATE ${arg_USES} Threads::Threads)
  add_test(NAME fuzz/${name} COMMAND ${name} ${arguments})
  set_tests_properties(fuzz/${name} PROPERTIES
    LABELS fuzz TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "ASAN_OPTIONS=abort_on_error=1;UBSAN_OPTIONS=abort_on_error=1:print_stacktrace=1")
endfunction()

# volmgr_system_test(NAME COMMAND program arguments... [TIMEOUT seconds])
# A test of the real programs. It runs alone, finds them in VOLMGR_BIN_DIR, and exits with 77 when
# the machine lacks what it needs.
function(volmgr_system_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "COMMAND" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  volmgr_scale_timeout(arg_TIMEOUT)
  add_test(NAME system/${name} COMMAND ${arg_COMMAND})
  set_tests_properties(system/${name} PROPERTIES
    LABELS system TIMEOUT ${arg_TIMEOUT} RUN_SERIAL TRUE SKIP_RETURN_CODE 77
    ENVIRONMENT "VOLMGR_BIN_DIR=${PROJECT_BINARY_DIR}/bin;VOLMGR_SOURCE_DIR=${PROJECT_SOURCE_DIR}")
endfunction()
