#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The NBD target against real clients: libnbd, qemu, nbdcopy, nbdinfo, fio, and a few bad ones.

    clients_test.py FAKE_SERVER [TEST...]

Exit status 77: a client program is not installed.
"""

import json
import os
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

try:
    import nbd
except ImportError:
    print("python3-libnbd is not installed")
    sys.exit(77)

MIB = 1 << 20
SIZE = 64 * MIB
PROGRAMS = ("qemu-img", "qemu-io", "nbdcopy", "nbdinfo", "fio", "certtool", "psktool")


class Server:
    """The server over memory, on a unix socket and a TCP port, for the time of a with block."""

    def __init__(self, folder, *options, reactors=2):
        self.path = os.path.join(folder, f"socket-{time.monotonic_ns()}")
        self.argv = [ARGUMENTS[0], "--listen", "unix:" + self.path, "--listen", "tcp:127.0.0.1:0",
                     "--size", str(SIZE), "--reactors", str(reactors), *options]

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        words = self.process.stdout.readline().split()
        assert words and words[0] == "ready", self.process.stderr.read()
        self.port = int(words[2].rsplit(":", 1)[1])
        return self

    def __exit__(self, kind, value, trace):
        self.process.send_signal(signal.SIGTERM)
        try:
            _, self.errors = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        sys.stderr.write(self.errors)
        assert self.process.returncode == 0, f"exit status {self.process.returncode}"

    def uri(self, export="pool/disk", scheme="nbd"):
        return f"{scheme}+unix:///{export}?socket={self.path}"

    def tcp_uri(self, export="pool/disk", scheme="nbd"):
        return f"{scheme}://127.0.0.1:{self.port}/{export}"

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))

    def is_sanitized(self):
        with open(f"/proc/{self.process.pid}/maps", encoding="ascii") as maps:
            text = maps.read()
        return "libasan" in text or "libtsan" in text


def run(*argv, **options):
    return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, **options).stdout


def connect(uri, contexts=("base:allocation",), **settings):
    handle = nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    for name, value in settings.items():
        getattr(handle, "set_" + name)(value)
    handle.connect_uri(uri)
    return handle


def expect_error(errno_name, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errno == errno_name, f"{error.errno} instead of {errno_name}"
        return
    raise AssertionError(f"{errno_name} was not reported")


def test_libnbd(folder):
    with Server(folder) as server:
        for uri in (server.uri(), server.tcp_uri()):
            handle = connect(uri)
            assert handle.get_size() == SIZE
            assert handle.get_protocol() == "newstyle-fixed"
            assert handle.get_structured_replies_negotiated()
            for feature in ("flush", "fua", "trim", "zero", "fast_zero", "multi_conn", "cache",
                            "df"):
                assert getattr(handle, "can_" + feature)(), feature
            assert not handle.is_read_only()
            assert handle.get_block_size(nbd.SIZE_PREFERRED) == 4096
            assert handle.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB
            data = bytes(random.randrange(1, 256) for _ in range(69632))
            handle.pwrite(data, 5120, nbd.CMD_FLAG_FUA)
            assert handle.pread(len(data), 5120) == bytearray(data)
            handle.zero(65536, 65536)
            assert handle.pread(65536, 65536) == bytearray(65536)
            handle.trim(65536, 131072)
            handle.cache(65536, 0)
            handle.flush()
            chunks = []
            got = handle.pread_structured(
                3 * 65536, 0, lambda part, at, kind, error: chunks.append((at, len(part), kind)))
            assert got[5120:65536] == data[:65536 - 5120]
            assert any(kind == nbd.READ_HOLE for _, _, kind in chunks), chunks
            chunks.clear()
            handle.pread_structured(3 * 65536, 0, lambda part, at, kind, error: chunks.append(kind),
                                    nbd.CMD_FLAG_DF)
            assert chunks == [nbd.READ_DATA]
            handle.shutdown()


def test_libnbd_errors(folder):
    with Server(folder) as server:
        handle = connect(server.uri())
        handle.set_strict_mode(0)
        expect_error("EINVAL", handle.pread, 4096, SIZE)
        expect_error("ENOSPC", handle.pwrite, b"x" * 4096, SIZE - 512)
        expect_error("ENOSPC", handle.zero, 4096, SIZE)
        expect_error("EINVAL", handle.trim, 4096, SIZE)
        assert handle.pread(512, 0) == bytearray(512)
        read_only = connect(server.uri("pool/ro"))
        read_only.set_strict_mode(0)
        expect_error("EPERM", read_only.pwrite, b"x" * 4096, 0)
        expect_error("EPERM", read_only.trim, 4096, 0)
        expect_error("EPERM", read_only.zero, 4096, 0)
        try:
            connect(server.uri("pool/none"))
            raise AssertionError("an unknown export was opened")
        except nbd.Error:
            pass
        listing = nbd.NBD()
        listing.set_opt_mode(True)
        listing.connect_uri(server.uri())
        names = []
        listing.opt_list(lambda name, description: names.append(name) or 0)
        assert names == ["pool/disk", "pool/ro", "pool/4k"], names
        contexts = []
        listing.opt_list_meta_context(lambda name: contexts.append(name) or 0)
        assert contexts == ["base:allocation"]
        listing.opt_abort()


def test_libnbd_queue(folder):
    """Many requests in flight on several connections, replies in any order."""
    with Server(folder) as server:
        handles = [connect(server.uri()) for _ in range(4)]
        source = random.Random(7)
        model = bytearray(SIZE // 4)
        part = len(model) // len(handles)
        pending = []
        for _ in range(400):
            for index, handle in enumerate(handles):
                length = source.choice((512, 4096, 4096, 65536, 300032))
                offset = index * part + source.randrange(0, (part - length) // 512) * 512
                data = source.randbytes(length)
                while handle.aio_in_flight() >= 1:
                    handle.poll(-1)
                model[offset:offset + length] = data
                buffer = nbd.Buffer.from_bytearray(bytearray(data))
                pending.append((handle.aio_pwrite(buffer, offset), buffer))
        for handle in handles:
            while handle.aio_in_flight() > 0:
                handle.poll(-1)
        reads = []
        for handle in handles:
            for offset in range(0, len(model), 1 << 18):
                buffer = nbd.Buffer(1 << 18)
                reads.append((offset, buffer))
                handle.aio_pread(buffer, offset)
        for handle in handles:
            while handle.aio_in_flight() > 0:
                handle.poll(-1)
        for offset, buffer in reads:
            assert buffer.to_bytearray() == model[offset:offset + (1 << 18)], offset
        for handle in handles:
            handle.shutdown()


def test_nbdinfo(folder):
    with Server(folder) as server:
        info = json.loads(run("nbdinfo", "--json", server.uri()))
        export = info["exports"][0]
        assert info["structured"] and export["export-size"] == SIZE
        assert export["can_multi_conn"] and export["contexts"] == ["base:allocation"]
        assert export["block_size_minimum"] == 512 and export["block_size_maximum"] == 32 * MIB
        info = json.loads(run("nbdinfo", "--list", "--json", server.uri("")))
        assert [e["export-name"] for e in info["exports"]] == ["pool/disk", "pool/ro", "pool/4k"]
        assert json.loads(run("nbdinfo", "--json", server.uri("pool/4k")))["exports"][0][
            "block_size_minimum"] == 4096
        assert run("nbdinfo", "--map", server.uri()).split() == ["0", str(SIZE), "3", "hole,zero"]


def read_extents(handle, context):
    """All of a context, as [offset, length, flags]."""
    extents = []
    offset = 0
    while offset < SIZE:
        before = len(extents)

        def collect(name, at, entries, error):
            if name == context:
                for length, flags in zip(entries[0::2], entries[1::2]):
                    extents.append([at, length, flags])
                    at += length
            return 0

        handle.block_status(SIZE - offset, offset, collect)
        assert len(extents) > before
        offset = extents[-1][0] + extents[-1][1]
    return extents


def test_changes(folder):
    """Dirty bitmaps: what a backup program pulls by them is what has changed, and all of it."""
    source = random.Random(3)
    with Server(folder, "--fill", "--snapshot", "monday") as server:
        contexts = ["base:allocation", "qemu:dirty-bitmap:monday", "volmgr:since:monday"]
        handle = connect(server.uri(), contexts=[*contexts, "qemu:dirty-bitmap:tuesday"])
        assert [handle.can_meta_context(c) for c in contexts] == [True] * 3
        assert not handle.can_meta_context("qemu:dirty-bitmap:tuesday")
        full = [handle.pread(MIB, at) for at in range(0, SIZE, MIB)]
        assert read_extents(handle, contexts[1]) == [[0, SIZE, 0]]
        for _ in range(700):
            block = source.randrange(0, SIZE // 4096 - 8)
            handle.pwrite(source.randbytes(4096 * source.randrange(1, 4)), block * 4096)
        handle.zero(MIB, 40 * MIB)
        dirty = read_extents(handle, contexts[1])
        assert len(dirty) > 700
        assert dirty == read_extents(handle, contexts[2])
        assert sum(e[1] for e in read_extents(handle, contexts[0])) == SIZE
        backup = bytearray(b"".join(full))
        pulled = 0
        for offset, length, flags in dirty:
            for at in range(offset, offset + length, MIB) if flags & 1 else ():
                part = min(MIB, offset + length - at)
                backup[at:at + part] = handle.pread(part, at)
                pulled += part
        assert pulled < 8 * MIB, pulled
        for at in range(0, SIZE, MIB):
            assert backup[at:at + MIB] == handle.pread(MIB, at), at
        info = json.loads(run("nbdinfo", "--json", server.uri()))
        assert info["exports"][0]["contexts"] == contexts, info
        lines = run("nbdinfo", "--map=qemu:dirty-bitmap:monday", server.uri()).splitlines()
        mapped = [line.split() for line in lines]
        assert [[int(m[0]), int(m[1]), int(m[2])] for m in mapped] == dirty
        assert {m[3] for m in mapped} == {"clean", "dirty"}
        # QEMU takes dirty for "not data" where it is told to read a bitmap as allocation.
        image = {"driver": "raw", "file": {
            "driver": "nbd", "export": "pool/disk", "x-dirty-bitmap": "qemu:dirty-bitmap:monday",
            "server": {"type": "unix", "path": server.path}}}
        out = json.loads(run("qemu-img", "map", "--output=json", "json:" + json.dumps(image)))
        seen = [[e["start"], e["length"], int(not e["data"])] for e in out]
        assert seen == dirty, (seen[:8], dirty[:8])


def test_qemu(folder):
    with Server(folder) as server:
        script = ["write -P 1 0 4k", "write -P 2 1000 3000", "write -P 3 1M 5M", "discard 2M 1M",
                  "write -z -u 4M 1M", "flush", "read -P 1 0 1000", "read -P 2 1000 3000",
                  "read -P 3 1M 1M", "read -P 0 2M 1M", "read -P 0 4M 1M", "read -P 0 8M 8M"]
        argv = ["qemu-io", "-f", "raw"]
        for command in script:
            argv += ["-c", command]
        out = run(*argv, server.uri())
        assert "Pattern verification failed" not in out, out
        extents = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", server.uri()))
        assert any(e["zero"] and not e["data"] for e in extents), extents
        image = os.path.join(folder, "image.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri(), image)
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri(), image)
        run("qemu-img", "create", "-f", "qcow2", image, str(SIZE))
        run("qemu-io", "-c", "write -P 9 3M 7M", image)
        run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", image, server.uri())
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri(), image)
        # A client that negotiates sectors of 4096.
        out = run("qemu-io", "-f", "raw", "-c", "write -P 5 0 4k", "-c", "read -P 5 0 4k",
                  "-c", "write -P 6 512 512", "-c", "read -P 6 512 512", server.uri("pool/4k"))
        assert "Pattern verification failed" not in out, out


def test_nbdcopy(folder):
    source = os.path.join(folder, "source")
    target = os.path.join(folder, "target")
    with open(source, "wb") as file:
        for i in range(SIZE // MIB):
            file.write(os.urandom(MIB) if i % 3 != 0 else bytes(MIB))
    with Server(folder) as server:
        run("nbdcopy", "--connections=4", "--requests=32", source, server.uri())
        run("nbdcopy", "--connections=4", server.uri(), target)
        with open(source, "rb") as first, open(target, "rb") as second:
            assert first.read() == second.read()
        run("nbdcopy", server.tcp_uri(), target)
        with open(source, "rb") as first, open(target, "rb") as second:
            assert first.read() == second.read()
        zeroes = [line.split() for line in run("nbdinfo", "--map", server.uri()).splitlines()]
        assert sum(int(line[1]) for line in zeroes if line[3] == "hole,zero") >= 15 * MIB, zeroes


def test_fio(folder):
    with Server(folder) as server:
        for block, depth in (("4k", 32), ("64k", 8), ("512", 16)):
            run("fio", "--name=verify", "--ioengine=nbd", "--uri=" + server.uri(),
                "--rw=randwrite", "--bs=" + block, f"--iodepth={depth}", "--size=8M",
                "--verify=crc32c", "--verify_fatal=1", "--output-format=terse", cwd=folder)


def make_certificates(folder):
    """A folder as libnbd and qemu want it: ca-cert.pem, server-*.pem, client-*.pem, keys.psk."""
    def certtool(*arguments):
        subprocess.run(["certtool", *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    templates = {
        "ca": "cn = test\nca\ncert_signing_key\n",
        "server": "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\n"
                  "tls_www_server\nsigning_key\nencryption_key\n",
        "client": "cn = host-one\ntls_www_client\nsigning_key\nencryption_key\n",
    }
    for name, text in templates.items():
        with open(os.path.join(folder, name + ".info"), "w", encoding="ascii") as file:
            file.write(text)
        certtool("--generate-privkey", "--outfile", name + "-key.pem")
    certtool("--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info",
             "--outfile", "ca-cert.pem")
    for name in ("server", "client"):
        certtool("--generate-certificate", "--load-ca-certificate", "ca-cert.pem",
                 "--load-ca-privkey", "ca-key.pem", "--load-privkey", name + "-key.pem",
                 "--template", name + ".info", "--outfile", name + "-cert.pem")
    subprocess.run(["psktool", "-u", "guest", "-p", "keys.psk"], check=True, cwd=folder,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check_data(handle):
    data = os.urandom(5 * MIB)
    handle.pwrite(data, 0)
    assert handle.pread(len(data), 0) == bytearray(data)
    handle.flush()
    handle.shutdown()


def test_tls_certificates(folder):
    make_certificates(folder)
    options = ("--tls", "required", "--ca", "ca-cert.pem", "--cert", "server-cert.pem", "--key",
               "server-key.pem", "--verify")
    options = [os.path.join(folder, o) if o.endswith(".pem") else o for o in options]
    with Server(folder, *options) as server:
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_certificates(folder)
        handle.add_meta_context("base:allocation")
        handle.set_export_name("pool/disk")
        handle.connect_tcp("localhost", str(server.port))
        assert handle.get_tls_negotiated() and handle.get_structured_replies_negotiated()
        check_data(handle)
        for wrong in ("", "psk"):
            try:
                plain = nbd.NBD()
                if wrong == "psk":
                    plain.set_tls(nbd.TLS_REQUIRE)
                    plain.set_tls_psk_file(os.path.join(folder, "keys.psk"))
                    plain.set_tls_username("guest")
                plain.set_export_name("pool/disk")
                plain.connect_tcp("localhost", str(server.port))
                raise AssertionError("let in without a certificate")
            except nbd.Error:
                pass
        creds = f"tls-creds-x509,id=tls0,endpoint=client,dir={folder}"
        out = run("qemu-io", "--object", creds, "-c", "write -P 3 0 3M", "-c", "read -P 3 0 3M",
                  "--image-opts", f"driver=nbd,host=localhost,port={server.port},export=pool/disk,"
                  "tls-creds=tls0")
        assert "Pattern verification failed" not in out, out
        source = os.path.join(folder, "random")
        with open(source, "wb") as file:
            file.write(os.urandom(SIZE))
        uri = f"nbds://localhost:{server.port}/pool/disk?tls-certificates={folder}"
        run("nbdcopy", source, uri)
        run("nbdcopy", uri, source + ".back")
        run("cmp", source, source + ".back")


def test_tls_psk(folder):
    make_certificates(folder)
    keys = os.path.join(folder, "keys.psk")
    with Server(folder, "--tls", "optional", "--psk", keys) as server:
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_psk_file(keys)
        handle.set_tls_username("guest")
        handle.set_export_name("pool/disk")
        handle.connect_unix(server.path)
        assert handle.get_tls_negotiated()
        check_data(handle)
        check_data(connect(server.uri()))
        # qemu wants a folder with the file of this name
        creds = f"tls-creds-psk,id=tls0,endpoint=client,dir={folder},username=guest"
        out = run("qemu-io", "--object", creds, "-c", "write -P 3 0 3M", "-c", "read -P 3 0 3M",
                  "--image-opts", f"driver=nbd,host=127.0.0.1,port={server.port},export=pool/disk,"
                  "tls-creds=tls0")
        assert "Pattern verification failed" not in out, out


def raw_go(path, export=b"pool/disk"):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(20)
    assert client.recv(18, socket.MSG_WAITALL) == b"NBDMAGICIHAVEOPT\0\3"
    go = struct.pack(">I", len(export)) + export + b"\0\0"
    client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(go)) + go)
    while True:
        header = client.recv(20, socket.MSG_WAITALL)
        _, option, kind, length = struct.unpack(">QIII", header)
        assert option == 7
        if length:
            client.recv(length, socket.MSG_WAITALL)
        if kind == 1:
            return client


def test_idle_connections(folder):
    """A thousand idle connections cost little memory, and do not disturb a busy one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with Server(folder) as server:
        warm = raw_go(server.path)
        before = server.memory_kib()
        clients = [raw_go(server.path) for _ in range(1000)]
        after = server.memory_kib()
        for client in clients:  # a burst each, so that buffers have been used
            client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 65536) + bytes(65536))
        for client in clients:
            assert len(client.recv(16, socket.MSG_WAITALL)) == 16
        busy = server.memory_kib()
        time.sleep(8)
        idle = server.memory_kib()
        print(f"1000 idle connections: {after - before} KiB fresh, {busy - before} KiB after a "
              f"burst, {idle - before} KiB when idle again")
        if not server.is_sanitized():  # sanitizers keep memory for themselves
            assert after - before < 16 * 1024
            assert idle - before < 24 * 1024
        handle = connect(server.uri())
        check_data(handle)
        for client in clients:
            client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 2, 0, 512))
        for client in clients:
            assert len(client.recv(16 + 512, socket.MSG_WAITALL)) == 528
            client.close()
        warm.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_hostile(folder):
    """Clients that send noise, stop in the middle or leave: others go on, nothing is left."""
    source = random.Random(11)
    with Server(folder, "--handshake-timeout", "2") as server:
        held = []
        for round_number in range(300):
            client = socket.socket(socket.AF_UNIX)
            client.connect(server.path)
            kind = round_number % 6
            if kind == 0:
                client.sendall(source.randbytes(source.randrange(1, 2000)))
            elif kind == 1:
                client.close()
                client = raw_go(server.path)
                client.sendall(source.randbytes(5000))
            elif kind == 2:
                client.close()
                client = raw_go(server.path)
                client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 1 << 20) + b"x" * 99)
            elif kind == 3:
                client.close()
                client = raw_go(server.path)
                for cookie in range(200):  # and never take the replies
                    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, 0, 65536))
            elif kind == 4:
                client.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0\xff\xff" + bytes(100))
            if source.random() < 0.8:
                try:
                    client.close()
                except OSError:
                    pass
            else:
                held.append(client)
        check_data(connect(server.uri()))
        time.sleep(3)
        check_data(connect(server.tcp_uri()))
        for client in held:
            client.close()


def main():
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        print("not installed:", *missing)
        return 77
    wanted = ARGUMENTS[1:]
    failed = 0
    for name, function in sorted(globals().items()):
        if not name.startswith("test_") or (wanted and name[5:] not in wanted):
            continue
        print(f"[ RUN  ] {name[5:]}", flush=True)
        with tempfile.TemporaryDirectory(prefix="nbd-clients-") as folder:
            try:
                function(folder)
                print(f"[   OK ] {name[5:]}", flush=True)
            except subprocess.CalledProcessError as error:
                print(f"[ FAIL ] {name[5:]}: {error}\n{error.stdout}", flush=True)
                failed += 1
            except Exception as error:  # each test stands alone
                print(f"[ FAIL ] {name[5:]}: {type(error).__name__}: {error}", flush=True)
                failed += 1
    return 1 if failed else 0


ARGUMENTS = sys.argv[1:]
if __name__ == "__main__":
    sys.exit(main())
