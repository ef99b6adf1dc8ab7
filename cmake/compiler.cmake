# SPDX-License-Identifier: Apache-2.0
# Assertions stay on in every build type: base/assert.h never looks at NDEBUG.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")

add_compile_options(
  -Wall -Wextra -Werror -Wshadow -Wvla -Wconversion -Wno-sign-conversion -Wstrict-prototypes
  -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2 -Wimplicit-fallthrough
  -fno-common -fno-strict-aliasing -fno-omit-frame-pointer -fstack-protector-strong)
add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64)
# What __FILE__ says (in assertions) does not depend on where the source tree is.
add_compile_options(-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=)
# Relocations are resolved at start and read-only afterwards; no executable stack.
add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack)

# What this warning says depends on the optimiser; in instrumented builds it is mostly wrong.
if(NOT VOLMGR_SANITIZE STREQUAL "none" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-format-truncation -Wno-format-overflow)
endif()
if(VOLMGR_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
elseif(VOLMGR_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
elseif(VOLMGR_SANITIZE STREQUAL "none")
  # The library's own bounds checks; the sanitizers replace them with better ones. Some compilers
  # define it by themselves.
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-clash-protection
                      -fcf-protection)
else()
  message(FATAL_ERROR "VOLMGR_SANITIZE must be none, address or thread")
endif()
if(VOLMGR_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
endif()
if(VOLMGR_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

include_directories(${PROJECT_SOURCE_DIR})
