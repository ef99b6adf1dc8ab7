#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make-volmgrd-man.py VOLMGRD: its manual page, made of what --help and --print-config say."""

import subprocess
import sys

PAGE = r""".\" Made by packaging/make-volmgrd-man.py; do not edit.
.TH VOLMGRD 8 "" "{version}" "volmgr"
.SH NAME
volmgrd \- block storage virtualization daemon
.SH SYNOPSIS
.B volmgrd
.B \-\-state
.I DIR
.RI [ OPTION ]...
.SH DESCRIPTION
volmgrd makes pools of disks (files, block devices, iSCSI logical units) and serves thin volumes of
them to hosts. It is managed with
.BR volctl (1).
It needs no privileges beyond access to the disks.
.SH OPTIONS AND EXIT STATUS
.nf
{usage}
.fi
.SH CONFIGURATION
A file of sections and keys. Lines that begin with # or ; are comments. An unknown key or a value
out of its limits is an error. These are all keys with their built\-in values:
.PP
.nf
{configuration}
.fi
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
End in order; a second one ends at once, as if killed.
.TP
.B SIGHUP
Read the TLS files again.
.SH FILES
.TP
.I /etc/volmgr/volmgrd.conf
The configuration of the packaged service.
.TP
.I /var/lib/volmgr
The state directory of the packaged service.
.TP
.I /run/volmgr
Its sockets for hosts on the same machine, and the volatile journals, which must outlive the
process.
.SH SEE ALSO
.BR volctl (1)
"""


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def literal(text):
    """Text for a no-fill block: nothing in it may be taken for a request."""
    escaped = text.strip("\n").replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line
                     for line in escaped.split("\n"))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = sys.argv[1]
    sys.stdout.write(PAGE.format(version=output(program, "--version").strip(),
                                 usage=literal(output(program, "--help")),
                                 configuration=literal(output(program, "--print-config"))))


if __name__ == "__main__":
    main()
