# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared: each serves one image over NBD, on one processor.

An image is a file of a given size on tmpfs or on a disk (thin where the kind is thin). Ours is a
pool of one file disk there, and a volume in it.
"""

import glob
import os
import shutil
import signal
import subprocess
import time

from volmgr_env import MIB, check, free_port, run_command, wait_until

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """(parent, user and system time of ended children in ticks)"""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[1]), int(fields[13]) + int(fields[14])


def _clock_s(pid):
    """User and system time of all threads of a process, ended ones included, to the nanosecond:
    the clock that clock_getcpuclockid(3) names."""
    cpuclock_sched = 2
    return time.clock_gettime((~pid << 3) | cpuclock_sched)


def process_cpu_s(pid):
    """Processor time of a process, its children, and those of them that have ended."""
    seconds = _clock_s(pid) + _stat(pid)[1] / CLOCK_TICKS
    for path in glob.glob("/proc/[0-9]*/stat"):
        child = int(path.split("/")[2])
        try:
            if _stat(child)[0] == pid:
                seconds += _clock_s(child)
        except OSError:
            continue  # it has just ended
    return seconds


class Server:
    """One server with one image. `image_bytes`: its size; `folder`: where it is; `direct`: past the
    page cache, where the server can; `tcp`: serve TCP instead of a unix socket."""

    name = ""
    thin = False
    can_direct = False
    needs = ()
    schedule = ()  # a program that gives servers and clients another scheduling class

    def __init__(self, env, number, folder, image_bytes, direct, tcp, cpu):
        self.env = env
        self.folder = os.path.join(folder, f"{self.name}-{number}")
        os.makedirs(self.folder)
        self.image_bytes = image_bytes
        self.direct = direct and self.can_direct
        self.port = free_port() if tcp else None
        self.socket = env.path(f"{self.name[:8]}{number}.s")
        self.prefix = [*self.schedule, "taskset", "--cpu-list", str(cpu)]
        self.process = None

    @classmethod
    def missing(cls):
        """The first program that it needs and that is not there."""
        return next((name for name in cls.needs if not shutil.which(name)), None)

    def image(self, suffix="raw"):
        path = os.path.join(self.folder, f"image.{suffix}")
        with open(path, "wb") as file:
            file.truncate(self.image_bytes)
        return path

    def spawn(self, *arguments):
        self.process = self.env.spawn([*self.prefix, *arguments], f"{self.name}.log")
        wait_until(self.answers, 20, f"{self.name} serves", 0.02)

    def is_running(self):
        return self.process.poll() is None

    def answers(self):
        check(self.is_running(), f"{self.name} does not start")
        result = subprocess.run(["nbdinfo", "--size", self.uri()], capture_output=True, text=True,
                                check=False)
        return result.returncode == 0 and int(result.stdout) >= self.image_bytes

    def export(self):
        return "bench"

    def uri(self):
        if self.port:
            return f"nbd://127.0.0.1:{self.port}/{self.export()}"
        return f"nbd+unix:///{self.export()}?socket={self.socket}"

    def cpu_s(self):
        return process_cpu_s(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        shutil.rmtree(self.folder)


class Ours(Server):
    name = "volmgr"
    thin = True
    can_direct = True  # it decides by itself what its file stands on

    def start(self):
        self.daemon = self.env.daemon(os.path.basename(self.folder), start=False)
        if self.port:
            self.daemon.port = self.port
        self.daemon.launch(self.prefix)
        self.daemon.wait_ready()
        self.process = self.daemon.process
        disk = self.image("disk")
        with open(disk, "r+b") as file:
            file.truncate(self.image_bytes + self.image_bytes // 4 + 512 * MIB)
        self.daemon.volctl("pool", "create", "bench", disk)
        self.daemon.make_volume("bench/volume", self.image_bytes)
        self.socket = self.daemon.nbd_socket

    def export(self):
        return "bench/volume"

    def stop(self):
        self.daemon.stop()
        shutil.rmtree(self.folder)
        shutil.rmtree(self.daemon.state)


class NbdkitFile(Server):
    name = "nbdkit-file"
    needs = ("nbdkit",)

    def start(self):
        listen = ["--port", str(self.port)] if self.port else ["--unix", self.socket]
        self.spawn("nbdkit", "--foreground", *listen, "file", self.image())

    def export(self):
        return ""


class NbdkitMemory(Server):
    name = "nbdkit-memory"
    needs = ("nbdkit",)
    thin = True

    def start(self):
        listen = ["--port", str(self.port)] if self.port else ["--unix", self.socket]
        self.spawn("nbdkit", "--foreground", *listen, "memory", str(self.image_bytes))

    def export(self):
        return ""


class NbdServer(Server):
    name = "nbd-server"
    needs = ("nbd-server",)

    def start(self):
        config = os.path.join(self.folder, "config")
        listen = (f"listenaddr = 127.0.0.1\nport = {self.port}" if self.port
                  else f"port = {free_port()}\nunixsock = {self.socket}")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"[generic]\n{listen}\n[bench]\nexportname = {self.image()}\n"
                       "flush = true\nfua = true\ntrim = true\nmulticonn = true\n")
        # It goes into the background by itself; in the foreground it takes one client only.
        pid_file = os.path.join(self.folder, "pid")
        run_command(*self.prefix, "nbd-server", "-C", config, "-p", pid_file)
        self.pid = wait_until(lambda: self._read_pid(pid_file), 10, "nbd-server notes its id")
        self.env.stack.callback(self._end)
        wait_until(self.answers, 20, f"{self.name} serves", 0.02)

    @staticmethod
    def _read_pid(path):
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return None  # it is about to be written

    def is_running(self):
        try:
            with open(f"/proc/{self.pid}/comm", encoding="ascii") as file:
                return file.read().strip() == "nbd-server"
        except OSError:
            return False

    def _end(self):
        if self.is_running():
            os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: not self.is_running(), 20, "nbd-server ends")

    def cpu_s(self):
        return process_cpu_s(self.pid)

    def stop(self):
        self._end()
        shutil.rmtree(self.folder)


class QemuStorageDaemon(Server):
    needs = ("qemu-storage-daemon",)
    can_direct = True
    format = "raw"

    def start(self):
        path = self.image(self.format)
        if self.format == "qcow2":
            run_command("qemu-img", "create", "-q", "-f", "qcow2", path, self.image_bytes)
        address = (f"addr.type=inet,addr.host=127.0.0.1,addr.port={self.port}" if self.port
                   else f"addr.type=unix,addr.path={self.socket}")
        options = "cache.direct=on,aio=io_uring" if self.direct else "cache.direct=off"
        self.spawn("qemu-storage-daemon",
                   "--blockdev", f"driver=file,node-name=file,filename={path},{options}",
                   "--blockdev", f"driver={self.format},node-name=disk,file=file",
                   "--nbd-server", address, "--export",
                   "type=nbd,id=export,node-name=disk,name=bench,writable=on")


class QemuRaw(QemuStorageDaemon):
    name = "qsd-raw"


class QemuQcow2(QemuStorageDaemon):
    name = "qsd-qcow2"
    format = "qcow2"
    thin = True


ALL = (Ours, NbdkitFile, NbdkitMemory, NbdServer, QemuRaw, QemuQcow2)
BASELINE = NbdkitFile.name
OURS = Ours.name


def versions():
    """What was compared."""
    commands = {"fio": ["fio", "--version"], "nbdkit": ["nbdkit", "--version"],
                "nbd-server": ["nbd-server", "-V"],
                "qemu": ["qemu-storage-daemon", "--version"]}
    found = {}
    for name, command in commands.items():
        if shutil.which(command[0]):
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    text=True, check=False)
            found[name] = result.stdout.strip().splitlines()[0] if result.stdout else "?"
    return found


def settle(seconds):
    """Let replies, flushes and forked servers end before a processor's time is read."""
    time.sleep(seconds)
