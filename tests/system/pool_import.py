#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Without its state directory a pool is taken over from its disks alone by `volctl pool import`:
nothing that was flushed is lost, and volumes and exports are as they were."""

import shutil

import volmgr_nbd
from volmgr_env import GIB, MIB, check, check_equal, run

ROUNDS = 40  # of writes and a FLUSH; each is a commit that no checkpoint may contain yet


def mark(number):
    return number.to_bytes(4, "little") * 1024


def write_and_flush(env, daemon):
    """Places and what was flushed there."""
    places = {}
    handle = volmgr_nbd.connect(daemon, "p/a")
    for number in range(1, ROUNDS + 1):
        for _ in range(8):
            place = env.random.randrange(4 * GIB // 4096) * 4096
            handle.pwrite(mark(number), place)
            places[place] = number
        discarded = next(iter(places))
        handle.trim(4096, discarded)
        del places[discarded]
        handle.flush()
        places[discarded] = 0
    volmgr_nbd.close(handle)
    return places


def verify(daemon, places):
    handle = volmgr_nbd.connect(daemon, "p/a")
    for place, number in places.items():
        data = bytes(handle.pread(4096, place))
        check(data == mark(number), f"at {place}: not what was flushed in round {number}")
    volmgr_nbd.close(handle)


def check_refused_while_open(env, daemon, disks):
    """As long as a daemon has the disks, nobody takes them over."""
    other = env.daemon("other")
    other.refused("pool", "import", *disks)
    check_equal(other.volctl("pool", "list")["pools"], [], "pools of the other daemon")
    other.stop()
    daemon.volctl("status")


def killed_and_taken_over(env, daemon, disks):
    """What was not flushed may be lost now, which somebody must accept; the rest may not."""
    daemon.kill()
    shutil.rmtree(daemon.state)
    shutil.rmtree(daemon.volatile)
    careful = env.daemon("careful")
    error = careful.refused("pool", "import", *disks, "--force")
    check("--accept-loss" in str(error), f"it does not say how to go on: {error}")
    careful.stop()
    heir = env.daemon("heir", arguments=["--accept-loss"])
    heir.volctl("pool", "import", *disks, "--force")
    return heir


def check_taken_over(heir, before, exports):
    imported = heir.volctl("pool", "show", "p")
    check_equal((imported["pool"], imported["state"]), ("p", "online"), "the imported pool")
    after = {entry["volume"]: entry for entry in heir.volctl("list")["volumes"]}
    check_equal(set(after), set(before), "volumes")
    for name, entry in before.items():
        for field in ("size_bytes", "guid", "sector_bytes"):
            check_equal(after[name][field], entry[field], f"{field} of {name}")
    check_equal(sorted(entry["name"] for entry in heir.volctl("exports")["exports"]), exports,
                "exports")


def overwrite(heir, places):
    handle = volmgr_nbd.connect(heir, "p/a")
    handle.pwrite(mark(77777), 0)
    handle.flush()
    volmgr_nbd.close(handle)
    places[0] = 77777


def test(env):
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}")
    disks = [env.file_disk(400 * MIB), env.file_disk(300 * MIB)]
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", *disks)
    daemon.make_volume("p/a", 4 * GIB)
    daemon.make_volume("p/b", GIB, "--sector", 4096)
    daemon.volctl("rename", "p/b", "c")
    places = write_and_flush(env, daemon)
    before = {entry["volume"]: entry for entry in daemon.volctl("list")["volumes"]}
    exports = sorted(entry["name"] for entry in daemon.volctl("exports")["exports"])
    check_refused_while_open(env, daemon, disks)
    heir = killed_and_taken_over(env, daemon, disks)
    check_taken_over(heir, before, exports)
    verify(heir, places)
    overwrite(heir, places)
    heir.stop()

    # Once more, after an orderly end: then nobody has to accept a loss.
    shutil.rmtree(heir.state)
    shutil.rmtree(heir.volatile)
    last = env.daemon("last")
    last.volctl("pool", "import", *disks)
    check_taken_over(last, before, exports)
    verify(last, places)
    last.restart()
    verify(last, places)
    last.stop()


run(test, limit_s=90)
