#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A file system on a volume (ext4 through nbdfuse and a loop device) keeps its files over remounts,
discards and a restart of the daemon, and fsck finds nothing."""

import hashlib
import os
import shutil
import subprocess

from volmgr_disks import mixed_disks
from volmgr_env import MIB, Skip, check, check_equal, need_program, need_root, run, run_command
from volmgr_env import wait_until

FILES = 60


class LoopOverNbd:
    """The volume as a block device of this machine: nbdfuse shows it as a file, loop makes it a
    device. close() undoes both."""

    def __init__(self, env, daemon, volume):
        self.folder = env.path("fuse")
        os.makedirs(self.folder, exist_ok=True)
        self.file = os.path.join(self.folder, "volume")
        self.device = None
        self.process = env.spawn(["nbdfuse", self.file, daemon.uri(volume)], "nbdfuse.log")
        env.stack.callback(self.close)

        def shown():
            if self.process.poll() is not None:
                with open(env.path("nbdfuse.log"), encoding="utf-8") as log:
                    raise Skip(f"nbdfuse cannot mount here: {log.read().strip()[-300:]}")
            return os.path.exists(self.file)
        wait_until(shown, 20, "nbdfuse shows the volume")
        result = subprocess.run(["losetup", "--find", "--show", self.file], capture_output=True,
                                text=True, check=False)
        if result.returncode != 0:
            raise Skip(f"no loop device: {result.stderr.strip()}")
        self.device = result.stdout.strip()

    def close(self):
        if self.device:
            subprocess.run(["losetup", "--detach", self.device], check=False)
            self.device = None
        if self.process.poll() is None:
            subprocess.run(["umount", self.folder], check=False, stderr=subprocess.DEVNULL)
            self.process.wait(30)


class Mounted:
    def __init__(self, env, device):
        self.folder = env.path("mounted")
        os.makedirs(self.folder, exist_ok=True)
        result = subprocess.run(["mount", "-o", "discard", device, self.folder], check=False,
                                capture_output=True, text=True)
        if result.returncode != 0:
            raise Skip(f"cannot mount ext4 here: {result.stderr.strip()}")

    def __enter__(self):
        return self.folder

    def __exit__(self, *ignored):
        run_command("umount", self.folder)


def fill(env, folder, digests):
    for number in range(FILES):
        data = env.random.randbytes(env.random.randrange(1, 700000))
        name = f"file{number}"
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
            if number % 5 == 0:
                file.flush()
                os.fsync(file.fileno())
        digests[name] = hashlib.sha256(data).hexdigest()
    for number in range(0, FILES, 4):
        os.unlink(os.path.join(folder, f"file{number}"))
        del digests[f"file{number}"]


def verify(folder, digests):
    names = set(os.listdir(folder)) - {"lost+found"}
    check_equal(names, set(digests), "files")
    for name, digest in digests.items():
        with open(os.path.join(folder, name), "rb") as file:
            check_equal(hashlib.sha256(file.read()).hexdigest(), digest, f"content of {name}")


def test(env):
    need_root("mounting")
    need_program("nbdfuse", "losetup", "mkfs.ext4", "e2fsck")
    if not os.path.exists("/dev/fuse"):
        raise Skip("there is no /dev/fuse")
    env.say(f"seed {env.seed}")
    daemon = env.daemon()
    disks, pool_bytes = mixed_disks(env)
    daemon.volctl("pool", "create", "p", *disks)
    daemon.make_volume("p/v", 10 * pool_bytes)
    digests = {}
    loop = LoopOverNbd(env, daemon, "p/v")
    run_command("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", loop.device)
    for _ in range(2):
        with Mounted(env, loop.device) as folder:
            fill(env, folder, digests)
            verify(folder, digests)
        run_command("e2fsck", "-f", "-n", loop.device)
        loop.close()
        daemon.restart()
        loop = LoopOverNbd(env, daemon, "p/v")
        run_command("e2fsck", "-f", "-n", loop.device)
        with Mounted(env, loop.device) as folder:
            verify(folder, digests)
    with Mounted(env, loop.device) as folder:
        for name in digests:
            os.unlink(os.path.join(folder, name))
        before = daemon.volctl("show", "p/v")["mapped_bytes"]
        if shutil.which("fstrim"):
            run_command("fstrim", folder)
    loop.close()
    after = daemon.volctl("show", "p/v")["mapped_bytes"]
    env.say(f"mapped {before // MIB} MiB, after fstrim {after // MIB} MiB")
    check(after < before, "fstrim gave no space back")
    daemon.stop()


run(test, limit_s=120)
