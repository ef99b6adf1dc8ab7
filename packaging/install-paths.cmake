# SPDX-License-Identifier: Apache-2.0
# Run at installation: the unit and the configuration file, for the prefix that was chosen. The
# configuration is in /etc for a prefix of /usr, and in PREFIX/etc for any other.
set(sysconf ${CMAKE_INSTALL_PREFIX}/etc)
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(sysconf /etc)
endif()

file(READ ${packaging}/volmgrd.service unit)
string(REPLACE "/usr/sbin/volmgrd" "${CMAKE_INSTALL_PREFIX}/sbin/volmgrd" unit "${unit}")
string(REPLACE "/etc/volmgr" "${sysconf}/volmgr" unit "${unit}")
set(unit_path $ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/systemd/system/volmgrd.service)
message(STATUS "Installing: ${unit_path}")
file(WRITE ${unit_path} "${unit}")

# An administrator's configuration is not overwritten; the package manager asks by itself.
if(NOT EXISTS $ENV{DESTDIR}${sysconf}/volmgr/volmgrd.conf)
  file(INSTALL ${packaging}/volmgrd.conf DESTINATION ${sysconf}/volmgr)
endif()
