# SPDX-License-Identifier: Apache-2.0
"""A virtual machine with Debian's kernel and busybox, whose disk is a volume (QEMU, software
emulation: it needs no rights and runs everywhere)."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

from volmgr_env import SOURCE_DIR, Skip, check, need_program, run_command

MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
BOOT_TIMEOUT_S = 120


class GuestKernel:
    """Debian's kernel as scripts/fetch-guest-kernel.sh leaves it."""

    def __init__(self):
        need_program("qemu-system-x86_64", "busybox", "cpio")
        script = os.path.join(SOURCE_DIR, "scripts", "fetch-guest-kernel.sh")
        result = subprocess.run([script, "--offline"], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise Skip(f"no guest kernel: {result.stderr.strip()}")
        self.folder = result.stdout.strip()
        self.image = os.path.join(self.folder, "vmlinuz")
        self.dependencies = {}
        modules = os.path.join(self.folder, "modules")
        with open(os.path.join(modules, "modules.dep"), encoding="ascii") as file:
            for line in file:
                path, _, needs = line.partition(":")
                name = os.path.basename(path).split(".")[0].replace("-", "_")
                self.dependencies[name] = [os.path.join(modules, item)
                                           for item in (*reversed(needs.split()), path)]

    def module_files(self, names):
        """Files in the order in which they must be loaded; built-in ones need none."""
        files = []
        for name in names:
            files += [path for path in self.dependencies.get(name, ()) if path not in files]
        return files


def make_initramfs(env, kernel, init_script):
    """Busybox, the modules, and an /init that loads them and then is `init_script`."""
    root = env.path("initramfs")
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("bin", "modules", "proc", "sys", "dev", "volume"):
        os.makedirs(os.path.join(root, folder))
    shutil.copy(shutil.which("busybox"), os.path.join(root, "bin", "busybox"))
    loads = []
    for path in kernel.module_files(MODULES):
        shutil.copy(path, os.path.join(root, "modules"))
        loads.append(f"insmod /modules/{os.path.basename(path)}")
    script = "\n".join(["#!/bin/busybox sh", "/bin/busybox --install -s /bin", "export PATH=/bin",
                        "mount -t proc proc /proc", "mount -t sysfs sysfs /sys",
                        "mount -t devtmpfs dev /dev", *loads, init_script, "poweroff -f", ""])
    init = os.path.join(root, "init")
    with open(init, "w", encoding="utf-8") as file:
        file.write(script)
    os.chmod(init, 0o755)
    archive = env.path("initramfs.cpio")
    names = [os.path.relpath(os.path.join(folder, name), root)
             for folder, folders, files in os.walk(root) for name in (*folders, *files)]
    with open(archive, "wb") as output:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, stdout=output,
                       input="\n".join(sorted(names)).encode(), check=True)
    return archive


def volume_drive(daemon, volume, device_options=""):
    """A volume as a disk of a guest."""
    return ({"driver": "nbd", "export": volume, "discard": "unmap",
             "server": {"type": "unix", "path": daemon.nbd_socket}}, device_options)


def file_drive(path, device_options=""):
    """A file as a disk of a guest."""
    return {"driver": "file", "filename": path, "discard": "unmap"}, device_options


class Guest:
    """QEMU with these drives as /dev/vda, /dev/vdb, ...; its console is a file, its monitor a
    socket."""

    def __init__(self, env, init_script, *drives, memory_mib=256):
        kernel = GuestKernel()
        self.env = env
        self.console = env.path("console")
        self.monitor_path = env.path("qmp")
        self.events = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.console)
        self.process = env.spawn([
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-m", str(memory_mib),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", kernel.image, "-initrd", make_initramfs(env, kernel, init_script),
            "-append", "console=ttyS0 panic=-1 quiet nokaslr mitigations=off",
            "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
            "-qmp", f"unix:{self.monitor_path},server=on,wait=off",
            *self._drive_arguments(drives)], "qemu.log")
        self.monitor = None
        self._connect()

    @staticmethod
    def _drive_arguments(drives):
        arguments = []
        for number, (block_device, options) in enumerate(drives):
            node = {"node-name": f"disk{number}", **block_device}
            arguments += ["-blockdev", json.dumps(node),
                          "-device", f"virtio-blk-pci,drive=disk{number}{options}"]
        return arguments

    def _connect(self):
        deadline = time.monotonic() + 20
        while True:
            check(self.process.poll() is None, "QEMU does not start")
            self.monitor = socket.socket(socket.AF_UNIX)
            try:
                self.monitor.connect(self.monitor_path)
                break
            except OSError:
                check(time.monotonic() < deadline, "QEMU's monitor does not answer")
                time.sleep(0.05)
        self.lines = self.monitor.makefile("r", encoding="utf-8")
        self.lines.readline()  # greeting
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        """The answer of a monitor command; events on the way are kept."""
        self.monitor.settimeout(30)
        self.monitor.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)
                continue
            check("return" in answer, f"QEMU refuses {name}: {answer}")
            return answer["return"]

    def said(self):
        with contextlib.suppress(OSError), open(self.console, encoding="utf-8",
                                                errors="replace") as file:
            return file.read().replace("\r", "")
        return ""

    def wait_for(self, text, timeout_s=BOOT_TIMEOUT_S):
        deadline = time.monotonic() + timeout_s
        while text not in self.said():
            running = self.process.poll() is None
            check(running or text in self.said(), f"QEMU ended before '{text}':\n{self.said()}")
            check(time.monotonic() < deadline, f"the guest does not say '{text}':\n{self.said()}")
            time.sleep(0.1)

    def wait_end(self, timeout_s=BOOT_TIMEOUT_S):
        status = self.process.wait(timeout_s)
        check(status == 0, f"QEMU ended with status {status}:\n{self.said()}")

    def status(self):
        return self.command("query-status")["status"]


def make_ext4_image(env, folder, size_bytes):
    """An ext4 file system with the content of a folder, as a file."""
    need_program("mkfs.ext4")
    image = env.path("root.ext4")
    with open(image, "wb") as file:
        file.truncate(size_bytes)
    run_command("mkfs.ext4", "-q", "-F", "-d", folder, image)
    return image
