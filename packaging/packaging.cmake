# SPDX-License-Identifier: Apache-2.0
# Installation (cmake --install) and the Debian package (cpack in the build folder).
include(GNUInstallDirs)

set(packaging ${PROJECT_SOURCE_DIR}/packaging)
set(generated ${PROJECT_BINARY_DIR}/generated)

if(TARGET volmgrd)
  install(TARGETS volmgrd DESTINATION ${CMAKE_INSTALL_SBINDIR})
endif()
if(TARGET volctl)
  install(TARGETS volctl DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

# volmgr_generate(FILE FOLDER PROGRAM ARGUMENT...): what a program knows about itself, such as its
# manual page, is made by running it, so that it cannot disagree. Instrumented programs are not
# packaged and may need special care to run, so they are spared it.
function(volmgr_generate file folder program)
  if(NOT TARGET ${program} OR NOT VOLMGR_SANITIZE STREQUAL "none" OR VOLMGR_COVERAGE OR VOLMGR_FUZZ)
    return()
  endif()
  add_custom_command(OUTPUT ${generated}/${file}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
    COMMAND $<TARGET_FILE:${program}> ${ARGN} > ${generated}/${file}
    DEPENDS ${program} VERBATIM)
  add_custom_target(generate-${file} ALL DEPENDS ${generated}/${file})
  install(FILES ${generated}/${file} DESTINATION ${folder})
endfunction()

volmgr_generate(volmgrd.8 ${CMAKE_INSTALL_MANDIR}/man8 volmgrd --generate-man)
volmgr_generate(volctl.1 ${CMAKE_INSTALL_MANDIR}/man1 volctl --generate-man)
volmgr_generate(volctl ${CMAKE_INSTALL_DATADIR}/bash-completion/completions volctl
  --generate-completion bash)
volmgr_generate(_volctl ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions volctl
  --generate-completion zsh)
volmgr_generate(volctl.fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d volctl
  --generate-completion fish)

install(FILES ${packaging}/volmgr.sysusers DESTINATION lib/sysusers.d RENAME volmgr.conf)
# The paths of the unit and of the configuration are known when the prefix is: at installation.
install(CODE "set(packaging \"${packaging}\")")
install(SCRIPT ${packaging}/install-paths.cmake)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
foreach(document README.md CHANGELOG.md NOTICE docs/api.md)
  if(EXISTS ${PROJECT_SOURCE_DIR}/${document})
    install(FILES ${document} DESTINATION ${CMAKE_INSTALL_DOCDIR})
  endif()
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME volmgr)
set(CPACK_PACKAGE_VENDOR "The volmgr authors")
set(CPACK_PACKAGE_CONTACT "The volmgr authors <maintainers@volmgr.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "block storage virtualization daemon")
set(CPACK_PACKAGE_DESCRIPTION
  "volmgrd stands between hypervisor hosts and disks: it makes pools of disks of any kind and
 offers thin volumes of them over network block protocols. volctl manages it.")
set(CPACK_SET_DESTDIR TRUE)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES TRUE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS TRUE)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "init-system-helpers")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "qemu-utils, nbd-client, libnbd-bin")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION TRUE)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${packaging}/deb/conffiles ${packaging}/deb/postinst ${packaging}/deb/prerm
  ${packaging}/deb/postrm)
include(CPack)

if(BUILD_TESTING AND TARGET volmgrd AND TARGET volctl AND VOLMGR_SANITIZE STREQUAL "none"
   AND NOT VOLMGR_COVERAGE AND NOT VOLMGR_FUZZ)
  volmgr_system_test(package COMMAND ${packaging}/test-package.sh ${PROJECT_BINARY_DIR})
  volmgr_system_test(package-install COMMAND ${packaging}/test-install.sh ${PROJECT_BINARY_DIR})
endif()
