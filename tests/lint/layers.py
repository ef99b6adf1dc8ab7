# SPDX-License-Identifier: Apache-2.0
"""Which folder knows which: the only table of the architecture's include edges."""

import os
import re

import c_source
from tree import PRODUCT, Finding, line_of

# folder -> folders or single headers that it may include besides its own
LAYERS = {
    "base": [],
    "io": ["base"],
    "backends": ["io", "base"],
    "metadata": ["backends/backend.h", "io", "base"],
    "volmgr": ["metadata", "backends/backend.h", "io", "base"],
    "replication": ["volmgr", "io", "base"],
    "targets": ["volmgr", "io", "base"],
    "api": ["base"],
    "daemon": ["api", "targets", "replication", "volmgr", "metadata", "backends", "io", "base"],
    "cli": ["api", "base"],
}

# Inside targets/ each protocol stands alone; only iSCSI carries SCSI.
PROTOCOLS = {
    "targets/nbd": [],
    "targets/scsi": [],
    "targets/iscsi": ["targets/scsi"],
}

# foreign header -> the files that may include it, and why
FOREIGN = [
    (r"liburing\.h", r"io/platform_uring\w*\.[ch]",
     "the platform is the only door to the kernel's rings"),
    (r"rocksdb/.*", r"metadata/store_rocksdb\w*\.[ch]",
     "the rest of the program knows the store's interface only"),
    (r"iscsi/.*", r"backends/iscsi\w*\.[ch]", "a remote LUN is one kind of backend"),
    (r"isa-l.*", r"(base|backends|io)/\w+\.[ch]", "checksums are base/crc32c.h's business"),
    (r"microhttpd\.h", r"daemon/\w+\.[ch]", "only the daemon serves HTTP"),
    (r"systemd/.*", r"daemon/\w+\.[ch]", "only the daemon is a service"),
    (r"curl/.*", r"(cli|replication|daemon)/\w+\.[ch]", "clients of HTTP services only"),
    (r"jansson\.h", r"(api|daemon|cli|replication)/\w+\.[ch]", "JSON stays at the edge"),
    (r"gnutls/.*", r"(targets|daemon|io|replication)/.*\.[ch]", "TLS belongs to connections"),
    (r"(sys/socket|netinet/.*|arpa/.*|netdb|sys/un)\.h",
     r"(io/platform_uring\w*|io/ip_address|daemon/.*|cli/.*|backends/iscsi\w*)(\.[ch])?",
     "sockets come through io/platform.h"),
]

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">\n]+)[">]', re.MULTILINE)


def _may_know(path, included):
    """Whether product file `path` may include product header `included`."""
    folder, target = path.split("/", 1)[0], included.split("/", 1)[0]
    if folder == target:
        place, other = os.path.dirname(path), os.path.dirname(included)
        if place in PROTOCOLS and other in PROTOCOLS and place != other:
            return other in PROTOCOLS[place]
        return True
    return target in LAYERS[folder] or included in LAYERS[folder]


def _may_see_private(path, included):
    """_impl.h headers are for their folder, for unit and model tests and the simulated world."""
    return path.startswith((os.path.dirname(included) + "/", "tests/unit/", "tests/model/",
                            "tests/sim/"))


def _check_quoted(tree, known, path, included):
    if included.endswith(".c"):
        return "includes a .c file; use the module's interface"
    if included not in known:
        return f'"{included}" is not the full path of a header of this project'
    if included.endswith("_impl.h") and not _may_see_private(path, included):
        return f"{included} is private to {os.path.dirname(included)}/"
    if path.split("/", 1)[0] not in PRODUCT:
        return None
    if included.split("/", 1)[0] not in PRODUCT:
        return f"product code includes {included}"
    if not _may_know(path, included):
        return (f"{os.path.dirname(path)}/ may not know {included} (the table is in "
                "tests/lint/layers.py)")
    return None


def _check_foreign(path, included):
    if path.split("/", 1)[0] not in PRODUCT:
        return None
    for pattern, allowed, reason in FOREIGN:
        if re.fullmatch(pattern, included) and not re.fullmatch(allowed, path):
            return f"<{included}> does not belong here: {reason}"
    return None


def _check_libraries(tree):
    """The same table for volmgr_library(NAME ... USES volmgr_OTHER ...)."""
    findings = []
    for path in tree.select(("CMakeLists.txt",), PRODUCT):
        text = re.sub(r"#[^\n]*", "", tree.text(path))
        folder = path.split("/", 1)[0]
        for match in re.finditer(r"volmgr_library\(([^)]*)\)", text):
            for used in re.findall(r"\bvolmgr_(\w+)", match.group(1).split("USES", 1)[-1]):
                target = "targets" if used in ("nbd", "scsi", "iscsi") else used
                allowed = [entry.split("/", 1)[0] for entry in LAYERS[folder]] + [folder]
                if "USES" in match.group(1) and target not in allowed:
                    findings.append(Finding(path, line_of(text, match.start()),
                                            f"{folder} may not be linked with volmgr_{used}"))
    return findings


def check(tree):
    known = set(tree.paths)
    findings = _check_libraries(tree)
    edges = set()
    for path in tree.all_c():
        text = c_source.without_comments(tree.text(path))
        for match in _INCLUDE.finditer(text):
            included = match.group(2)
            if match.group(1) == '"':
                problem = _check_quoted(tree, known, path, included)
                edges.add((path.split("/", 1)[0], included.split("/", 1)[0]))
            else:
                problem = _check_foreign(path, included)
            if problem:
                findings.append(Finding(path, line_of(text, match.start()), problem))
    used = sum(1 for edge in edges if edge[0] in PRODUCT and edge[0] != edge[1])
    tree.notes.append(f"{used} edges between folders, all of them in the table"
                      if not findings else "")
    return findings


_HEADERS = {name: "" for name in (
    "base/list.h", "io/reactor.h", "backends/backend.h", "backends/file.h", "metadata/store.h",
    "volmgr/volume.h", "volmgr/volume_impl.h", "targets/nbd/nbd.h", "targets/scsi/scsi.h",
    "daemon/daemon.h")}

GOOD = {
    **_HEADERS,
    "volmgr/volume.c": '#include "volmgr/volume_impl.h"\n#include "metadata/store.h"\n'
                       '#include "backends/backend.h"\n#include <stdio.h>\n',
    "tests/unit/volmgr/test_volume.c": '#include "volmgr/volume_impl.h"\n',
    "tests/model/volume_model.c": '#include "volmgr/volume_impl.h"\n',
    "io/platform_uring_file.c": "#include <liburing.h>\n",
    "targets/iscsi/task.c": '#include "targets/scsi/scsi.h"\n',
    "volmgr/comment.c": '/* #include "daemon/daemon.h" */\n',
    "volmgr/CMakeLists.txt": "volmgr_library(volmgr SOURCES volume.c USES volmgr_metadata)\n",
}
BAD = [
    ({**_HEADERS, "base/list.c": '#include "io/reactor.h"\n'}, "base/ may not know io/reactor.h"),
    ({**_HEADERS, "volmgr/map.c": '#include "backends/file.h"\n'}, "may not know backends/file.h"),
    ({**_HEADERS, "volmgr/map.c": '#include "daemon/daemon.h"\n'}, "may not know daemon/daemon.h"),
    ({**_HEADERS, "targets/scsi/sbc.c": '#include "targets/nbd/nbd.h"\n'}, "targets/nbd/nbd.h"),
    ({**_HEADERS, "targets/nbd/a.c": '#include "volmgr/volume_impl.h"\n'}, "private to volmgr/"),
    ({**_HEADERS, "tests/crash/a.c": '#include "volmgr/volume_impl.h"\n'}, "private to volmgr/"),
    ({**_HEADERS, "volmgr/map.c": '#include "volume.h"\n'}, "not the full path"),
    ({**_HEADERS, "volmgr/map.c": "#include <rocksdb/c.h>\n"}, "does not belong here"),
    ({**_HEADERS, "io/reactor.c": "# include <liburing.h>\n"}, "does not belong here"),
    ({**_HEADERS, "tests/unit/io/t.c": '#include "io/reactor.c"\n'}, "includes a .c file"),
    ({**_HEADERS, "io/CMakeLists.txt": "volmgr_library(io SOURCES a.c\n  USES volmgr_volmgr)\n"},
     "may not be linked with volmgr_volmgr"),
]
