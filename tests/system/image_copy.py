#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qemu-img copies images in and out with identical bytes, holes stay holes, and both qemu-img and
nbdcopy see which parts are allocated."""

import json

from volmgr_disks import mixed_disks
from volmgr_env import KIB, MIB, check, check_equal, need_program, run, run_command

IMAGE_BYTES = 512 * MIB


def make_image(env, path):
    """Sparse: data in odd places, explicit zeroes in others, holes elsewhere."""
    data_bytes = 0
    with open(path, "wb") as file:
        file.truncate(IMAGE_BYTES)
        for _ in range(100):
            length = env.random.choice((512, 4 * KIB, 60 * KIB, 512 * KIB, 1 * MIB))
            place = env.random.randrange(0, (IMAGE_BYTES - length) // 512) * 512
            file.seek(place)
            file.write(env.random.randbytes(length) if env.random.random() < 0.8
                       else bytes(length))
            data_bytes += length
        file.seek(IMAGE_BYTES - 512)
        file.write(env.random.randbytes(512))
    return data_bytes


def allocated_bytes(uri):
    ranges = json.loads(run_command("qemu-img", "map", "--output=json", "-f", "raw", uri))
    check_equal(sum(part["length"] for part in ranges), IMAGE_BYTES, "length of the map")
    return sum(part["length"] for part in ranges if part["data"])


def test(env):
    need_program("qemu-img", "nbdcopy", "nbdinfo")
    env.say(f"seed {env.seed}")
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", *mixed_disks(env)[0])
    for name in ("a", "b", "c"):
        daemon.make_volume(f"p/{name}", IMAGE_BYTES)
    image = env.path("image.raw")
    data_bytes = make_image(env, image)
    qcow2 = env.path("image.qcow2")
    run_command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, qcow2)

    run_command("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", qcow2,
                daemon.uri("p/a"))
    run_command("qemu-img", "compare", "-f", "raw", "-F", "raw", image, daemon.uri("p/a"))
    run_command("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-m", 8, "-W",
                daemon.uri("p/a"), daemon.uri("p/b", tcp=True))
    run_command("nbdcopy", daemon.uri("p/b"), daemon.uri("p/c"))
    daemon.restart()
    copy = env.path("copy.raw")
    run_command("qemu-img", "convert", "-f", "raw", "-O", "raw", daemon.uri("p/c"), copy)
    run_command("cmp", image, copy)
    for name in ("a", "b", "c"):
        run_command("qemu-img", "compare", "-f", "raw", "-F", "raw", image,
                    daemon.uri(f"p/{name}"))
        mapped = daemon.volctl("show", f"p/{name}")["mapped_bytes"]
        shown = allocated_bytes(daemon.uri(f"p/{name}"))
        env.say(f"p/{name}: {data_bytes // KIB} KiB of data, {mapped // KIB} KiB mapped, "
                f"{shown // KIB} KiB shown as data")
        check(shown <= mapped, "a host is shown more data than the volume holds")
        check(mapped < 8 * data_bytes, "holes were not kept")
    check("base:allocation" in run_command("nbdinfo", daemon.uri("p/a")),
          "nbdinfo does not see base:allocation")
    daemon.stop()


run(test, limit_s=90)
