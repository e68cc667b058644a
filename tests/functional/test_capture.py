"""capture: packets as pcapng, as tshark and capinfos read them."""

import os
import re
import signal
import struct
import subprocess

import pytest
from scapy.all import IP, TCP, UDP, Ether, raw

from net import BROADCAST, SLOW, Stream, frame, mac, run, wait_for
from test_vhost_ports import plug


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("blue", "--vlan", "10")
    for n, name in enumerate(("a", "b", "c"), 1):
        lab.tap(name, "--network", "blue", f"addresses={mac(n)}")
    lab.tap("t", "--vlan-mode", "trunk", "--trunks", "blue", )
    lab.weirctl("fdb", "add", "blue", mac(4), "t")
    return lab


def command(lab, *options):
    return [str(lab.build / "ctl/weirctl"), "--db", lab.db, "--ctl", lab.ctl, "capture", *map(str, options)]


running = []


@pytest.fixture(autouse=True)
def ended():
    """What a failing test leaves."""
    yield
    while running:
        process = running.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


class Capture:
    """weirctl capture at work, from the moment on that the switch has begun."""

    def __init__(self, lab, *options, begin=True):
        self.lab, self.file = lab, lab.path("capture.pcapng")
        self.process = subprocess.Popen(command(lab, *options, "-w", self.file), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        running.append(self.process)
        if begin:
            assert "capturing to" in self.process.stderr.readline()

    def end(self, signal_number=signal.SIGINT):
        """What it says last; its file is whole then."""
        if signal_number:
            self.process.send_signal(signal_number)
        _, err = self.process.communicate(timeout=30 * SLOW)
        assert self.process.returncode == 0, err
        self.said = err
        return self

    def packets(self):
        return packets_of(self.file)

    def numbers(self):
        captured, lost = re.search(r"(\d+) packets captured, (\d+) lost", self.said).groups()
        return int(captured), int(lost)


def packets_of(file):
    """(interface, direction, comment, bytes as hex) of each packet, as tshark has them."""
    out = run("tshark", "-r", file, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "frame.comment",
              "-e", "frame.len", "-e", "frame.cap_len")
    direction = {1: "in", 2: "out"}
    rows = [line.split("\t") for line in out.splitlines()]
    return [(name, direction[int(flags, 0)], comment, int(size), int(kept)) for name, flags, comment, size, kept in rows]


def statistics(file):
    """{interface: (matched, lost)} of the interface statistics blocks, and what the packets say was lost before them."""
    data, at, names, result, told = open(file, "rb").read(), 0, [], {}, 0

    def options(at, end):
        while at < end:
            code, size = struct.unpack_from("=HH", data, at)
            if not code:
                return
            yield code, data[at + 4:at + 4 + size]
            at += 4 + (size + 3 & ~3)
    while at < len(data):
        kind, size = struct.unpack_from("=II", data, at)
        end = at + size - 4
        assert struct.unpack_from("=I", data, end)[0] == size
        if kind == 1:
            names.append(dict(options(at + 16, end))[2].decode())
        elif kind == 5:
            values = dict(options(at + 20, end))
            interface, = struct.unpack_from("=I", data, at + 8)
            result[names[interface]] = tuple(struct.unpack("=Q", values[code])[0] for code in (4, 5))
        elif kind == 6:
            kept, = struct.unpack_from("=I", data, at + 20)
            told += sum(struct.unpack("=Q", v)[0] for code, v in options(at + 28 + (kept + 3 & ~3), end) if code == 4)
        at += size
    return result, told


def send(lab, port, *frames):
    before = lab.stats(port)["rx_packets"]
    for at in range(0, len(frames), 200):  # the kernel has room for a thousand
        for f in frames[at:at + 200]:
            lab.wire[port].send(f)
        lab.settle(port, before + min(len(frames), at + 200))


def none_left(lab):
    wait_for(lambda: not lab.ask("capture/list"), 20 * SLOW, lambda: f"captures to end: {lab.ask('capture/list')}", 0.02)
    assert not list(lab.rundir.glob("capture.[0-9]*"))


def test_points(ports):
    """Every point: as it came in, behind a stage, as it leaves by a trunk, and where it ends, with direction, names and reasons."""
    capture = Capture(ports, "--point", "rx,tx", "--point", "drop", "--point", "stage:mtu")
    send(ports, "a", frame(1, 2), frame(1, 4), frame(BROADCAST, 2))
    capture.end()
    got = capture.packets()
    assert sorted(got) == sorted([
        ("a", "in", "", 60, 60), ("a", "in", "", 60, 60), ("a", "in", "", 60, 60),
        ("b", "out", "stage mtu; from a", 60, 60), ("b", "out", "from a", 60, 60),
        ("t", "out", "stage mtu; from a", 60, 60), ("t", "out", "from a", 64, 64),
        ("a", "in", "dropped (vlan.GROUP_SOURCE): the source address is a group address", 60, 60)])
    assert capture.numbers() == (8, 0)
    stats, told = statistics(capture.file)
    assert stats == {"a": (4, 0), "b": (2, 0), "c": (0, 0), "t": (2, 0)} and not told
    info = run("capinfos", capture.file)
    assert "Number of packets:   8" in info and "Strict time order:   True" in info and "nanoseconds (9)" in info
    tagged = run("tshark", "-r", capture.file, "-Y", "vlan.id == 10 and frame.interface_name == t")
    assert len(tagged.splitlines()) == 1
    none_left(ports)


def test_drop_on_the_way_out(ports):
    """A port's drops are those of its own packets and of packets that it was to get."""
    data = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=9) / bytes(1000))
    ports.weirctl("port", "set", "b", "mtu_request=900")
    try:
        capture = Capture(ports, "--point", "drop", "--port", "b")
        send(ports, "a", data, frame(BROADCAST, 1))
        capture.end()
        reason = "dropped (mtu.TOO_LARGE): the packet is larger than the MTU of its egress port; by Port b; to b"
        assert capture.packets() == [("a", "in", reason, len(data), len(data))]
        capture = Capture(ports, "--point", "stage:mtu", "--snaplen", "64")
        send(ports, "a", data)
        capture.end()
        assert capture.packets() == [("b", "out", "stage mtu; " + reason.split("; by")[0] + "; from a", len(data), 64)]
    finally:
        ports.weirctl("port", "set", "b", "mtu_request=")


def test_port_and_filter(ports):
    """--port is the ingress port at rx, the egress port at tx; the filter is for packets as they are at the point."""
    capture = Capture(ports, "--port", "b", "--filter", "udp dst port 53")
    ask = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=53) / bytes(30))
    other = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=53) / bytes(30))
    back = raw(Ether(src=mac(2), dst=mac(1)) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(dport=53) / bytes(30))
    send(ports, "a", ask, other, frame(1, 2))
    send(ports, "b", back, frame(2, 1))
    capture.end(signal.SIGTERM)
    assert [p[:3] for p in capture.packets()] == [("b", "out", "from a"), ("b", "in", "")]
    capture = Capture(ports, "--point", "tx", "--filter", "vlan 10")
    send(ports, "a", frame(1, 2), frame(1, 4))
    capture.end()
    assert [p[0] for p in capture.packets()] == ["t"]


def test_limits(ports):
    capture = Capture(ports, "--count", "3", "--point", "rx", "--snaplen", "20")
    send(ports, "a", *[frame(1, 2)] * 10)
    capture.end(None)
    assert [p[3:] for p in capture.packets()] == [(60, 20)] * 3 and "as many packets as were wanted" in capture.said
    capture = Capture(ports, "--seconds", "1")
    send(ports, "a", frame(1, 2))
    capture.end(None)
    assert len(capture.packets()) == 2 and "its time was over" in capture.said


def test_rule_stage(ports):
    """Behind a stage that writes packets are as it left them; those on which it has no work don't pass it."""
    ports.weirctl("flow", "add", "udp,tp_dst=53", f"mod_dl_dst:{mac(3)}")
    try:
        capture = Capture(ports, "--point", "stage:rule", "--filter", f"ether dst {mac(3)}")
        for port in (53, 54):
            send(ports, "a", raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=port) / bytes(30)))
        capture.end()
        assert [p[:3] for p in capture.packets()] == [("a", "in", "stage rule")]
    finally:
        ports.weirctl("flow", "del", "all")


def test_live_pipe(ports):
    """What is written shows at the other end of a pipe at once; the reader's end ends the capture."""
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    weirctl = subprocess.Popen(command(ports, "--point", "rx", "-w", "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    tshark = subprocess.Popen(["tshark", "-l", "-r", "-", "-T", "fields", "-e", "frame.interface_name", "-e", "eth.dst"], stdin=weirctl.stdout,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    weirctl.stdout.close()
    wait_for(lambda: any(c["running"] for c in ports.ask("capture/list")), 10 * SLOW, "the capture to begin", 0.01)
    send(ports, "a", frame(1, 2))
    assert tshark.stdout.readline() == f"a\t{mac(2)}\n"
    send(ports, "b", frame(2, 1))
    assert tshark.stdout.readline() == f"b\t{mac(1)}\n"
    tshark.kill()
    tshark.wait()
    send(ports, "a", frame(1, 2))  # this one finds that nobody reads
    assert weirctl.wait(10 * SLOW) == 0 and not weirctl.stderr.read()
    weirctl.stderr.close()
    tshark.stdout.close()
    none_left(ports)


def test_reader_is_killed(ports):
    """Nothing happens to packets, and the capture is over."""
    capture = Capture(ports, "--point", "rx,tx,drop")
    ports.wire["b"].clear()
    stream = Stream(ports.wire["a"], ports.wire["b"], 1, 2, rate=1000)
    stream.wait(50)
    capture.process.kill()
    capture.process.communicate()
    none_left(ports)
    stream.wait(50)
    assert stream.end() == ([], [])


@pytest.fixture
def jumbo(ports):
    """Frames of 9,000 bytes, so that a ring is soon full."""
    ports.weirctl("network", "set", "blue", "mtu=9000")
    for name in ("a", "b"):
        wait_for(lambda: ports.port(name)["mtu"] == 9000, 10 * SLOW, "the MTU")
        run("ip", "link", "set", "dev", name, "mtu", "9000")
    yield ports
    ports.weirctl("network", "set", "blue", "mtu=")


def test_full_ring(jumbo):
    """A reader that stands still costs packets of the capture, each of which is counted, and none of the traffic."""
    capture = Capture(jumbo, "--point", "rx")
    os.kill(capture.process.pid, signal.SIGSTOP)
    large, count = frame(1, 2, size=9000), 6000
    before = jumbo.stats("a")["sent"]
    for _ in range(count // 200):
        send(jumbo, "a", *[large] * 200)
    assert jumbo.stats("a")["sent"] - before == count
    os.kill(capture.process.pid, signal.SIGCONT)
    # The next one finds room, and says how many are missing before it.
    wait_for(lambda: jumbo.ask("capture/list")[0]["captured"] >= 3000, 20 * SLOW, "the reader to catch up", 0.05)
    wait_for(lambda: send(jumbo, "a", large) or jumbo.ask("capture/list")[0]["lost"], 20 * SLOW, "a packet that tells of losses", 0.05)
    sent = jumbo.stats("a")["sent"] - before
    capture.end()
    captured, lost = capture.numbers()
    assert captured + lost == sent and lost > 1000
    stats, told = statistics(capture.file)
    assert stats["a"] == (sent, lost) and told == lost
    assert len(capture.packets()) == captured
    jumbo.wire["b"].clear()
    jumbo.wire["b"].lost()


def test_reader_is_stuck(jumbo):
    """For so long that it is given up."""
    capture = Capture(jumbo, "--point", "rx")
    os.kill(capture.process.pid, signal.SIGSTOP)
    for _ in range(8):
        send(jumbo, "a", *[frame(1, 2, size=9000)] * 200)
    wait_for(lambda: not jumbo.ask("capture/list"), 30 * SLOW, "the reader to be given up", 0.2)
    os.kill(capture.process.pid, signal.SIGCONT)
    assert "took nothing for 10 s" in capture.end(None).said
    jumbo.wire["b"].clear()
    jumbo.wire["b"].lost()


def test_device_takes_no_more(ports):
    """A packet that a guest takes at the second attempt is captured once, and one that it never takes at its end only."""
    with plug(ports, "vm1", f"addresses={mac(7)}") as guest:
        capture = Capture(ports, "--port", "vm1", "--point", "tx,drop")
        guest.stop(0)
        before = ports.stats("a")
        for at in range(0, 800, 100):
            for n in range(100):
                ports.wire["a"].send(frame(1, 7, payload=struct.pack("!I", at + n)))
            wait_for(lambda: ports.stats("a")["rx_packets"] >= before["rx_packets"] + at + 100, 10 * SLOW, "packets to be taken", 0.002)
        after = ports.settle("a", before["rx_packets"] + 800)
        capture.end()
        got = [p[1] for p in capture.packets()]
        assert got.count("out") == after["sent"] - before["sent"] and got.count("in") == after["dropped"] - before["dropped"]
        assert len(got) == 800 and got.count("out") > 0 and got.count("in") > 0


def test_several(ports):
    """Four at once, each with its own packets, and one more is refused."""
    captures = []
    try:
        for name in "abct":
            captures.append(Capture(ports, "--port", name, "--point", "rx"))
            captures[-1].file = ports.path(f"{name}.pcapng")
            os.rename(ports.path("capture.pcapng"), captures[-1].file)
        done = ports.weirctl("capture", "-w", ports.path("x"), check=False)
        assert done.returncode == 1 and "4 captures are running already" in done.stderr
        listed = ports.weirctl("capture", "list", json=True)
        assert [c["port"] for c in listed] == list("abct") and all(c["running"] and c["points"] == "rx" for c in listed)
        send(ports, "a", frame(1, 2), frame(1, 2))
        send(ports, "b", frame(2, 1))
    finally:
        for capture in captures:
            capture.end()
    assert [len(c.packets()) for c in captures] == [2, 1, 0, 0]
    none_left(ports)


def test_ports_and_workers_come(ports):
    """Ports and workers that come while a capture runs are in it, by their names."""
    capture = Capture(ports, "--point", "rx,tx")
    ports.tap("late", "--network", "blue")
    send(ports, "late", frame(9, 1))
    ports.delete("late")
    ports.weirctl("config", "set", "worker-cores=0-1")
    try:
        for name, n in (("a", 1), ("b", 2), ("c", 3)):
            send(ports, name, frame(n, 1 if n > 1 else 2))
    finally:
        ports.weirctl("config", "del", "worker-cores")
    send(ports, "a", frame(1, 2))
    capture.end()
    seen = [p[0] for p in capture.packets() if p[1] == "in"]
    assert seen.count("late") == 1 and (seen.count("a"), seen.count("b"), seen.count("c")) == (2, 1, 1)


def test_switch_ends(lab, ports):
    """The reader gets what there is, and the switch isn't held up."""
    capture = Capture(ports, "--point", "rx")
    send(ports, "a", frame(1, 2))
    lab.stop_daemon()
    _, err = capture.process.communicate(timeout=30 * SLOW)
    assert len(capture.packets()) == 1
    lab.start_daemon()
    wait_for(lambda: ports.port("a")["link_state"] == "up", 20 * SLOW, "the ports")


@pytest.mark.parametrize("options, sentence", [
    (["--filter", "no such thing", "-w", "x"], "no such thing"),
    (["--port", "nobody", "-w", "x"], "there is no port nobody"),
    (["--point", "everywhere", "-w", "x"], "--point is rx, tx, drop or stage:NAME, not \"everywhere\""),
    (["--point", "stage:nowhere", "-w", "x"], "there is no stage nowhere"),
    (["--point", "stage:fdb", "-w", "x"], "stage fdb decides once for a flow"),
    (["--count", "0", "-w", "x"], "--count wants a number"),
    (["--snaplen", "-5", "-w", "x"], "--snaplen wants a number"),
    (["--frobnicate", "-w", "x"], "frobnicate"),
    (["--point", "rx"], "where to?"),
    (["--point", "rx", "-w"], "-w wants a file"),
    (["-w", "/no/such/folder/x"], "/no/such/folder/x: No such file or directory"),
])
def test_bad_options(ports, options, sentence):
    done = ports.weirctl("capture", *[ports.path(o) if o == "x" else o for o in options], check=False)
    assert done.returncode == 1 and sentence in done.stderr and not done.stdout, done
    assert not os.path.exists(ports.path("x"))
    none_left(ports)
