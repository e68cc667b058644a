"""A switch in a network namespace of its own, with TAP ports whose kernel ends are raw sockets, and what a test says of a packet.

    with Lab() as lab:                          # also the fixture `lab` of most test files
        lab.network("blue")
        lab.tap("a", "--network", "blue")
        lab.tap("b", "--network", "blue")
        lab.check("a", frame, {"b": [frame]}, says="destination 52:54:00:00:00:02 is unknown: flood")

check() sends the frame and holds everything together: which bytes arrived where, what the counters say, which drop was counted, what explain
had predicted, and what trace showed.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

from lab import Switch, SwitchError  # noqa: E402
from wait import Timeout, wait_for  # noqa: E402,F401

os.environ.setdefault("WEIR_BUILD", str(Path(__file__).resolve().parents[2] / "build"))

SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE, SO_SNDBUFFORCE = 263, 8, 23, 33, 32
STATUS_VLAN_VALID, STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
ETH_P_ALL = 3
CLONE_NEWNET = 0x40000000
LONG = bool(os.environ.get("WEIR_LONG"))  # the long forms of tests that have one
_libc = ctypes.CDLL(None, use_errno=True)


def sanitized():
    """Whether the switch under test was built with sanitizers: it takes longer for everything, and more memory."""
    options = Path(os.environ["WEIR_BUILD"]) / "meson-info/intro-buildoptions.json"
    if not options.exists():
        return False
    return any(o["name"] == "b_sanitize" and o["value"] not in ("none", [], "") for o in json.loads(options.read_text()))


SLOW = 4 if sanitized() else 1  # what limits of time are multiplied by


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """A network namespace without a name, of which nothing is left when the last process or device in it is gone.

    IPv6 is off in it at first, so that kernels say nothing unasked.
    """

    def __init__(self, ipv6=False):
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            if _libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY)
            if not ipv6:
                for what in ("default", "all"):
                    Path(f"/proc/sys/net/ipv6/conf/{what}/disable_ipv6").write_text("1")
            run("ip", "link", "set", "lo", "up")
        finally:
            _setns(here)
            os.close(here)

    def __enter__(self):
        """This program, and what it starts, goes into the namespace."""
        self.back = os.open("/proc/self/ns/net", os.O_RDONLY)
        _setns(self.fd)
        return self

    def __exit__(self, *_):
        _setns(self.back)
        os.close(self.back)

    def close(self):
        os.close(self.fd)

    def run(self, *command, **options):
        with self:
            return run(*command, **options)

    def popen(self, *command, **options):
        with self:
            return subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, **options)

    def take(self, name):
        """Takes the interface out of the namespace that the program is in."""
        run("ip", "link", "set", "dev", name, "netns", f"/proc/{os.getpid()}/fd/{self.fd}")


class Outside(Namespace):
    """Where the tests were started: in a switch's namespace there is no mirror to fetch a package from."""

    def __init__(self):
        self.fd = os.open("/proc/self/ns/net", os.O_RDONLY)


OUTSIDE = Outside()


def run(*command, check=True, limit=30):
    """Runs a command; its text, or with check=False the finished process."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=limit)
    if not check:
        return done
    if done.returncode:
        raise SwitchError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


class Wire:
    """A raw socket on an interface: puts whole frames on it, and takes whole frames off it with their tags, which the kernel takes apart."""

    def __init__(self, interface, room=1 << 24):
        self.interface = interface
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, room)
        self.socket.bind((interface, ETH_P_ALL))

    def send(self, frame):
        self.socket.send(bytes(frame))

    def _receive(self):
        data, ancillary, _, _ = self.socket.recvmsg(65600, socket.CMSG_SPACE(20), socket.MSG_DONTWAIT)
        for level, kind, value in ancillary:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
                if status & STATUS_VLAN_VALID:
                    tpid = tpid if status & STATUS_VLAN_TPID_VALID else 0x8100
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        return data

    def received(self):
        """All frames that have arrived."""
        frames = []
        while True:
            try:
                frames.append(self._receive())
            except BlockingIOError:
                return frames

    def clear(self):
        self.received()

    def wait(self, count, limit=10.0):
        """At least so many frames."""
        frames = []

        def enough():
            select.select([self.socket], [], [], 0.05)
            frames.extend(self.received())
            return len(frames) >= count

        wait_for(enough, limit * SLOW, lambda: f"{count} frames on {self.interface}, not {len(frames)}", 0)
        return frames

    def lost(self):
        """How many frames the socket had no room for since the last call: a test that loses packets must know who did."""
        packets, drops = struct.unpack("=II", self.socket.getsockopt(SOL_PACKET, 6, 8))
        return drops

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Lab(Switch):
    """A switch, a namespace around it, and Wires to its TAPs (self.wire[port])."""

    def __init__(self, **options):
        super().__init__(**options)
        self.namespace, self.wire, self.guests, self.entered = None, {}, [], False
        self.settled = {}

    def start(self):
        self.namespace = Namespace()
        self.namespace.__enter__()
        self.entered = True
        try:
            return super().start()
        except Exception:
            self.leave()
            raise

    def leave(self):
        if self.entered:
            self.entered = False
            self.namespace.__exit__()
            self.namespace.close()

    def stop(self, check=True):
        for wire in self.wire.values():
            wire.close()
        try:
            super().stop(check)
        finally:
            self.leave()

    # --- configuration

    def network(self, name, *settings):
        self.weirctl("network", "add", name, *settings)

    def tap(self, name, *settings, iface=None):
        """A TAP port, with a Wire. The interface has the port's name."""
        self.weirctl("port", "add", name, "--type", "tap", *settings, *(["--iface", iface] if iface else []))
        self.wire[name] = Wire(iface or name)

    def delete(self, *names):
        for name in names:
            if name in self.wire:
                self.wire.pop(name).close()
            self.weirctl("port", "del", name)

    def clear(self, ports=(), networks=()):
        """Removes all ports and networks but these."""
        for name in [n for n in self.wire if n not in ports]:
            self.wire.pop(name).close()
        rows = {table: self.weirctl("list", table, json=True) for table in ("Port", "FDB", "Network", "Router")}
        gone = [("Port", row["_uuid"]) for row in rows["Port"] if row["name"] not in ports]
        for table in ("Route", "Route_Policy", "Router_Port", "Router") if rows["Router"] else ():
            gone += [(table, row["_uuid"]) for row in self.weirctl("list", table, json=True)]
        keep = {row["_uuid"] for row in rows["Network"] if row["name"] in networks}
        gone += [("FDB", row["_uuid"]) for row in rows["FDB"] if row["network"] not in keep]
        gone += [("Network", row["_uuid"]) for row in rows["Network"] if row["_uuid"] not in keep]
        words = []
        for table, uuid in gone:
            words += [*(["--"] if words else []), "destroy", table, uuid]
        if words:
            self.weirctl(*words)

    # --- figures

    def ask(self, method, *params):
        return json.loads(self.unixctl(method, "--json", *params))

    def stats(self, port):
        """All counters of a port."""
        return self.ask("port/stats", port)[0]

    def drops(self, port=None):
        """{reason: packets}, of one port or of all."""
        total = {}
        for row in self.ask("drops"):
            if port is None or row["port"] == port:
                total[row["reason"]] = total.get(row["reason"], 0) + row["packets"]
        return total

    def health(self):
        return self.weirctl("health", json=True)

    def fdb(self, network=None):
        """{MAC: row} of a network."""
        return {row["mac"]: row for row in self.ask("fdb/list", *([network] if network else []))}

    def explain(self, port, packet, json=False):
        """The lines of explain for a frame or a match."""
        text = packet if isinstance(packet, str) else bytes(packet).hex()
        if json:
            return self.ask("explain", "--port", port, text)
        return self.unixctl("explain", "--port", port, text)

    def settle(self, port, received, limit=10.0):
        """Waits until the port has received so many packets, ever, and none of them waits in the switch. What was sent has been sent then."""
        last = {}

        def done():
            last.update(self.stats(port))
            return last["rx_packets"] >= received and not last["queued"]

        wait_for(done, limit * SLOW, lambda: f"{received} packets from {port} to be done with: {last}", 0.002)
        return last

    # --- traces

    def trace_start(self, *options):
        return self.unixctl("trace/start", *options).split("\n")[0]

    def trace_read(self, number):
        return self.unixctl("trace/read", number)

    def trace_end(self, number):
        """Everything that a trace still has; the trace is over then."""
        text = ""

        def done():
            nonlocal text
            part = self.trace_read(number)
            text += part
            return part.endswith("end\n") or not part
        # What was counted may not have been handed over yet: count is what ends it.
        wait_for(done, 5 * SLOW, "the trace to end", 0.002)
        self.unixctl("trace/stop", number)
        return text

    # --- one packet

    def check(self, port, frame, to, drop=None, says=(), same=True):
        """Sends `frame` into `port` and asserts all of it.

        to: {port: [frames that arrive there]}, none elsewhere. drop: {reason: packets} that it costs. says: words of the explanation, all of
        which must be there, in explain and in the trace. same: whether explain and trace must agree line by line.
        """
        frame = bytes(frame)
        says = [says] if isinstance(says, str) else list(says)
        drop = {drop: 1} if isinstance(drop, str) else drop or {}
        for wire in self.wire.values():
            wire.clear()
        explained = self.explain(port, frame)
        before, drops_before = self.stats(port), self.drops()
        number = self.trace_start("--port", port, "--count", "1")
        try:
            self.wire[port].send(frame)
            after = self.settle(port, before["rx_packets"] + 1)
            drops_after = self.drops()
            got = {name: frames for name, wire in self.wire.items() if (frames := wire.received())}
            traced = []
            wait_for(lambda: traced.append(self.trace_read(number)) or traced[-1].endswith("end\n"), 5 * SLOW, lambda: f"a trace: {traced}", 0.002)
            traced = "".join(traced)
        finally:
            self.unixctl("trace/stop", number)
        wanted = {name: [bytes(f) for f in frames] for name, frames in to.items() if frames}
        assert got == wanted, f"\n{explained}arrived: {hexes(got)}\nwanted:  {hexes(wanted)}"
        cost = {reason: n - drops_before.get(reason, 0) for reason, n in drops_after.items() if n != drops_before.get(reason, 0)}
        assert cost == drop, explained
        sent = sum(len(frames) for frames in wanted.values())
        assert after["sent"] - before["sent"] == sent
        assert after["dropped"] - before["dropped"] == sum(drop.values())
        assert after["rx_bytes"] - before["rx_bytes"] == len(frame)
        for text in says:
            assert text in explained, explained
            assert text in traced, traced
        for reason in drop:
            if not reason.startswith("tx.") or reason == "tx.DISCONNECTED":  # explain doesn't know what a device will say
                assert f"({reason})" in explained, explained
            assert f"({reason})" in traced, traced
        if same:
            assert steps(explained) == steps(traced), f"explain:\n{explained}\ntrace:\n{traced}"
        return explained


def hexes(frames):
    return {name: [f.hex() if len(f) < 200 else f"{f[:64].hex()}... {len(f)} bytes" for f in some] for name, some in frames.items()}


def steps(text):
    """(stage, text) of each line of an explanation or a trace, without what is of that moment only: times, whether a flow was cached."""
    result = []
    for line in text.splitlines():
        if not line.startswith("  "):
            continue
        words = line.split()
        while len(words) > 2 and words[1] == "ns":
            words = words[2:]
        if words[0] in ("flow", "(more", "assumed", "port", "offload", "bytes"):  # the last four: what only explain has
            continue
        text = " ".join(words[1:])
        if ", seen " in text:  # the age of an entry
            text = text[:text.index(", seen ")]
        result.append((words[0], text))
    return result


# --- frames

def mac(n):
    return f"52:54:00:00:{n >> 8 & 255:02x}:{n & 255:02x}"


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


BROADCAST = "ff:ff:ff:ff:ff:ff"


def frame(src, dst, *tags, payload=b"", size=60, ethertype=0x88b5):
    """A frame of an experimental Ethertype. src, dst: numbers of mac() or text. tags: VLAN ids, or (ethertype, TCI)."""
    src, dst = (mac(a) if isinstance(a, int) else a for a in (src, dst))
    data = mac_bytes(dst) + mac_bytes(src)
    for tag in tags:
        tpid, tci = tag if isinstance(tag, tuple) else (0x8100, tag)
        data += struct.pack("!HH", tpid, tci)
    return (data + struct.pack("!H", ethertype) + payload).ljust(size, b"\0")


class Stream:
    """Numbered packets from one Wire to another, at a rate, by a process of its own, so that nothing the test does holds it up.

    The sender writes a sequence number behind the Ethernet header; the receiver says which are missing and which came twice or late.
    """

    def __init__(self, source, target, src, dst, rate=2000):
        self.target = target
        # A TAP's queue of 1,000 would overflow when the switch has no processor for half a second: that isn't what a stream is to show.
        run("ip", "link", "set", "dev", source.interface, "txqueuelen", 10000, check=False)
        head = frame(src, dst)[:14]
        self.head, self.seen = head, []
        reader, self.stop_fd = os.pipe()
        self.process = os.fork()
        if not self.process:
            code = 1
            try:
                os.close(self.stop_fd)
                code = self._send(source, head, rate, reader)
            finally:
                os._exit(code)
        os.close(reader)

    @staticmethod
    def _send(source, head, rate, reader):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        number, start = 0, time.monotonic()
        while True:
            due = int((time.monotonic() - start) * rate)
            if due - number > 100:  # it had no processor for a while: no burst now, for which the kernel has no room
                start += (due - number - 100) / rate
                due = number + 100
            while number < due:
                source.send((head + struct.pack("!I", number)).ljust(60, b"\0"))
                number += 1
            # Ends when the other side closes its end, also because it died.
            if select.select([reader], [], [], 1 / rate)[0]:
                source.send((head + struct.pack("!I", 0xffffffff)).ljust(60, b"\0"))
                return 0

    def poll(self):
        for data in self.target.received():
            if data[:14] == self.head:
                self.seen.append(struct.unpack("!I", data[14:18])[0])
        return len(self.seen)

    def wait(self, more, limit=20.0):
        """Until so many packets more have arrived."""
        start = self.poll()
        wait_for(lambda: self.poll() >= start + more, limit * SLOW, lambda: f"{more} packets of a stream, not {len(self.seen) - start}", 0.01)

    def end(self, limit=10.0):
        """Ends it; the numbers of the packets that are missing, and the pairs that came in wrong order or twice."""
        os.close(self.stop_fd)
        os.waitpid(self.process, 0)
        try:
            wait_for(lambda: self.poll() and self.seen[-1] == 0xffffffff, limit * SLOW, "the last packet of a stream", 0.01)
        except Timeout:
            pass
        numbers = [n for n in self.seen if n != 0xffffffff]
        self.count = len(numbers)
        last = numbers[-1] if numbers else -1
        missing = sorted(set(range(last + 1)) - set(numbers))
        return missing, [pair for pair in zip(numbers, numbers[1:]) if pair[1] <= pair[0]]
