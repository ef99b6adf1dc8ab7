# SPDX-License-Identifier: Apache-2.0
"""NBD clients for the tests: handles of libnbd, a loop over several, an oracle of contents.

The oracle knows of every sector of some windows of a volume what it must hold: after an
acknowledged operation exactly that, after an operation whose fate is unknown (its connection died)
the old or the new. Sectors say by themselves to which volume, place and write they belong, so that
a wrong one can be explained.
"""

import contextlib
import errno
import select
import struct
import zlib

from volmgr_env import Skip, check

try:
    import nbd
except ImportError:
    nbd = None

SECTOR_BYTES = 512
BLOCK_SECTORS = 8  # 4 KiB: unit of validity, and of what a discard zeroes for sure
_HEADER = struct.Struct("<4sIQQI4x")
_MAGIC = b"VMSE"


def need_libnbd():
    if nbd is None:
        raise Skip("there is no python3-libnbd for this interpreter")
    return nbd


def connect(daemon, volume, tcp=False):
    """A connected handle."""
    need_libnbd()
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri(volume, tcp))
    return handle


def error_code(function, *arguments, **options):
    """errno of the nbd.Error that the call raises; 0 when it raises none."""
    try:
        function(*arguments, **options)
    except nbd.Error as error:
        return error.errnum or errno.EIO
    return 0


def close(*handles):
    for handle in handles:
        with contextlib.suppress(nbd.Error):
            handle.shutdown()


def is_usable(handle):
    return not (handle.aio_is_dead() or handle.aio_is_closed())


def pump(handles, timeout_ms):
    """Move what can be moved on all usable handles. False: none is usable."""
    poller = select.poll()
    by_descriptor = {}
    for handle in handles:
        if not is_usable(handle):
            continue
        direction = handle.aio_get_direction()
        events = 0
        if direction & nbd.AIO_DIRECTION_READ:
            events |= select.POLLIN
        if direction & nbd.AIO_DIRECTION_WRITE:
            events |= select.POLLOUT
        descriptor = handle.aio_get_fd()
        by_descriptor[descriptor] = handle
        poller.register(descriptor, events)
    if not by_descriptor:
        return False
    for descriptor, events in poller.poll(timeout_ms):
        handle = by_descriptor[descriptor]
        with contextlib.suppress(nbd.Error):
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                handle.aio_notify_read()
            elif events & select.POLLOUT:
                handle.aio_notify_write()
    return True


# ---- self-describing sectors ----

def make_sectors(volume_number, first_sector, count, version):
    """Contents of `count` sectors as written by write number `version`."""
    parts = []
    for sector in range(first_sector, first_sector + count):
        head = _HEADER.pack(_MAGIC, volume_number, sector, version, 0)
        parts.append(_HEADER.pack(_MAGIC, volume_number, sector, version, zlib.crc32(head)) * 16)
    return b"".join(parts)


def explain_sector(data):
    """What a sector says about itself."""
    if data == bytes(SECTOR_BYTES):
        return "zeroes"
    magic, volume_number, sector, version, crc = _HEADER.unpack_from(data)
    head = _HEADER.pack(magic, volume_number, sector, version, 0)
    if magic != _MAGIC or zlib.crc32(head) != crc:
        return f"garbage {data[:16].hex()}"
    torn = "" if data == data[:_HEADER.size] * 16 else ", torn within the sector"
    return f"volume {volume_number} sector {sector} write {version}{torn}"


class Operation:
    """One write, zeroing or discard of a window, from its submission to its fate."""

    __slots__ = ("kind", "window", "first", "count", "version", "data")

    def __init__(self, kind, window, first, count, version, data):
        self.kind = kind
        self.window = window
        self.first = first
        self.count = count
        self.version = version
        self.data = data

    def overlaps(self, first, count):
        return self.first < first + count and first < self.first + self.count


class Window:
    """A range of a volume; offset and length in sectors."""

    def __init__(self, offset, length):
        self.offset = offset
        self.length = length
        self.image = bytearray(length * SECTOR_BYTES)  # what is known
        self.doubts = {}  # sector -> contents that it may hold besides
        self.undone = {}  # sector -> [(clock, content)]: what an unflushed change overwrote
        self.in_flight = []

    def is_busy(self, first, count):
        return any(operation.overlaps(first, count) for operation in self.in_flight)


class Oracle:
    """Knows what the windows of one volume must hold."""

    def __init__(self, volume_number, windows, may_lose=False):
        """`windows`: list of (offset, length) in sectors, apart from each other. `may_lose`:
        remember what a loss of unflushed changes would bring back, for accept_loss()."""
        self.volume_number = volume_number
        self.windows = [Window(offset, length) for offset, length in windows]
        self.may_lose = may_lose
        self.version = 0
        self.acknowledged = 0
        self.lost = 0
        self.clock = 0  # completed changes
        self.flushed = 0  # changes that had completed when the last good flush was sent

    def begin(self, kind, window, first, count):
        """An operation about to be sent. "write", "zero" or "trim"; None: it would overlap one in
        flight."""
        if window.is_busy(first, count):
            return None
        self.version += 1
        if kind == "write":
            data = make_sectors(self.volume_number, window.offset + first, count, self.version)
        else:
            data = bytes(count * SECTOR_BYTES)
        operation = Operation(kind, window, first, count, self.version, data)
        window.in_flight.append(operation)
        return operation

    def _may_be_kept(self, operation, sector):
        """A discard may leave a block alone that it does not cover."""
        if operation.kind != "trim":
            return False
        place = operation.window.offset + sector
        block = place - place % BLOCK_SECTORS - operation.window.offset
        return (block < operation.first
                or block + BLOCK_SECTORS > operation.first + operation.count)

    def end(self, operation, succeeded):
        window = operation.window
        if operation not in window.in_flight:
            return  # abandoned before
        window.in_flight.remove(operation)
        self.acknowledged += succeeded
        self.lost += not succeeded
        self.clock += 1
        for index in range(operation.count):
            sector = operation.first + index
            place = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            new = operation.data[index * SECTOR_BYTES:(index + 1) * SECTOR_BYTES]
            if succeeded and not self._may_be_kept(operation, sector):
                if self.may_lose:
                    self._remember(window, sector)
                window.image[place] = new
                window.doubts.pop(sector, None)
            else:
                window.doubts.setdefault(sector, []).append(new)

    def _remember(self, window, sector):
        """What this sector held before the change that has just completed."""
        place = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
        undone = [item for item in window.undone.get(sector, ()) if item[0] > self.flushed]
        undone.append((self.clock, bytes(window.image[place])))
        undone += [(self.clock, content) for content in window.doubts.get(sector, ())]
        window.undone[sector] = undone

    def flush_sent(self):
        """To be handed to flush_done() when that flush has succeeded."""
        return self.clock

    def flush_done(self, mark):
        self.flushed = max(self.flushed, mark)

    def accept_loss(self):
        """Changes that no flush has covered may be undone, each for itself."""
        for window in self.windows:
            for sector, undone in window.undone.items():
                contents = [content for clock, content in undone if clock > self.flushed]
                if contents:
                    window.doubts.setdefault(sector, []).extend(contents)
            window.undone.clear()

    def verify(self, window, first, data):
        """Compare what was read with what may be there; from then on it is what must be there."""
        start = first * SECTOR_BYTES
        check(not window.is_busy(first, len(data) // SECTOR_BYTES), "verified while written")
        if window.image[start:start + len(data)] != data:
            self._verify_slowly(window, first, data)
        if window.doubts:
            for sector in range(first, first + len(data) // SECTOR_BYTES):
                window.doubts.pop(sector, None)

    def _verify_slowly(self, window, first, data):
        problems = []
        for index in range(len(data) // SECTOR_BYTES):
            sector = first + index
            place = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            got = bytes(data[index * SECTOR_BYTES:(index + 1) * SECTOR_BYTES])
            if window.image[place] == got:
                continue
            if got in window.doubts.get(sector, ()):
                window.image[place] = got
                continue
            allowed = [explain_sector(bytes(window.image[place]))]
            allowed += [explain_sector(item) for item in window.doubts.get(sector, ())]
            problems.append(f"sector {window.offset + sector} of volume {self.volume_number}: "
                            f"read {explain_sector(got)}; allowed: {', or '.join(allowed)}")
        check(not problems, f"{len(problems)} wrong sectors:\n" + "\n".join(problems[:20]))

    def verify_all(self, handle):
        """Read and compare every window."""
        for window in self.windows:
            data = handle.pread(window.length * SECTOR_BYTES, window.offset * SECTOR_BYTES)
            self.verify(window, 0, data)


class Traffic:
    """Random operations of one oracle's volume over several connections, many at a time.

    Kinds and their weights: write, zero, trim, read, flush.
    """

    WEIGHTS = {"write": 60, "zero": 6, "trim": 6, "read": 20, "flush": 4}

    def __init__(self, oracle, handles, random, depth=16, sectors_max=256, weights=None):
        self.oracle = oracle
        self.handles = handles
        self.random = random
        self.depth = depth
        self.sectors_max = sectors_max
        weights = weights or self.WEIGHTS
        self.kinds = list(weights)
        self.weights = list(weights.values())
        self.outstanding = {id(handle): 0 for handle in handles}
        self.failure = None
        self.errors = {}  # errno -> count, of operations that failed
        self.completed = 0

    def _size(self):
        # Small ones often, large ones sometimes; aligned to blocks three times in four.
        random = self.random
        count = min(self.sectors_max, 1 << random.randrange(0, 12))
        count = random.randrange(1, count + 1)
        if random.random() < 0.75:
            count = max(BLOCK_SECTORS, count - count % BLOCK_SECTORS)
        return count

    def _done(self, handle, operation, code):
        self.outstanding[id(handle)] = max(0, self.outstanding[id(handle)] - 1)
        self.completed += 1
        if code:
            self.errors[code] = self.errors.get(code, 0) + 1
        if operation is not None:
            self.oracle.end(operation, code == 0)
        return 1

    def submit(self, handle):
        """One more operation on this connection, if there is room."""
        random = self.random
        kind = random.choices(self.kinds, self.weights)[0]
        window = random.choice(self.oracle.windows)
        count = min(self._size(), window.length)
        first = random.randrange(0, window.length - count + 1)
        if count % BLOCK_SECTORS == 0:
            first -= first % BLOCK_SECTORS
        if kind == "flush":
            self._submit_flush(handle)
        elif kind == "read":
            self._submit_read(handle, window, first, count)
        else:
            self._submit_change(handle, kind, window, first, count)

    def _submit_flush(self, handle):
        self.outstanding[id(handle)] += 1
        mark = self.oracle.flush_sent()

        def completed(error):
            if error.value == 0:
                self.oracle.flush_done(mark)
            return self._done(handle, None, error.value)
        handle.aio_flush(completion=completed)

    def _submit_read(self, handle, window, first, count):
        # A range that nobody changes meanwhile: what is in flight is known when the answer comes.
        if window.is_busy(first, count):
            return
        reading = Operation("read", window, first, count, 0, b"")
        window.in_flight.append(reading)
        buffer = nbd.Buffer(count * SECTOR_BYTES)

        def completed(error):
            if reading not in window.in_flight:
                return 1
            window.in_flight.remove(reading)
            if error.value == 0:
                try:
                    self.oracle.verify(window, first, bytes(buffer.to_bytearray()))
                except AssertionError as failure:
                    self.failure = self.failure or failure
            return self._done(handle, None, error.value)
        self.outstanding[id(handle)] += 1
        handle.aio_pread(buffer, (window.offset + first) * SECTOR_BYTES, completion=completed)

    def _submit_change(self, handle, kind, window, first, count):
        operation = self.oracle.begin(kind, window, first, count)
        if operation is None:
            return
        offset = (window.offset + first) * SECTOR_BYTES
        length = count * SECTOR_BYTES
        fua = nbd.CMD_FLAG_FUA if self.random.random() < 0.03 else 0

        def completed(error):
            return self._done(handle, operation, error.value)
        self.outstanding[id(handle)] += 1
        if kind == "write":
            handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(operation.data)), offset,
                              completion=completed, flags=fua)
        elif kind == "zero":
            hole = nbd.CMD_FLAG_NO_HOLE if self.random.random() < 0.3 else 0
            handle.aio_zero(length, offset, completion=completed, flags=fua | hole)
        else:
            handle.aio_trim(length, offset, completion=completed, flags=fua)

    def step(self, timeout_ms=100):
        """Fill all connections and move what can be moved. False: no connection is left."""
        for handle in self.handles:
            tries = 2 * self.depth
            while is_usable(handle) and self.outstanding[id(handle)] < self.depth and tries > 0:
                tries -= 1
                try:
                    self.submit(handle)
                except nbd.Error:
                    break  # it has just died; the completions tell
        moved = pump(self.handles, timeout_ms)
        if self.failure:
            raise self.failure
        return moved

    def drain(self):
        """Wait for everything in flight."""
        while any(self.outstanding.values()):
            if not pump(self.handles, 1000):
                break
        if self.failure:
            raise self.failure

    def abandon(self):
        """The connections are dead: what was in flight has an unknown fate."""
        for window in self.oracle.windows:
            for operation in list(window.in_flight):
                if operation.kind == "read":
                    window.in_flight.remove(operation)
                else:
                    self.oracle.end(operation, False)
        for handle in self.handles:
            self.outstanding[id(handle)] = 0
        if self.failure:
            raise self.failure
