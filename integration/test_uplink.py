"""Uplinks on PCI devices: a switch inside a guest, whose NICs are emulated ones behind an emulated IOMMU, bound to vfio-pci.

    namespace of the test                guest (QEMU, intel-iommu)
      nic0, a TAP  ---- e1000e --------- up0  \\
      nic1, a TAP  ---- virtio, RSS ---- up1  - weir-vswitchd - vhost-user - vguest (a guest without a virtual machine)

The e1000e gets no help from the TAP: QEMU itself sums what the driver asks for, as a NIC would.
"""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guest import Guest, image
from lab import ROOT, SCHEMA, default_build
from wait import wait_for


BUILD = default_build()
NICS = {"up0": "0000:00:10.0", "up1": "0000:00:11.0"}
GUEST_MAC, HOST_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def image_builder():
    import importlib.machinery
    import importlib.util
    loader = importlib.machinery.SourceFileLoader("image_build", str(ROOT / "integration/image/build"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("image_build", loader))
    loader.exec_module(module)
    return module


def initramfs(path):
    """The guests' initramfs, and behind it another archive with the switch and what it needs."""
    files = {"usr/share/weir.ovsschema": SCHEMA}
    programs = [BUILD / "vswitch/weir-vswitchd", BUILD / "ctl/weirctl", BUILD / "tests/tools/vguest", shutil.which("ovsdb-server"),
                shutil.which("ovsdb-tool")]
    for program in map(str, programs):
        files["bin/" + os.path.basename(program)] = program
        text = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
        files.update({library.lstrip("/"): library for library in re.findall(r"(/\S+) \(0x", text)})
    with open(path, "wb") as out:
        out.write(Path(image()[1]).read_bytes())
        cpio = image_builder().Cpio(out)
        for name, file in sorted(files.items()):
            cpio.file(name, Path(os.path.realpath(file)).read_bytes())
        cpio.end()


class SwitchGuest(Guest):
    """A guest with the switch inside, and two NICs for it."""

    def __init__(self, rundir, namespace):
        super().__init__("uplink", rundir, memory=1280, cpus=2, shared=False, slots=0)
        self.namespace = namespace

    def command(self):
        command = super().command()
        command[command.index("-initrd") + 1] = self.file("initrd")
        command[command.index("-append") + 1] += " intel_iommu=on"
        nics = {"e1000e,netdev=net0,id=nic0,mac=52:54:00:09:00:01,addr=0x10,romfile=": "ifname=nic0,vnet_hdr=off",
                "virtio-net-pci,netdev=net1,id=nic1,mac=52:54:00:09:00:02,addr=0x11,mq=on,rss=on,vectors=10,disable-legacy=on,iommu_platform=on,romfile=":
                "ifname=nic1,queues=4"}
        # An IOMMU has to be there before what is behind it.
        at = command.index("-kernel")
        command[at:at] = ["-device", "intel-iommu,intremap=on,eim=off,aw-bits=48,caching-mode=on"]
        for i, (device, netdev) in enumerate(nics.items()):
            command += ["-netdev", f"tap,id=net{i},script=no,downscript=no,{netdev}", "-device", device]
        return ["ip", "netns", "exec", self.namespace, *command]

    def weirctl(self, *args):
        quoted = " ".join(f"'{a}'" for a in args)
        return self.sh(f"WEIR_DB=unix:/run/weir/db.sock WEIR_RUNDIR=/run/weir ASAN_OPTIONS=detect_leaks=0 weirctl {quoted}", 60)

    def list(self, *args):
        return json.loads(self.weirctl("--format=json", *args))

    def status(self, port):
        row = self.list("port", "show", port)
        return dict(row[0]["status"] if isinstance(row, list) else row["status"])

    def start_switch(self):
        for address in NICS.values():
            device = f"/sys/bus/pci/devices/{address}"
            self.sh(f"""modprobe vfio_iommu_type1 && modprobe vfio_pci
                echo vfio-pci > {device}/driver_override
                [ ! -e {device}/driver ] || echo {address} > {device}/driver/unbind
                echo {address} > /sys/bus/pci/drivers_probe
                [ -e /sys/bus/pci/drivers/vfio-pci/{address} ]""")
        self.sh("""echo 128 > /proc/sys/vm/nr_hugepages
            mkdir -p /run/weir && cd /run/weir && ovsdb-tool create weir.db /usr/share/weir.ovsschema
            ovsdb-server /run/weir/weir.db --remote=punix:/run/weir/db.sock --detach --pidfile=/run/weir/ovsdb.pid --unixctl=/run/weir/ovsdb.ctl -vconsole:off
            ASAN_OPTIONS=detect_leaks=0 weir-vswitchd --db unix:/run/weir/db.sock --rundir /run/weir --logdir /run/weir --huge --memory 128 >out 2>&1 &
            """, 60)
        wait_for(lambda: self.run("[ -S /run/weir/weir-vswitchd.ctl ]")[0] == 0, 60, lambda: "the switch in the guest: " + self.logs())
        self.weirctl("init")
        self.weirctl("network", "add", "blue", "vlan=10")

    def logs(self, lines=20):
        try:
            inside = self.run("tail -n 30 /run/weir/out /run/weir/weir-vswitchd.log /run/weir/vguest.log; cut -c1-100 /run/weir/answers | tail -n 20")[1] if self.agent else ""
        except Exception as e:  # what it says is for a failing test only
            inside = f"({e})\n"
        return super().logs(lines) + inside

    def start_vguest(self):
        self.weirctl("port", "add", "vm", "network=blue", "options:path=/run/weir/vm.sock")
        self.sh("""cd /run/weir && mkfifo in && (sleep 100000 > in &)
            RUNTIME_DIRECTORY=/run/weir vguest --lcores "0@(0-1)" --no-huge -m 256 --no-pci --no-telemetry --file-prefix vg -- path=/run/weir/vm.sock,server=1 < in > answers 2> vguest.log &""")
        self.answers = 0
        self.answer("the virtual machine", 60)

    def answer(self, what, limit=20):
        """The lines of the next answer."""

        def complete():
            lines = self.sh(f"tail -n +{self.answers + 1} /run/weir/answers").splitlines()
            while lines and not re.match("ok|error", lines[0]):
                self.answers += 1  # the driver's own words
                lines.pop(0)
            more = re.fullmatch(r"ok (\d+)", lines[0]) if lines and what.startswith("rx") else None
            need = 1 + (int(more.group(1)) if more else 0)
            return lines[:need] if lines and len(lines) >= need else None

        lines = wait_for(complete, limit, lambda: f"an answer to {what}; {self.logs()}")
        self.answers += len(lines)
        assert lines[0].startswith("ok"), f"{what}: {lines[0]}; {self.logs()}"
        return lines

    def ask(self, command):
        self.sh(f"echo '{command}' > /run/weir/in")
        return self.answer(command)

    def received(self, want, limit=30):
        """[(flags, frame)] of the next `want` frames with the mark that the virtual machine has got."""
        found = []

        def enough():
            for line in self.ask("rx 0 64")[1:]:
                _, flags, _, frame = line.split()
                if b"weir".hex() in frame:
                    found.append((flags, bytes.fromhex(frame)))
            return len(found) >= want

        wait_for(enough, limit, lambda: f"{want} frames at the virtual machine, seen {found}")
        return found


class Wire:
    """The far end of a NIC: a TAP in a namespace, read and written as raw frames."""

    def __init__(self, namespace, name):
        helper = ("import socket,sys\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))\ns.bind((sys.argv[1],0))\n"
                  "socket.send_fds(socket.socket(fileno=int(sys.argv[2])),[b'x'],[s.fileno()])\n")
        mine, theirs = socket.socketpair()
        subprocess.run(["ip", "netns", "exec", namespace, sys.executable, "-c", helper, name, str(theirs.fileno())], check=True,
                       pass_fds=[theirs.fileno()])
        _, fds, _, _ = socket.recv_fds(mine, 1, 1)
        mine.close()
        theirs.close()
        self.socket = socket.socket(fileno=fds[0])
        SOL_PACKET, PACKET_AUXDATA = 263, 8
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)

    def send(self, frame):
        self.socket.send(frame)

    def frames(self, want, limit=30):
        """The next `want` frames with the mark, tags that the kernel has taken off put back."""
        found, end = [], time.monotonic() + limit
        while len(found) < want:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            frame, extra, _, address = self.socket.recvmsg(65536, 256)
            if b"weir" not in frame or address[2] == socket.PACKET_OUTGOING:
                continue
            for level, kind, data in extra:
                status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
                if level == 263 and kind == 8 and status & 0x10:  # TP_STATUS_VLAN_VALID
                    frame = frame[:12] + struct.pack("!HH", 0x8100, tci) + frame[12:]
            found.append(frame)
        return found


def udp(src, dst, sport=1000, tag=None, payload=b"weir" * 8):
    from scapy.all import IP, UDP, Dot1Q, Ether, Raw
    ether = Ether(src=src, dst=dst) / Dot1Q(vlan=tag) if tag else Ether(src=src, dst=dst)
    return bytes(ether / IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=sport, dport=9) / Raw(payload))


def right_checksums(frame):
    """Whether all checksums are what they should be."""
    from scapy.all import IP, TCP, UDP, Ether
    packet = Ether(frame)
    again = packet.copy()
    for layer in (IP, TCP, UDP):
        if layer in again:
            del again[layer].chksum
    return bytes(again) == bytes(packet)


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    namespace = f"weir-uplink-{os.getpid()}"
    rundir = tmp_path_factory.mktemp("uplink")
    vm = SwitchGuest(str(rundir), namespace)
    try:
        for command in (["netns", "add", namespace], ["-n", namespace, "tuntap", "add", "nic0", "mode", "tap"],
                        ["-n", namespace, "tuntap", "add", "nic1", "mode", "tap", "multi_queue"],
                        ["-n", namespace, "address", "add", "10.9.0.1/24", "dev", "nic1"],
                        ["-n", namespace, "link", "set", "nic0", "up"], ["-n", namespace, "link", "set", "nic1", "up"]):
            subprocess.run(["ip", *command], check=True)
        initramfs(vm.file("initrd"))
        vm.start()
        vm.wait_up()
        vm.start_switch()
        vm.start_vguest()
        yield vm
        vm.weirctl("health")  # fails if packets are missing
    finally:
        vm.stop()
        subprocess.run(["ip", "netns", "del", namespace], check=False)


@pytest.fixture
def uplink(guest):
    """Makes a port on one of the NICs, which goes again after the test."""
    made = []

    def make(name, *columns):
        guest.weirctl("port", "add", name, "type=dpdk", f"options:devargs={NICS[name]}", *columns)
        made.append(name)
        wait_for(lambda: guest.list("port", "list") and all(p["link_state"] == "up" for p in guest.list("port", "list")), 20, "links")
        return Wire(guest.namespace, "nic" + name[-1])

    yield make
    for name in made:
        guest.weirctl("port", "del", name)


def test_link_and_status(guest, uplink):
    wire = uplink("up0", "network=blue")
    status = guest.status("up0")
    assert status["driver"] == "net_e1000_em" and status["link_speed"] == "1 Gbps" and status["rss"] == "off"
    wire.send(udp(HOST_MAC, GUEST_MAC))
    guest.received(1)
    guest.qmp.execute("set_link", name="nic0", up=False)
    row = wait_for(lambda: next((p for p in guest.list("port", "list") if p["name"] == "up0" and p["link_state"] == "down"), None), 20, "link down")
    assert "no link" in row["problem"]
    guest.qmp.execute("set_link", name="nic0", up=True)
    wait_for(lambda: all(p["link_state"] == "up" for p in guest.list("port", "list")), 20, "link up")


def test_the_device_sums(guest, uplink):
    """What a virtual machine leaves to the device: a checksum; a large packet is cut by the switch and summed by the device."""
    from scapy.all import IP, TCP, Ether, Raw
    wire = uplink("up0", "network=blue")
    ether = Ether(src=GUEST_MAC, dst=HOST_MAC) / IP(src="10.9.0.2", dst="10.9.0.1")
    frame = bytearray(bytes(ether / TCP(sport=1, dport=2, flags="A") / Raw(b"weir" * 700)))
    frame[50:52] = pseudo_header(frame)
    guest.ask(f"tx 0 0 {single(frame).hex()} csum=34:16")
    got = wire.frames(1)[0]
    assert right_checksums(got)
    guest.ask(f"tx 0 0 {frame.hex()} csum=34:16 tso=1400:54")
    pieces = wire.frames(2)
    assert [len(p) for p in pieces] == [54 + 1400, 54 + 1400]
    assert all(right_checksums(p) for p in pieces)
    assert b"".join(p[54:] for p in pieces) == bytes(frame[54:])


@pytest.mark.parametrize("strip", ["false", "true"])
def test_vlan(guest, uplink, strip):
    """A trunk, whether the device takes the tag off or not."""
    wire = uplink("up0", "vlan_mode=trunk", "trunks=blue", f"options:vlan-strip={strip}")
    wire.send(udp(HOST_MAC, GUEST_MAC, tag=10))
    _, frame = guest.received(1)[0]
    assert frame == udp(HOST_MAC, GUEST_MAC)
    guest.ask(f"tx 0 0 {udp(GUEST_MAC, HOST_MAC).hex()}")
    assert wire.frames(1)[0] == udp(GUEST_MAC, HOST_MAC, tag=10)
    wire.send(udp(HOST_MAC, GUEST_MAC, tag=11))
    wait_for(lambda: any(d["reason"] == "vlan.NOT_MEMBER" or d["reason"].startswith("vlan.") for d in guest.list("drops")), 20, "the drop of VLAN 11")


def test_rss(guest, uplink):
    """Flows are spread over the queues of a device that can, and all of them arrive."""
    wire = uplink("up1", "network=blue", "options:queues=4")
    assert guest.status("up1")["rss"] == "on"
    guest.ask("clear 0")
    for sport in range(64):
        wire.send(udp(HOST_MAC, GUEST_MAC, sport=5000 + sport))
    guest.received(64, 60)
    queues = {q["queue"]: q["packets"] for q in guest.list("worker", "queues") if q["port"] == "up1"}
    assert len(queues) == 4 and sum(n > 0 for n in queues.values()) >= 3, queues


def test_partial_checksums_come_in(guest, uplink):
    """What a device did not sum, because nobody needs it to, is handed on to a virtual machine that can do without."""
    uplink("up1", "network=blue")
    guest.ask("clear 0")
    script = ("import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.sendto(b'weir'*8,('10.9.0.2',9))\n")
    subprocess.run(["ip", "-n", guest.namespace, "neigh", "replace", "10.9.0.2", "lladdr", GUEST_MAC, "dev", "nic1"], check=True)
    subprocess.run(["ip", "netns", "exec", guest.namespace, sys.executable, "-c", script], check=True)
    flags, _ = guest.received(1)[0]
    assert "p" in flags


def ones_sum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) // 2 * 2])) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def pseudo_header(frame):
    """What a driver leaves in the checksum of TCP: the sum of the pseudo-header (virtio 1.2 section 5.1.6.2)."""
    length = len(frame) - 34
    return struct.pack("!H", ones_sum(bytes(frame[26:34]) + struct.pack("!HH", 6, length)))


def single(frame):
    """The frame cut to one segment, as a driver would send it."""
    short = bytearray(frame[:54 + 400])
    short[16:18] = struct.pack("!H", len(short) - 14)
    short[24:26] = b"\0\0"
    short[24:26] = struct.pack("!H", ~ones_sum(bytes(short[14:34])) & 0xffff)
    short[50:52] = pseudo_header(short)
    return bytes(short)
