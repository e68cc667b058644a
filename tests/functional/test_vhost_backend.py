"""vhost/ on its own: sockets, queues, features, what a port says of itself, and its end while traffic flows."""
import array
import os
import pwd
import random as dice
import resource
import socket
import stat
import struct
import subprocess
import time

import pytest

from vguest import Backend, Guest, Refused, wait_for

MAC_A, MAC_B = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
RING_PACKED, VERSION_1, IN_ORDER, EVENT_IDX, INDIRECT, MRG, MQ, MTU = 34, 32, 35, 29, 28, 15, 22, 3
CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6 = 0, 1, 7, 8, 11, 12
NEVER = [9, 10, 13, 14, 6]  # GUEST_ECN, GUEST_UFO, HOST_ECN, HOST_UFO, GSO


def frame(payload=b"", size=60):
    return (MAC_A + MAC_B + b"\x88\xb5" + payload).ljust(size, b"\0")


def echoed(sent):
    return sent[6:12] + sent[0:6] + sent[12:]


def has(features, bit):
    return bool(features >> bit & 1)


@pytest.fixture
def backend():
    with Backend() as b:
        yield b.ready()
        assert b.quit() == 0, b.log_text()


@pytest.fixture
def sock(tmp_path):
    return tmp_path / "vm1.sock"


def ping(guest, queue=0, count=20):
    """Sends distinct frames of growing size and expects each back once, in order."""
    frames = [frame(struct.pack("!I", i), 60 + 70 * i) for i in range(count)]
    for f in frames:
        assert guest.tx(0, f, queue) == 1
    got = guest.rx(0, count)
    assert [data for _, _, _, data in got] == [echoed(f) for f in frames]
    assert {q for q, _, _, _ in got} == {queue}


@pytest.mark.parametrize("ring", ["packed=0", "packed=1", "packed=0,in_order=0", "packed=1,in_order=0", "packed=0,mrg=0",
                                  "packed=1,mrg=0"])
@pytest.mark.parametrize("server", [False, True])
def test_echo(backend, sock, server, ring):
    backend.open("vm1", sock, "packed", *(["server"] if server else []))
    with Guest(f"path={sock},server={int(not server)},{ring}") as guest:
        guest.ready()
        status = backend.wait("vm1", running=True)
        assert status["problem"] == "" and status["connects"] == 1 and status["rx_queues"] == status["tx_queues"] == 1
        assert has(status["features"], RING_PACKED) == ("packed=1" in ring)
        assert has(status["features"], MRG) == ("mrg=0" not in ring)
        assert has(status["features"], IN_ORDER) == ("in_order=0" not in ring)
        # Without mergeable buffers a packet has to fit one of the guest's, 2 KB here.
        ping(guest, count=100 if "mrg=0" not in ring else 20)
        assert backend.problem("vm1") == ""
    backend.wait("vm1", connected=False, running=False, rx_enabled=0, tx_enabled=0, features=0)


@pytest.mark.parametrize("packed", [0, 1])
def test_queues_come_and_go(backend, sock, packed):
    backend.open("vm1", sock, "queues=4", "packed")
    with Guest(f"path={sock},server=1,queues=4,packed={packed},use=1") as guest:
        guest.ready()
        for n in (1, 4, 2, 3, 1):
            guest.queues(0, n)
            backend.wait("vm1", rx_enabled=(1 << n) - 1, tx_enabled=(1 << n) - 1, rx_queues=n, running=True)
            for q in range(n):
                ping(guest, q)


def test_features_as_configured(backend, tmp_path):
    def features(*options):
        path = tmp_path / f"{len(os.listdir(tmp_path))}.sock"
        backend.open("x", path, *options)
        # What is offered, asked as a front-end does.
        with FrontEnd(path) as front_end:
            offered = front_end.get(1)
        backend.close("x")
        return offered

    every = features("packed", "queues=2")
    for bit in (RING_PACKED, VERSION_1, IN_ORDER, EVENT_IDX, INDIRECT, MRG, MQ, MTU, CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6,
                HOST_TSO4, HOST_TSO6):
        assert has(every, bit), bit
    for bit in NEVER:
        assert not has(every, bit), bit
    plain = features()
    assert has(plain, MTU) and not any(has(plain, bit) for bit in (RING_PACKED, MQ))
    no_tso = features("notso")
    assert has(no_tso, CSUM) and has(no_tso, GUEST_CSUM)
    assert not any(has(no_tso, bit) for bit in (GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6))
    no_csum = features("nocsum")
    assert not any(has(no_csum, bit) for bit in (CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6))


def test_offloads_pass(backend, sock):
    """A partial checksum and a large TCP segment come back as they were sent."""
    backend.open("vm1", sock)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 6, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    tcp = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 2, 0x50, 0x10, 100, 0x1234, 0)
    small = MAC_A + MAC_B + b"\x08\x00" + ip[:2] + struct.pack("!H", 140) + ip[4:] + tcp + bytes(100)
    large = MAC_A + MAC_B + b"\x08\x00" + ip[:2] + struct.pack("!H", 30040) + ip[4:] + tcp + bytes(30000)
    with Guest(f"path={sock},server=1") as guest:
        guest.ready()
        guest.tx(0, small, csum=(34, 16))
        guest.tx(0, large, csum=(34, 16), tso=(1448, 54))
        first, second = guest.rx(0, 2)
    # The library writes the sum over the pseudo-header, which is what a partial checksum starts from.
    total = sum(struct.unpack("!6H", bytes([10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 120])))
    assert struct.unpack("!H", first[3][50:52])[0] == (total & 0xffff) + (total >> 16)
    assert first[1] == {"p"} and first[3][14:50] + first[3][52:] == small[14:50] + small[52:]
    assert second[1] == {"p", "l"} and second[2] == 1448 and len(second[3]) == len(large)


def test_late_socket(backend, sock):
    """From listen() to the connection."""
    backend.open("vm1", sock)
    wait_for(lambda: "does not exist" in backend.problem("vm1"))
    times = []
    for delay in (0, 0, 0.01, 0.5, 1.5):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(sock))
            time.sleep(delay)
            listener.listen(1)
            start = time.monotonic()
            listener.settimeout(5)
            connection, _ = listener.accept()
            times.append(time.monotonic() - start)
            connection.close()
        os.unlink(sock)
        backend.wait("vm1", connected=False)
    print("late socket, ms:", [round(1000 * t, 1) for t in times])
    assert max(times) < 1


def test_late_folder(backend, tmp_path):
    path = tmp_path / "later" / "vm1.sock"
    backend.open("vm1", path)
    assert "does not exist" in wait_for(lambda: backend.problem("vm1") if "connecting" not in backend.problem("vm1") else "")
    path.parent.mkdir()
    with Guest(f"path={path},server=1") as guest:
        guest.ready()
        ping(guest)


def test_leftover_socket_of_qemu(backend, sock):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(sock))
    backend.open("vm1", sock)
    wait_for(lambda: f"nobody listens on {sock}" in backend.problem("vm1"))
    os.unlink(sock)
    with Guest(f"path={sock},server=1") as guest:
        guest.ready()
        ping(guest)


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize("server", [False, True])
def test_guest_dies_and_returns(backend, sock, server, packed):
    backend.open("vm1", sock, "packed", *(["server"] if server else []))
    gaps = []
    for i in range(4):
        if not server and sock.exists():
            os.unlink(sock)  # as QEMU does
        guest = Guest(f"path={sock},server={int(not server)},packed={packed}")
        try:
            guest.ready()
            ping(guest)
            assert backend.status("vm1")["connects"] == i + 1
            guest.blast(0, 0, frame(), rate=100000)
            time.sleep(0.05)
        finally:
            start = time.monotonic()
            guest.kill()
        backend.wait("vm1", connected=False, running=False)
        gaps.append(time.monotonic() - start)
    print("told of the death after, ms:", [round(1000 * t) for t in gaps])


@pytest.mark.parametrize("packed", [0, 1])
def test_guest_survives_the_backend(tmp_path, packed):
    """The switch is restarted below a running guest (split ring: it resumes; packed: this driver starts afresh)."""
    sock = tmp_path / "vm1.sock"
    backend = Backend().ready()
    backend.open("vm1", sock, "packed")
    with Guest(f"path={sock},server=1,packed={packed}") as guest:
        try:
            ping(guest.ready())
            backend.kill()
            wait_for(lambda: guest.link(0) == "down")
            backend = Backend().ready()
            backend.open("vm1", sock, "packed")
            backend.wait("vm1", running=True)
            wait_for(lambda: guest.link(0) == "up")
            ping(guest)
        finally:
            backend.quit()


def test_stale_socket_in_server_mode(backend, sock):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(sock))
    backend.open("vm1", sock, "server")
    with Guest(f"path={sock}") as guest:
        ping(guest.ready())
    backend.close("vm1")
    assert not sock.exists()


def test_held_socket_in_server_mode(backend, sock):
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(sock))
        holder.listen(1)
        with pytest.raises(Refused) as refused:
            backend.open("vm1", sock, "server")
        name = open("/proc/self/comm").read().strip()
        assert str(refused.value) == f"{sock} is held by process {os.getpid()} ({name})"
        holder.settimeout(0.1)
        with pytest.raises(TimeoutError):  # it was not disturbed
            holder.accept()
    assert sock.exists()


def test_sentences_of_open(backend, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    backend.open("vm1", tmp_path / "a.sock", "server")
    for options, sentence in [
            ((plain, "server"), "exists and is not a socket"),
            ((tmp_path / "a.sock",), "is the socket of port vm1 already"),
            (("relative.sock",), "is not absolute"),
            ((tmp_path / ("x" * 120),), "bytes long"),
            ((tmp_path / "no" / "b.sock", "server"), "no socket can be made in"),
            ((tmp_path / "c.sock", "server", "owner=nobody-of-that-name"), "no user nobody-of-that-name"),
            ((tmp_path / "c.sock", "server", "group=nobody-of-that-name"), "no group nobody-of-that-name"),
            ((tmp_path / "c.sock", "queues=17"), "choose 1 to 16"),
            ((tmp_path / "c.sock", "queues=0"), "choose 1 to 16")]:
        with pytest.raises(Refused) as refused:
            backend.open("vm2", *options)
        assert sentence in str(refused.value)
    # A port that could not be opened leaves nothing behind.
    backend.open("vm2", tmp_path / "c.sock", "server")


def test_access_of_the_socket(backend, sock):
    backend.open("vm1", sock, "server", "owner=nobody", "group=daemon", "mode=660")
    info = sock.stat()
    assert (pwd.getpwuid(info.st_uid).pw_name, stat.S_IMODE(info.st_mode)) == ("nobody", 0o660)
    backend.open("vm1", sock, "server", "owner=root", "group=root", "mode=600", verb="reconfigure")
    info = sock.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (0, 0, 0o600)
    with pytest.raises(Refused) as refused:
        backend.open("vm1", sock, "server", "owner=nobody-of-that-name", verb="reconfigure")
    assert "no user nobody-of-that-name" in str(refused.value)
    for other in ("queues=2", "packed", "nocsum", "notso"):
        with pytest.raises(Refused):
            backend.open("vm1", sock, "server", other, verb="reconfigure")


def test_permission_denied(tmp_path):
    """A switch that isn't root, in front of a socket of somebody else."""
    sock = tmp_path / "vm1.sock"
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != tmp_path.parents[-1] and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sock))
        listener.listen(1)
        sock.chmod(0o600)
        with Backend(as_user="nobody") as backend:
            backend.ready()
            backend.open("vm1", sock)
            problem = wait_for(lambda: backend.problem_with("vm1", "permission denied"))
            assert problem.startswith(f"permission denied: {sock} belongs to root:root, mode 0600")
            # It is seen at once when access is given.
            sock.chmod(0o666)
            listener.settimeout(1)
            listener.accept()[0].close()


@pytest.mark.parametrize("packed", [0, 1])
def test_kick_wakes_the_worker(backend, sock, packed):
    backend.open("vm1", sock, "packed")
    with Guest(f"path={sock},server=1,packed={packed}") as guest:
        guest.ready()
        before = backend.worker()
        for i in range(300):
            # It arms after 2 ms or so without packets: some frames come before, some while it does, some when it sleeps.
            time.sleep(dice.random() / 100)
            guest.tx(0, frame(struct.pack("!I", i)))
            guest.rx(0, 1, limit=0.9)  # its longest sleep is 1 s
        assert backend.worker()["wakes"] - before["wakes"] >= 50
        # And it sleeps when nothing comes.
        time.sleep(0.1)
        loops = backend.worker()["loops"]
        time.sleep(1)
        assert backend.worker()["loops"] - loops < 100


@pytest.mark.parametrize("packed", [0, 1])
def test_full_ring_is_seen(backend, sock, packed):
    """A ring that was filled to the last descriptor while the worker slept doesn't look empty."""
    backend.open("vm1", sock, "packed")
    with Guest(f"path={sock},server=1,packed={packed}") as guest:
        guest.ready()
        guest.capture(0, False)
        for _ in range(20):
            time.sleep(0.01)
            guest.blast(0, 3000, frame())
            guest.blasted(0, limit=5)
        wait_for(lambda: backend.worker()["packets"] == 60000)


@pytest.mark.parametrize("packed", [0, 1])
def test_no_receive_buffers(backend, sock, packed):
    backend.open("vm1", sock, "packed")
    with Guest(f"path={sock},server=1,packed={packed}") as guest:
        guest.ready()
        guest.stop(0)
        guest.blast(0, 5000, frame(), rate=50000)
        guest.blasted(0)
        problem = wait_for(lambda: backend.problem("vm1"))
        assert problem.startswith("no receive buffers posted")
        guest.go(0)
        wait_for(lambda: not backend.problem("vm1"))


def test_close_while_traffic_flows(backend, tmp_path):
    socks = [tmp_path / f"vm{i}.sock" for i in range(3)]
    for i, sock in enumerate(socks):
        backend.open(f"vm{i}", sock, "packed")
    with Guest(*(f"path={sock},server=1,packed={i % 2}" for i, sock in enumerate(socks))) as guest:
        guest.ready()
        for i in range(3):
            guest.capture(i, False)
            guest.blast(i, 0, frame(), rate=200000)
        for _ in range(10):
            for i in (0, 1):
                backend.close(f"vm{i}")
                backend.open(f"vm{i}", socks[i], "packed")
            for i in range(3):
                before = guest.count(i)["rx"]
                backend.wait(f"vm{i}", running=True)
                wait_for(lambda: guest.count(i)["rx"] > before, what=f"echoes at port {i}")
        for i in range(3):
            assert backend.status(f"vm{i}")["connects"] == 1


@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no TAP devices here")
def test_kernel_behind_a_port(backend, sock):
    """vguest --bridge-tap: what the kernel sends through the TAP comes to the backend, and its echo goes back."""
    name = f"vg{os.getpid()}"
    backend.open("vm1", sock)
    with Guest(f"path={sock},server=1", bridge_tap=name) as guest:
        guest.ready()
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5)) as kernel:
            kernel.bind((name, 0x88b5))
            kernel.settimeout(5)
            for size in (60, 600, 1514):
                kernel.send(frame(size=size))
                assert kernel.recv(2000) == echoed(frame(size=size))


class FrontEnd:
    """The other end of the protocol, message by message (QEMU's docs/interop/vhost-user.rst)."""

    def __init__(self, path):
        self.fds = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.listener.settimeout(5)
        self.connection = self.listener.accept()[0]
        self.connection.settimeout(5)

    def send(self, request, payload=b"", fds=(), flags=1):
        if isinstance(payload, int):
            payload = struct.pack("<Q", payload)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.connection.sendmsg([struct.pack("<III", request, flags, len(payload))], ancillary)
        if payload:
            self.connection.sendall(payload)

    def answer(self):
        header = self.connection.recv(12)
        return struct.unpack("<Q", self.connection.recv(struct.unpack("<III", header)[2]))[0]

    def get(self, request):
        self.send(request)
        return self.answer()

    def again(self):
        self.connection.close()
        self.connection = self.listener.accept()[0]
        self.connection.settimeout(5)

    def share(self, memory, size):
        """The guest's memory: one region, at 4 GB in the front-end."""
        self.send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, size, 1 << 32, 0), [memory])

    def start(self, features, memory, size=1 << 20):
        """As a driver that has set up two rings of 256 in zeroed memory and posted nothing. Returns the kick descriptors."""
        self.send(SET_OWNER)
        self.send(SET_FEATURES, features)
        self.share(memory, size)
        kicks = []
        for ring in range(2):
            base = (1 << 32) + ring * 0x4000
            kicks.append(os.eventfd(0, os.EFD_NONBLOCK))
            call = os.eventfd(0, os.EFD_NONBLOCK)
            self.fds += [kicks[-1], call]
            self.send(SET_VRING_NUM, struct.pack("<II", ring, 256))
            self.send(SET_VRING_BASE, struct.pack("<II", ring, 1 << 15 if has(features, RING_PACKED) else 0))
            self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", ring, 0, base, base + 0x2000, base + 0x1000, 0))
            self.send(SET_VRING_CALL, ring, [call])
            self.send(SET_VRING_KICK, ring, [kicks[-1]])
        return kicks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        self.listener.close()
        for fd in self.fds:
            os.close(fd)


GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE, GET_QUEUE_NUM, SEND_RARP = 1, 2, 3, 5, 17, 19
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 8, 9, 10, 12, 13


@pytest.fixture
def memory():
    fd = os.memfd_create("guest")
    os.ftruncate(fd, 2 << 20)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize("asleep", [True, False])
def test_memory_that_is_a_private_copy(backend, sock, memory, packed, asleep):
    """What QEMU does with a file backend without share=on: the rings that are mapped stay empty whatever the guest does."""
    backend.ask(f"sleep {'on' if asleep else 'off'}")
    backend.open("vm1", sock, "packed")
    with FrontEnd(sock) as front_end:
        receive, transmit = front_end.start(1 << VERSION_1 | packed << RING_PACKED, memory)
        backend.wait("vm1", running=True, rx_enabled=1, tx_enabled=1)
        os.eventfd_write(transmit, 1)  # as QEMU does when the driver starts
        time.sleep(0.1)
        assert backend.problem("vm1") == ""
        os.eventfd_write(transmit, 1)
        wait_for(lambda: backend.problem("vm1").startswith("memory not shared: the front-end mapped a private copy"))


@pytest.mark.parametrize("packed", [0, 1])
def test_rarp_wakes_the_worker(backend, sock, memory, packed):
    """After a migration of a guest that can't announce itself the library injects a frame, without a kick."""
    backend.open("vm1", sock, "packed")
    with FrontEnd(sock) as front_end:
        front_end.start(1 << VERSION_1 | packed << RING_PACKED, memory)
        backend.wait("vm1", running=True)
        time.sleep(0.1)
        packets = backend.worker()["packets"]
        front_end.send(SEND_RARP, MAC_A + b"\0\0")
        wait_for(lambda: backend.worker()["packets"] == packets + 1, limit=0.8)


@pytest.mark.parametrize("packed", [0, 1])
def test_memory_is_exchanged_under_the_worker(backend, sock, memory, packed):
    """Memory hot-plug: the table of a running device is replaced while the worker looks at its rings."""
    backend.open("vm1", sock, "packed")
    with FrontEnd(sock) as front_end:
        kicks = front_end.start(1 << VERSION_1 | packed << RING_PACKED, memory)
        backend.wait("vm1", running=True)
        loops = backend.worker()["loops"]
        for i in range(3000):
            front_end.share(memory, (2 - i % 2) << 20)
            os.eventfd_write(kicks[1], 1)
        assert front_end.get(GET_QUEUE_NUM) == 1  # all of them have been handled
        assert backend.status("vm1")["running"]
        assert backend.worker()["loops"] > loops


@pytest.mark.parametrize("packed", [0, 1])
def test_running_device_is_given_bad_memory(backend, sock, memory, packed):
    """The memory that is mapped stays; only the port whose front-end does this may suffer."""
    backend.open("vm1", sock, "packed")
    reader, writer = os.pipe()
    short = os.memfd_create("short")
    os.ftruncate(short, 1 << 12)
    with FrontEnd(sock) as front_end:
        kicks = front_end.start(1 << VERSION_1 | packed << RING_PACKED, memory)
        backend.wait("vm1", running=True)
        for fd in (reader, short) * 20:
            # Not of the same size, or the library says that nothing has changed.
            front_end.send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, 4 << 20, 1 << 32, 0), [fd], flags=1 | 8)
            assert front_end.answer() == 1  # not done
            os.eventfd_write(kicks[1], 1)
        assert backend.status("vm1")["running"]
        front_end.send(SEND_RARP, MAC_A + b"\0\0")
        wait_for(lambda: backend.worker()["packets"] == 1, limit=0.8)
        front_end.share(memory, 2 << 20)
        # Without asking for an answer, it loses its connection.
        front_end.share(short, 4 << 20)
        wait_for(lambda: backend.problem("vm1").startswith("memory not shared: the front-end offered memory that can't be"))
        front_end.again()
        backend.wait("vm1", connected=True, connects=2)
        assert backend.problem("vm1").startswith("memory not shared: the front-end offered memory that can't be")
        front_end.start(1 << VERSION_1 | packed << RING_PACKED, memory)
        backend.wait("vm1", running=True)
    for fd in (reader, writer, short):
        os.close(fd)


def test_guest_driver_not_ready(backend, sock, memory):
    backend.open("vm1", sock, "queues=3")
    with FrontEnd(sock) as front_end:
        front_end.send(SET_OWNER)
        offered = front_end.get(GET_FEATURES)
        assert front_end.get(GET_QUEUE_NUM) == 3
        wait_for(lambda: backend.problem("vm1").startswith("guest driver not ready: it has not started"))
        status = backend.status("vm1")
        assert status["connected"] and not status["running"]
        front_end.send(SET_FEATURES, offered & ~(1 << RING_PACKED))
        wait_for(lambda: backend.problem("vm1").startswith("guest driver not ready: features are agreed"))
        wait_for(lambda: backend.problem("vm1").startswith("memory not shared"))
        front_end.share(memory, 1 << 20)
        wait_for(lambda: backend.problem("vm1").startswith("guest driver not ready: its queues are not set up"))


def test_memory_that_can_not_be_mapped(backend, sock):
    backend.open("vm1", sock)
    with FrontEnd(sock) as front_end:
        front_end.send(SET_FEATURES, front_end.get(GET_FEATURES))
        reader, writer = os.pipe()
        front_end.send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, 1 << 20, 1 << 32, 0), [reader], flags=1 | 8)
        wait_for(lambda: backend.problem("vm1").startswith("memory not shared: the front-end offered memory that can't be"))
        os.close(reader)
        os.close(writer)


def test_features_refused(backend, sock):
    backend.open("vm1", sock, "notso")
    with FrontEnd(sock) as front_end:
        offered = front_end.get(GET_FEATURES)
        front_end.send(SET_FEATURES, offered | 1 << HOST_TSO4 | 1 << RING_PACKED)
        problem = wait_for(lambda: backend.problem_with("vm1", "refused"))
        assert "wants HOST_TSO4, RING_PACKED, which this port does not offer" in problem
        # The next connection is fine, and it is forgotten when its driver runs.
        front_end.again()
        front_end.send(SET_FEATURES, front_end.get(GET_FEATURES))
        wait_for(lambda: backend.problem("vm1").startswith("guest driver not ready"))


def test_front_end_that_leaves_again_and_again(backend, sock):
    backend.open("vm1", sock, "queues=2")
    with FrontEnd(sock) as front_end:
        for _ in range(4):
            front_end.get(GET_FEATURES)
            front_end.again()
        front_end.connection.close()
        assert wait_for(lambda: backend.problem_with("vm1", "left")).startswith("features refused")


def test_second_front_end_is_sent_away(backend, sock):
    backend.open("vm1", sock, "server")
    with Guest(f"path={sock}") as guest:
        ping(guest.ready())
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(str(sock))
            second.settimeout(2)
            assert second.recv(1) == b""
        ping(guest)
        assert backend.status("vm1")["connects"] == 1


def test_as_many_ports_as_the_library_serves(tmp_path, memory):
    """1,020 front-ends: one thread connects them all, each in less than 100 ms as a rule; the next gets a sentence."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] < 10000:
        pytest.skip("needs 10,000 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    front_ends, times = [], []
    with Backend(memory=512) as backend:
        backend.ready()
        for i in range(1020):
            backend.open(f"vm{i}", tmp_path / f"{i}.sock")
        with pytest.raises(Refused) as refused:
            backend.open("one-more", tmp_path / "one-more.sock")
        assert "serves 1020 connections" in str(refused.value)
        threads = len(os.listdir(f"/proc/{backend.process.pid}/task"))
        for i in range(1020):
            start = time.monotonic()
            front_ends.append(FrontEnd(tmp_path / f"{i}.sock"))
            times.append(time.monotonic() - start)
            front_ends[-1].start(1 << VERSION_1, memory)
        for i in range(1020):
            backend.wait(f"vm{i}", running=True, limit=30)
        assert len(os.listdir(f"/proc/{backend.process.pid}/task")) <= threads + 1 < 10
        for front_end in front_ends:
            front_end.__exit__()
        for i in range(1020):
            backend.wait(f"vm{i}", connected=False, limit=30)
        assert backend.quit() == 0, backend.log_text()
    print("1,020 sockets, worst ms:", round(1000 * max(times), 1))
    assert max(times) < 1
