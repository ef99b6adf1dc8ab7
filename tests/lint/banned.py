# SPDX-License-Identifier: Apache-2.0
"""Calls that we do not make, each with what to use instead."""

import re

import c_source
from tree import PRODUCT, Finding, line_of

# call -> replacement; banned in all C files
EVERYWHERE = {
    "strcpy": "snprintf() with sizeof the destination",
    "strncpy": "snprintf() with sizeof the destination",
    "stpcpy": "snprintf() with sizeof the destination",
    "strcat": "snprintf() or base/byte_buffer.h",
    "strncat": "snprintf() or base/byte_buffer.h",
    "sprintf": "snprintf()",
    "vsprintf": "vsnprintf()",
    "gets": "getline()",
    "strtok": "strcspn() and strspn(), or strtok_r()",
    "atoi": "strtoull() with its checks, or base/size_text.h",
    "atol": "strtoull() with its checks, or base/size_text.h",
    "atoll": "strtoull() with its checks, or base/size_text.h",
    "atof": "strtod() with its checks",
    "rand": "base/random.h",
    "srand": "base/random.h",
    "random_r": "base/random.h",
    "assert": "ASSERT() of base/assert.h, which is never compiled out",
    "tmpnam": "mkstemp()",
    "mktemp": "mkstemp()",
}

# banned in product code only
PRODUCT_ONLY = {
    "system": "posix_spawn(), or no process at all",
    "popen": "posix_spawn(), or no process at all",
    "alloca": "a fixed buffer, or the heap on the control path",
    "usleep": "a timer of io/reactor.h; nanosleep() or poll() where there is no reactor",
    "strerror": "error_name() of base/error.h",
    "vfork": "posix_spawn()",
}

# What touches the world outside comes through io/platform.h, so that the simulator decides it.
OUTSIDE = {
    "clock_gettime": "platform's monotonic_ns(), or reactor_now_ns()",
    "gettimeofday": "platform's realtime_ns()",
    "time": "platform's realtime_ns()",
    "nanosleep": "a timer of io/reactor.h",
    "clock_nanosleep": "a timer of io/reactor.h",
    "sleep": "a timer of io/reactor.h",
    "getrandom": "platform's random_u64()",
    "random": "platform's random_u64()",
    "arc4random": "platform's random_u64()",
    "socket": "platform's sockets",
    "pread": "platform's files",
    "pwrite": "platform's files",
    "fsync": "platform's files",
    "fdatasync": "platform's files",
    "pthread_create": "a reactor, or io/offload.h",
}
# Between reactors there are messages only. (Backends may lock what their control path shares.)
LOCKS = {
    "pthread_mutex_lock": "a message to the owner",
    "pthread_rwlock_rdlock": "a message to the owner",
    "pthread_rwlock_wrlock": "a message to the owner",
    "pthread_cond_wait": "a message to the owner",
    "sem_wait": "a message to the owner",
}
LOCKLESS = ("volmgr/", "metadata/", "targets/", "replication/")
SIMULATED = ("volmgr/", "metadata/", "targets/", "replication/", "backends/")
# Their whole purpose is a foreign library that has its own threads, files and clock.
OUTSIDE_ALLOWED = re.compile(r"metadata/store_rocksdb\w*\.[ch]|backends/iscsi\w*\.[ch]")

_CALL = r"(?<![\w.>])(?:{})\s*\((?!\s*\*)"


def _scan(path, code, table, why):
    pattern = re.compile(_CALL.format("|".join(table)))
    for match in pattern.finditer(code):
        name = match.group(0).rstrip("(").strip()
        # A declaration of a member or parameter with this name: a type stands before it.
        before = code[:match.start()].rstrip()
        if re.search(r"\b(?:int|void|bool|unsigned|char|u?int\d+_t|size_t)[ *]*$", before):
            continue
        yield Finding(path, line_of(code, match.start()), f"{name}() is {why}: use {table[name]}")


def check(tree):
    findings = []
    for path in tree.all_c():
        text = tree.text(path)
        code = c_source.without_comments_and_literals(text)
        findings += _scan(path, code, EVERYWHERE, "banned")
        if re.search(r"^[ \t]*#[ \t]*include[ \t]*<assert\.h>", text, re.MULTILINE):
            findings.append(Finding(path, 0, "<assert.h> is banned: use base/assert.h"))
        if path.split("/", 1)[0] in PRODUCT:
            findings += _scan(path, code, PRODUCT_ONLY, "banned in product code")
        if path.startswith(SIMULATED) and not OUTSIDE_ALLOWED.fullmatch(path):
            findings += _scan(path, code, OUTSIDE, "the platform's")
        if path.startswith(LOCKLESS) and not OUTSIDE_ALLOWED.fullmatch(path):
            findings += _scan(path, code, LOCKS, "a lock")
    return findings


GOOD = {
    "volmgr/a.c": "/* strcpy(a, b) */\nstatic const char s[] = \"system(x)\";\n"
                  "void f(void)\n{\n    snprintf(a, b, c);\n    x->random(y);\n    my_rand(1);\n"
                  "    _Static_assert(1, \"\");\n}\n",
    "tests/system/a.c": "int f(void)\n{\n    return system(\"true\");\n}\n",
    "io/platform_uring.c": "int f(void)\n{\n    return clock_gettime(a, b);\n}\n",
}
BAD = [
    ({"cli/a.c": f"int f(void)\n{{\n    return {call}(a);\n}}\n"}, f"{call}() is banned")
    for call in ("strcpy", "strcat", "sprintf", "gets", "strtok", "atoi", "rand", "system",
                 "alloca", "usleep", "assert")
] + [
    ({"tests/unit/a.c": "#define X(a) strcpy (a, b)\n"}, "strcpy() is banned"),
    ({"tests/unit/a.c": "#include <assert.h>\n"}, "<assert.h> is banned"),
    ({"volmgr/a.c": "int f(void)\n{\n    clock_gettime(a, b);\n}\n"}, "the platform's"),
    ({"targets/nbd/a.c": "int f(void)\n{\n    if (time(NULL)) {}\n}\n"}, "time() is the platform"),
    ({"volmgr/a.c": "int f(void)\n{\n    pthread_mutex_lock(&m);\n}\n"}, "is a lock"),
]
