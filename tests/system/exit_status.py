#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The exit status of volctl is 0 for done, 1 for refused or failed, 2 for usage; that of volmgrd 0,
1 and 2 likewise; and an error says what, why and what to do."""

import os
import subprocess

from volmgr_env import BIN_DIR, MIB, check, check_equal, run

USAGE = (
    ["frobnicate"],
    ["pool"],
    ["create", "p/x"],
    ["create", "p/x", "--size"],
    ["create", "p/x", "--size", "many"],
    ["create", "x", "--size", "1G"],
    ["create", "p/../x", "--size", "1G"],
    ["create", "p/x", "--size", "1G", "--sector", "513"],
    ["list", "p", "q"],
    ["list", "--nonsense"],
    ["export", "p/v", "carrier-pigeon"],
)
REFUSED = (
    ["show", "p/none"],
    ["pool", "show", "none"],
    ["pool", "create", "q", "/nonexistent/disk"],
    ["pool", "create", "p", "mem:64M"],
    ["delete", "p/none"],
    ["create", "none/x", "--size", "1G"],
)


def volmgrd_status(*arguments):
    result = subprocess.run([os.path.join(BIN_DIR, "volmgrd"), *arguments], capture_output=True,
                            text=True, timeout=30, check=False)
    if result.returncode != 0:
        check(result.stderr.strip(), f"volmgrd {arguments} says nothing")
    return result.returncode


def test(env):
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(128 * MIB))
    for arguments in (["status"], ["list"], ["help"], ["--version"], ["help", "create"],
                      ["create", "--help"]):
        check_equal(daemon.volctl_raw(*arguments)[0], 0, f"status of volctl {arguments}")
    for arguments in USAGE:
        status, _, error = daemon.volctl_raw(*arguments)
        check_equal(status, 2, f"status of volctl {arguments}")
        check(error.strip(), f"volctl {arguments} says nothing")
    for arguments in REFUSED:
        status, output, error = daemon.volctl_raw(*arguments)
        check_equal(status, 1, f"status of volctl {arguments}")
        check_equal(output, "", f"standard output of the refused {arguments}")
        check("why:" in error, f"volctl {arguments} does not say why: {error}")
        daemon.refused(*arguments)

    check_equal(volmgrd_status("--version"), 0, "volmgrd --version")
    check_equal(volmgrd_status(), 2, "volmgrd without --state")
    check_equal(volmgrd_status("--state", env.path("x"), "--nonsense"), 2, "an unknown option")
    check_equal(volmgrd_status("--state", env.path("x"), "--config", env.path("none.conf")), 2,
                "a configuration that is not there")
    check_equal(volmgrd_status("--state", env.path("no", "such", "parent")), 1,
                "a state directory that cannot be made")

    daemon.stop()
    status, _, error = daemon.volctl_raw("status")
    check_equal(status, 1, "volctl without a daemon")
    check("volmgrd" in error, f"it does not say that no daemon answers: {error}")


run(test, limit_s=60)
