# SPDX-License-Identifier: Apache-2.0
"""What every system test stands on: a temporary directory, daemons, disks, and an end in order.

A test is a script with one function that takes an Environment and is run by run(). Its docstring
is the sentence that it tests. Exit status: 0 passed, 1 failed, 77 the machine lacks something (the
last line says what).

Environment variables
    VOLMGR_BIN_DIR     where volmgrd and volctl are (default: build/bin of the source tree)
    VOLMGR_TEST_LONG   1: the long form of tests that have one
    VOLMGR_TEST_SEED   seed of the random choices; printed by every test that makes some
    VOLMGR_TEST_DIR    where temporary directories are made; a file system on a disk
    VOLMGR_TEST_KEEP   1: leave the directory of a failed test behind
    VOLMGR_SANITIZE    what the programs are built with; "none" when absent
"""

import contextlib
import ctypes
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

EXIT_SKIP = 77
HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE_DIR = os.environ.get("VOLMGR_SOURCE_DIR", os.path.dirname(os.path.dirname(HERE)))
BIN_DIR = os.environ.get("VOLMGR_BIN_DIR", os.path.join(SOURCE_DIR, "build", "bin"))
LONG = os.environ.get("VOLMGR_TEST_LONG", "0") == "1"
SANITIZED = os.environ.get("VOLMGR_SANITIZE", "none") != "none"

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
PIB = 1024 * TIB

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
LOG_LINES_SHOWN = 60
# How the sanitizers begin what they have to say.
SANITIZER_REPORT = re.compile(r"(ERROR|WARNING): \w+Sanitizer|: runtime error: ")


class Skip(Exception):
    """The machine lacks something; the text says what."""


class CommandError(Exception):
    """volctl ended with another status than expected, or with 1 where that is the caller's case."""

    def __init__(self, arguments, status, body, text):
        self.status = status
        self.body = body if isinstance(body, dict) else {}
        self.code = self.body.get("code", "")
        super().__init__(f"volctl {' '.join(map(str, arguments))}: status {status}: {text.strip()}")


def check(condition, message):
    """An assertion of a test; unlike assert it survives python -O."""
    if not condition:
        raise AssertionError(message)


def check_equal(got, expected, what):
    check(got == expected, f"{what}: got {got!r}, expected {expected!r}")


def need_program(*names):
    for name in names:
        if not shutil.which(name):
            raise Skip(f"there is no program {name}")


def need_root(why):
    if os.geteuid() != 0:
        raise Skip(f"needs root: {why}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, timeout_s, what, interval_s=0.02):
    """The first true value of condition()."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def run_command(*arguments, timeout_s=300, status=0, **options):
    """A foreign program's output (standard output and error together)."""
    result = subprocess.run([str(item) for item in arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
                            **options)
    check(status is None or result.returncode == status,
          f"{' '.join(map(str, arguments))}: status {result.returncode}\n{result.stdout[-4000:]}")
    return result.stdout


def _die_with_parent():
    """In the child: it must not outlive a test that is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Environment:
    """One test's directory and everything that it has started; gone when the test ends."""

    def __init__(self, name):
        base = os.environ.get("VOLMGR_TEST_DIR", tempfile.gettempdir())
        self.name = name
        self.folder = tempfile.mkdtemp(prefix=f"vm-{name[:12]}-", dir=base)
        self.stack = contextlib.ExitStack()
        self.logs = []
        self.long = LONG
        self.seed = int(os.environ.get("VOLMGR_TEST_SEED", random.SystemRandom().getrandbits(32)))
        self.random = random.Random(self.seed)
        self.disk_count = 0

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def in_memory(self):
        """Whether the files of this test, disks among them, are in memory."""
        kind = run_command("stat", "--file-system", "--format=%T", self.folder)
        return kind.strip() in ("tmpfs", "ramfs")

    def say(self, text):
        print(text, flush=True)

    def spawn(self, arguments, log_name, **options):
        """A process that is killed at the end of the test at the latest; its output in a log."""
        log = self.path(log_name)
        if log not in self.logs:
            self.logs.append(log)
        with open(log, "ab") as output:
            process = subprocess.Popen([str(item) for item in arguments], stdout=output,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       preexec_fn=_die_with_parent, **options)
        self.stack.callback(end_process, process)
        return process

    def file_disk(self, size_bytes, folder=None):
        """Path of a new sparse file, to be a disk of a pool."""
        path = os.path.join(folder or self.folder, f"disk{self.disk_count}.img")
        self.disk_count += 1
        with open(path, "wb") as file:
            file.truncate(size_bytes)
        return path

    def memory_folder(self):
        """A directory on tmpfs."""
        base = "/dev/shm" if os.path.isdir("/dev/shm") else None
        if base is None:
            raise Skip("there is no /dev/shm")
        folder = tempfile.mkdtemp(prefix="vm-", dir=base)
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def loop_device(self, size_bytes, sector_bytes=512):
        """A block device over a new file."""
        need_root("loop devices")
        need_program("losetup")
        path = self.file_disk(size_bytes)
        result = subprocess.run(["losetup", "--find", "--show", f"--sector-size={sector_bytes}",
                                 path], text=True, capture_output=True, check=False)
        if result.returncode != 0:
            raise Skip(f"no loop device: {result.stderr.strip()}")
        device = result.stdout.strip()
        self.stack.callback(subprocess.run, ["losetup", "--detach", device], check=False)
        return device

    def iscsi_array(self, size_bytes):
        return IscsiArray(self, size_bytes)

    def daemon(self, name="state", start=True, config="", arguments=()):
        daemon = Daemon(self, name, config, arguments)
        if start:
            daemon.start()
        return daemon

    def check_log(self, path):
        """No sanitizer has complained in it. A daemon that a test kills cannot say so with its exit
        status."""
        if not SANITIZED or not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        found = SANITIZER_REPORT.search(text)
        if found:
            first = max(found.start() - 200, 0)
            raise AssertionError(f"{os.path.basename(path)}:\n{text[first:first + 20000]}")

    def check_logs(self):
        for log in self.logs:
            self.check_log(log)

    def show_logs(self):
        for log in self.logs:
            with contextlib.suppress(OSError), open(log, encoding="utf-8",
                                                    errors="replace") as file:
                lines = file.read().splitlines()
                print(f"---- {os.path.basename(log)}, last lines", file=sys.stderr)
                print("\n".join(lines[-LOG_LINES_SHOWN:]), file=sys.stderr)

    def close(self, failed):
        with contextlib.suppress(Exception):
            self.stack.close()
        if failed and os.environ.get("VOLMGR_TEST_KEEP") == "1":
            print(f"left behind: {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def end_process(process):
    """Whatever state it is in."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
    process.wait()


class Daemon:
    """A volmgrd with a state directory of its own; may be stopped, killed and started again."""

    def __init__(self, env, name="state", config="", arguments=()):
        self.env = env
        self.name = name
        self.state = env.path(name)
        self.socket = os.path.join(self.state, "volmgrd.sock")
        self.nbd_socket = os.path.join(self.state, "nbd.sock")
        self.port = free_port()
        self.arguments = list(arguments)
        self.process = None
        self.log = env.path(f"{name}.log")
        self.config = env.path(f"{name}.conf")
        self.volatile = env.memory_folder()
        os.chmod(self.volatile, 0o700)
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f"[daemon]\nvolatile_directory = {self.volatile}\n{config}")

    @property
    def pid(self):
        return self.process.pid

    def command(self):
        return [os.path.join(BIN_DIR, "volmgrd"), "--state", self.state, "--config", self.config,
                "--nbd", f"127.0.0.1:{self.port}", "--foreground", *self.arguments]

    def launch(self, prefix=()):
        """Start it and do not wait. `prefix`: a program that runs it, such as valgrind."""
        check(self.process is None or self.process.poll() is not None, "it runs already")
        if self.log in self.env.logs:
            self.env.check_log(self.log)
            os.replace(self.log, self.log + ".before")
        self.process = self.env.spawn([*prefix, *self.command()], f"{self.name}.log")

    def is_ready(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "\nready\n" in "\n" + file.read()

    def wait_ready(self, timeout_s=START_TIMEOUT_S):
        def ready_or_dead():
            return self.is_ready() or self.process.poll() is not None
        wait_until(ready_or_dead, timeout_s, "volmgrd says ready", 0.005)
        check(self.process.poll() is None,
              f"volmgrd ended with status {self.process.returncode} instead of serving")

    def wait_opened(self, timeout_s):
        """"ready" is kept back for some seconds only when a pool takes long to open, as on a busy
        machine; that one is waited for here."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            if "slow-start" not in file.read():
                return
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and any(
                pool["state"] == "opening" for pool in self.volctl("pool", "list")["pools"]):
            time.sleep(0.1)

    def start(self, timeout_s=START_TIMEOUT_S):
        self.launch()
        self.wait_ready(timeout_s)
        self.wait_opened(timeout_s)

    def kill(self):
        """As by SIGKILL: nothing is told to it."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s=STOP_TIMEOUT_S):
        """In order; it must say with its exit status that it was."""
        self.process.terminate()
        status = self.process.wait(timeout_s)
        check_equal(status, 0, "exit status of volmgrd after SIGTERM")

    def restart(self):
        self.stop()
        self.start()

    def check_alive(self):
        check(self.process.poll() is None,
              f"volmgrd has died, status {self.process.returncode}")

    def volctl_raw(self, *arguments, timeout_s=120):
        """(exit status, standard output, standard error)."""
        result = subprocess.run([os.path.join(BIN_DIR, "volctl"), "-s", self.socket,
                                 *map(str, arguments)], text=True, capture_output=True,
                                timeout=timeout_s, check=False)
        check(not SANITIZED or not SANITIZER_REPORT.search(result.stderr), result.stderr)
        return result.returncode, result.stdout, result.stderr

    def volctl(self, *arguments, timeout_s=120):
        """What it answers, decoded; a CommandError when it is refused."""
        status, output, error = self.volctl_raw(*arguments, "--json", timeout_s=timeout_s)
        body = None
        with contextlib.suppress(ValueError):
            body = json.loads(output)
        if status != 0:
            raise CommandError(arguments, status, body, output + error)
        check(body is not None, f"volctl {' '.join(map(str, arguments))}: no JSON: {output!r}")
        return body

    def refused(self, *arguments):
        """The CommandError of a command that must be refused (status 1) with all that an
        administrator needs."""
        try:
            answer = self.volctl(*arguments)
        except CommandError as error:
            check_equal(error.status, 1, str(error))
            for part in ("error", "why", "code"):
                check(error.body.get(part), f"the refusal has no '{part}': {error}")
            return error
        raise AssertionError(f"volctl {' '.join(map(str, arguments))} was not refused: {answer}")

    def make_volume(self, volume, size_bytes, *options, export=True):
        self.volctl("create", volume, "--size", size_bytes, *options)
        if export:
            self.volctl("export", volume, "nbd")

    def uri(self, volume, tcp=False):
        if tcp:
            return f"nbd://127.0.0.1:{self.port}/{volume}"
        return f"nbd+unix:///{volume}?socket={self.nbd_socket}"

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self):
        """User and system time of all its threads, ended ones included."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def event_names(self):
        return [event["name"] for event in self.volctl("events")["events"]]


class IscsiArray:
    """A foreign array: one target of tgtd with one LUN."""

    def __init__(self, env, size_bytes):
        need_root("tgtd")
        need_program("tgtd", "tgtadm")
        self.env = env
        self.port = free_port()
        # Another test's array must not look like another path to this one.
        self.target = f"iqn.2001-04.com.example:array{self.port}"
        self.backing = env.file_disk(size_bytes)
        self.control = env.random.randrange(2000, 30000)
        self.process = None
        self.start()

    @property
    def disk(self):
        """As a DISK of volctl."""
        return f"iscsi://127.0.0.1:{self.port}/{self.target}/1"

    def _admin(self, *arguments, status=0):
        return run_command("tgtadm", "--control-port", self.control, "--lld", "iscsi", *arguments,
                           status=status, timeout_s=20)

    def start(self):
        self.process = self.env.spawn(["tgtd", "--foreground", "--control-port", self.control,
                                       "--iscsi", f"portal=127.0.0.1:{self.port}"], "tgtd.log")

        def answers():
            if self.process.poll() is not None:
                raise Skip("tgtd does not start here")
            result = subprocess.run(["tgtadm", "--control-port", str(self.control), "--lld",
                                     "iscsi", "--op", "show", "--mode", "sys"],
                                    capture_output=True, check=False, timeout=20)
            return result.returncode == 0
        wait_until(answers, 20, "tgtd answers", 0.1)
        self._admin("--op", "new", "--mode", "target", "--tid", 1, "-T", self.target)
        self._admin("--op", "new", "--mode", "logicalunit", "--tid", 1, "--lun", 1,
                    "-b", self.backing)
        self._admin("--op", "bind", "--mode", "target", "--tid", 1, "-I", "ALL")

    def freeze(self):
        """It takes connections and answers nothing, as an array that hangs."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        end_process(self.process)


def _watchdog(env, limit_s):
    """Ends a test that hangs, wherever it hangs, with what is known about it."""
    def expired():
        print(f"FAILED: still running after {limit_s} s", file=sys.stderr)
        faulthandler.dump_traceback(file=sys.stderr)
        env.show_logs()
        sys.stderr.flush()
        env.close(failed=True)
        os._exit(1)
    timer = threading.Timer(limit_s, expired)
    timer.daemon = True
    timer.start()
    return timer


def run(test, limit_s=120, long_limit_s=3600):
    """Run a test function and exit."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    for program in ("volmgrd", "volctl"):
        if not os.access(os.path.join(BIN_DIR, program), os.X_OK):
            print(f"FAILED: there is no {program} in {BIN_DIR}")
            sys.exit(1)
    env = Environment(name)
    scale = 5 if SANITIZED else 1
    timer = _watchdog(env, long_limit_s if LONG else limit_s * scale)
    failed = True
    status = 1
    try:
        test(env)
        env.check_logs()
        failed = False
        status = 0
    except Skip as reason:
        status = EXIT_SKIP
        failed = False
        skipped = str(reason)
    except BaseException:
        traceback.print_exc()
        print(f"FAILED (VOLMGR_TEST_SEED={env.seed})", file=sys.stderr)
        env.show_logs()
    timer.cancel()
    env.close(failed)
    if status == EXIT_SKIP:
        print(f"skipped: {skipped}", flush=True)
    sys.exit(status)
