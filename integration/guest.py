"""Test guests: QEMU with Debian's cloud kernel, an initramfs of busybox and an agent that runs scripts.

    with Guest("vm1", rundir, [Nic(rundir + "/vm1.sock")]) as vm1, Guest(...) as vm2:
        boot([vm1, vm2])
        rc, out = vm1.run("ip link")

Guests are emulated (TCG), so that they run anywhere. QEMU 7.2 fails with vhost-user, TCG and MSI-X together, therefore
virtio-net gets `vectors=0`. Standard library only.
"""

import base64
import concurrent.futures
import ctypes
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from wait import Timeout, wait_for

HERE = Path(__file__).resolve().parent
QEMU = os.environ.get("WEIR_QEMU", "qemu-system-x86_64")


class GuestError(Exception):
    pass


def image():
    """(kernel, initramfs), built when needed."""
    done = subprocess.run([str(HERE / "image/build")], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise GuestError("the guest image can't be built")
    return done.stdout.split()


def die_with_parent():
    """Run in a child before exec: the kernel kills it when the thread that started it ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tail(path, lines=20):
    try:
        return "".join(Path(path).read_text(errors="replace").splitlines(keepends=True)[-lines:])
    except OSError as e:
        return f"({e})\n"


@dataclass
class Nic:
    """One virtio-net device of a guest, and what is behind it."""

    path: str = None       # of the vhost-user socket
    mac: str = None        # None: made from the guest's name and the NIC's position
    server: bool = True    # QEMU listens and the switch connects; False: the other way round
    queues: int = 1        # queue pairs
    packed: bool = False   # packed virtqueues
    mrg_rxbuf: bool = True
    csum: bool = True      # checksum offloads, both directions
    tso: bool = True       # TCP segmentation offload, both directions
    legacy: bool = False   # a virtio 0.9 device
    host_mtu: int = 0      # VIRTIO_NET_F_MTU
    netdev: str = None     # another back-end than vhost-user: text for -netdev after the id
    properties: dict = field(default_factory=dict)  # more of virtio-net-pci's

    def device(self):
        """Properties of the virtio-net-pci device."""
        p = {"mac": self.mac, "romfile": "", "vectors": 0, "mrg_rxbuf": self.mrg_rxbuf}
        if self.queues > 1:
            p["mq"] = True
        if self.packed:
            p["packed"] = True
        if not self.csum:
            p.update({"csum": False, "guest_csum": False})
        if not (self.tso and self.csum):
            p.update(dict.fromkeys(["gso", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "host_tso4", "host_tso6",
                                    "host_ecn", "host_ufo"], False))
        if self.legacy:
            p.update({"disable-legacy": False, "disable-modern": True})
        if self.host_mtu:
            p["host_mtu"] = self.host_mtu
        p.update(self.properties)
        return p


class Qmp:
    """A client of QEMU's machine protocol: one command at a time; events are kept until asked for."""

    def __init__(self, path, limit=30):
        self.events = []
        self.buffer = b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._read(limit)
        self.execute("qmp_capabilities", limit=limit)

    def _read(self, limit):
        """The next message, or None after `limit` seconds."""
        end = time.monotonic() + limit
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return None
            if not data:
                raise GuestError("QEMU has closed its control socket")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def execute(self, command, limit=30, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.settimeout(limit)
        self.socket.sendall(json.dumps(request).encode())
        end = time.monotonic() + limit
        while True:
            message = self._read(end - time.monotonic())
            if message is None:
                raise Timeout(f"waited {limit:g} s for QEMU's answer to {command}")
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise GuestError(f"QEMU refuses {command}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]

    def wait_event(self, name, limit=30):
        end = time.monotonic() + limit
        while True:
            for message in self.events:
                if message["event"] == name:
                    self.events.remove(message)
                    return message
            message = self._read(end - time.monotonic())
            if message is None:
                raise Timeout(f"waited {limit:g} s for QEMU's event {name}")
            self.events.append(message)

    def close(self):
        self.socket.close()


class Agent:
    """The host's end of image/agent. Several scripts may run at once."""

    numbers = itertools.count(1)

    def __init__(self, path):
        self.waiting = {}
        self.lock = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        threading.Thread(target=self._reader, daemon=True).start()

    def _reader(self):
        problem = "QEMU has closed the agent's socket"
        try:
            for line in self.socket.makefile("rb"):
                parts = line.split()
                future = self.waiting.pop(parts[0], None) if 2 <= len(parts) <= 3 else None
                if future:
                    text = base64.b64decode(parts[2]).decode(errors="replace") if len(parts) == 3 else ""
                    future.set_result((int(parts[1]), text))
        except OSError as e:
            problem = str(e)
        for key in list(self.waiting):
            future = self.waiting.pop(key, None)
            if future:
                future.set_exception(GuestError(problem))

    def send(self, script, limit):
        """A future of (exit code, output)."""
        key = b"%d.%d" % (os.getpid(), next(self.numbers))
        future = concurrent.futures.Future()
        self.waiting[key] = future
        # The empty line first ends what a former connection may have left unfinished.
        with self.lock:
            self.socket.sendall(b"\n%s %d %s\n" % (key, max(1, round(limit)), base64.b64encode(script.encode())))
        return future

    def close(self):
        # close() alone would leave the reader waiting, and the connection open with it.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


class Guest:
    def __init__(self, name, rundir, nics=(), memory=192, cpus=1, shared=True, slots=2, die_with_parent=True, arguments=()):
        """A guest that is not started yet. All its files are <rundir>/<name>.*.

        shared: its memory can be mapped by the switch. slots: PCI Express ports for devices that come later.
        die_with_parent: killed when this program ends in whatever way; start() belongs into the main thread then.
        """
        self.name, self.rundir = name, Path(rundir)
        self.nics = list(nics)
        self.memory, self.cpus, self.shared, self.slots = memory, cpus, shared, slots
        self.die_with_parent, self.arguments = die_with_parent, list(arguments)
        self.memory_options = ""  # more of -m, such as ",slots=2,maxmem=1G"
        self.process = self.agent = self._qmp = None
        for position, nic in enumerate(self.nics):
            self._name_nic(nic, position)

    def _name_nic(self, nic, position):
        if not nic.mac:
            number = int((re.findall(r"\d+", self.name) or ["0"])[-1])
            nic.mac = f"52:54:00:00:{position:02x}:{number & 0xff:02x}"

    def file(self, suffix):
        return str(self.rundir / f"{self.name}.{suffix}")

    # --- QEMU

    def command(self):
        kernel, initramfs = image()
        command = [
            QEMU, "-name", self.name, "-M", "q35,accel=tcg,memory-backend=mem,usb=off", "-cpu", "max", "-smp", str(self.cpus),
            "-m", f"{self.memory}{self.memory_options}", "-object",
            f"memory-backend-memfd,id=mem,size={self.memory}M,share={'on' if self.shared else 'off'}",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", kernel, "-initrd", initramfs,
            "-append", "console=ttyS0 quiet mitigations=off net.ifnames=0",
            "-serial", "file:" + self.file("console"),
            "-qmp", f"unix:{self.file('qmp')},server=on,wait=off",
            "-chardev", f"socket,id=ctl,path={self.file('ctl')},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=ctl,name=ctl",
        ]
        for slot in range(self.slots):
            command += ["-device", f"pcie-root-port,id=slot{slot},chassis={slot + 1},slot={slot + 1}"]
        for i, nic in enumerate(self.nics):
            if nic.netdev:
                command += ["-netdev", f"{nic.netdev},id=net{i}"]
            else:
                mode = "server=on,wait=off" if nic.server else "reconnect=1"
                command += ["-chardev", f"socket,id=vhost{i},path={nic.path},{mode}",
                            "-netdev", f"vhost-user,id=net{i},chardev=vhost{i},queues={nic.queues}"]
            values = [f"{k}={'on' if v is True else 'off' if v is False else v}" for k, v in nic.device().items()]
            command += ["-device", ",".join(["virtio-net-pci", f"netdev=net{i}", f"id=nic{i}"] + values)]
        return command + self.arguments

    def start(self):
        """Starts QEMU and returns; wait_up() waits for the guest. QEMU waits for the switch at its vhost-user sockets."""
        for path in [self.file("qmp"), self.file("ctl")] + [n.path for n in self.nics if n.server and n.path]:
            Path(path).unlink(missing_ok=True)
        command = self.command()
        with open(self.file("log"), "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True,  # Ctrl-C is for this program, which ends it in order
                                            preexec_fn=die_with_parent if self.die_with_parent else None)
        return self

    def logs(self, lines=20):
        """The ends of the console and of QEMU's output, for a failing test."""
        return "".join(f"--- {self.file(s)}\n{tail(self.file(s), lines)}" for s in ("console", "log")
                       if os.path.exists(self.file(s)))

    def _alive(self):
        if self.process and self.process.poll() is not None:
            raise GuestError(f"guest {self.name}: QEMU has ended with {self.process.returncode}: {tail(self.file('log'))}")
        if "Kernel panic" in tail(self.file("console"), 100):
            raise GuestError(f"guest {self.name}: kernel panic:\n{tail(self.file('console'), 40)}")
        return True

    def wait_up(self, limit=180, but=None):
        """Waits until the agent answers, after a start or a reboot. Returns the kernel's boot id; `but` is one not to take."""

        def connected():
            if self.agent:
                return True
            self._alive()
            try:
                self.agent = Agent(self.file("ctl"))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True

        end = time.monotonic() + limit
        wait_for(connected, limit, f"guest {self.name}'s agent socket")
        # What is sent while the guest boots may be lost, and a busy host may answer late: ask again, take any answer.
        asked, pause = [], 0.3
        while True:
            asked.append(self.agent.send("cat /proc/sys/kernel/random/boot_id", 20))
            done, _ = concurrent.futures.wait(asked, pause, concurrent.futures.FIRST_COMPLETED)
            for future in done:
                boot_id = future.result()[1].strip()
                if boot_id and boot_id != but:
                    return boot_id
                asked.remove(future)
            pause = min(pause * 1.3, 5)
            self._alive()
            if time.monotonic() > end:
                raise Timeout(f"waited {limit:g} s for guest {self.name}; its console:\n{tail(self.file('console'))}"
                              f"QEMU says:\n{tail(self.file('log'))}")

    @property
    def qmp(self):
        if not self._qmp:
            wait_for(lambda: os.path.exists(self.file("qmp")), 10, f"guest {self.name}'s QMP socket")
            self._qmp = Qmp(self.file("qmp"))
        return self._qmp

    def _ended(self):
        if self.agent:
            self.agent.close()
        if self._qmp:
            self._qmp.close()
        self.agent = self._qmp = None

    def kill(self):
        """kill -9, as the host's OOM killer does it."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self._ended()
        self.process = None

    def stop(self):
        """Ends QEMU in an orderly way: its back-ends are told."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                pass  # QEMU waits for a switch that isn't there
        self.kill()

    def shutdown(self, limit=30):
        """The guest switches itself off."""
        self.agent.send("poweroff -f", 10)
        self.process.wait(limit)
        self.kill()

    def _rebooted(self, how, limit):
        before = self.wait_up(limit)
        how()
        self.wait_up(limit, but=before)

    def reset(self, limit=180):
        """The reset button; returns when the guest is up again."""
        self._rebooted(lambda: self.qmp.execute("system_reset"), limit)

    def reboot(self, limit=180):
        """The guest restarts itself; returns when it is up again."""
        self._rebooted(lambda: self.agent.send("reboot -f", 10), limit)

    def plug(self, nic, limit=30):
        """Hot-plugs a NIC and returns its name in the guest."""
        position = len(self.nics)
        self._name_nic(nic, position)
        if nic.server and nic.path:
            Path(nic.path).unlink(missing_ok=True)
        used = sum(hasattr(n, "slot") for n in self.nics)
        if used >= self.slots:
            raise GuestError(f"guest {self.name} has no free slot")
        backend = {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": nic.path}},
                                              "server": nic.server, "wait": False}}
        if not nic.server:
            backend["data"]["reconnect"] = 1
        self.qmp.execute("chardev-add", id=f"vhost{position}", backend=backend)
        self.qmp.execute("netdev_add", type="vhost-user", id=f"net{position}", chardev=f"vhost{position}", queues=nic.queues,
                         limit=limit)
        nic.slot = f"slot{used}"
        device = {"driver": "virtio-net-pci", "id": f"nic{position}", "netdev": f"net{position}", "bus": nic.slot}
        self.qmp.execute("device_add", **device, **nic.device())
        self.nics.append(nic)
        return wait_for(lambda: self.interface(nic), limit, f"guest {self.name}'s new NIC")

    def unplug(self, nic, limit=30):
        position = self.nics.index(nic)
        self.qmp.execute("device_del", id=f"nic{position}")
        self.qmp.wait_event("DEVICE_DELETED", limit)
        self.qmp.execute("netdev_del", id=f"net{position}")  # and its chardev with it

    # --- inside

    def send(self, script, limit=30):
        """Starts a script in the guest; a future of (exit code, output). Killed after `limit` seconds (exit code 137)."""
        return self.agent.send(script, limit)

    def run(self, script, limit=30):
        """Runs a script in the guest: (exit code, output)."""
        try:
            return self.send(script, limit).result(limit + 15)
        except concurrent.futures.TimeoutError:
            self._alive()
            raise Timeout(f"waited {limit + 15:g} s for guest {self.name} to run: {script}") from None

    def sh(self, script, limit=30):
        """Runs a script that must succeed; its output without the last line's end."""
        rc, out = self.run(script, limit)
        if rc:
            raise GuestError(f"guest {self.name}: exit code {rc}: {script}\n{out}")
        return out.rstrip("\n")

    def interface(self, nic):
        """Name of a NIC in the guest, None while it isn't there."""
        out = self.sh(f"grep -l {nic.mac} /sys/class/net/*/address || true")
        return out.split("/")[4] if out else None

    def configure(self, address, nic=None, mtu=None):
        """Gives a NIC (the first) an address such as 10.0.0.1/24 and switches it on."""
        name = self.interface(nic or self.nics[0])
        script = f"ip address replace {address} dev {name} && ip link set {name} up"
        if mtu:
            script = f"ip link set {name} mtu {mtu} && " + script
        self.sh(script)
        return name

    def ping(self, address, count=3, interval=0.2, options="", limit=None):
        """(sent, received) of so many pings."""
        limit = limit or count * interval + 10
        _, out = self.run(f"ping -n -c {count} -i {interval} -W 2 {options} {address}", limit)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", out)
        if not found:
            raise GuestError(f"guest {self.name}: ping {address}: {out}")
        return int(found.group(1)), int(found.group(2))

    def wait_ping(self, address, limit=30):
        """Waits until a ping comes back."""
        wait_for(lambda: self.run(f"ping -n -c 1 -W 1 {address}", 5)[0] == 0, limit,
                 lambda: f"a ping from guest {self.name} to {address} to come back; its console:\n{tail(self.file('console'), 5)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def boot(guests, limit=180):
    """Starts guests side by side and waits for all."""
    for guest in guests:
        if not guest.process:
            guest.start()
    for guest in guests:
        guest.wait_up(limit)


def iperf(client, server, address, seconds=3, options="", limit=None):
    """Mbit/s that `server` received over TCP at `address` from `client` (with iperf3's option -R: the other way)."""
    limit = limit or seconds + 30
    port = 5201
    server.sh(f"""killall -q iperf3; rm -f /tmp/iperf.log
        iperf3 -s -1 -D -p {port} -I /tmp/iperf.pid --logfile /tmp/iperf.log
        for i in $(seq 200); do netstat -ltn | grep -q :{port} && exit 0; sleep 0.05; done
        cat /tmp/iperf.log; exit 1""")
    rc, out = client.run(f"iperf3 -J -c {address} -p {port} -t {seconds} --connect-timeout 5000 {options}", limit)
    try:
        result = json.loads(out)
        if "error" in result or rc:
            raise GuestError(f"iperf3 from {client.name} to {address}: {result.get('error', rc)}")
        return result["end"]["sum_received"]["bits_per_second"] / 1e6
    except (ValueError, KeyError) as e:
        raise GuestError(f"iperf3 from {client.name} to {address}: exit code {rc}: {out[-500:]}") from e


def throughput(client, server, address, seconds=3, options="", enough=50):
    """As iperf(), but tries up to three times for more than `enough`: a host with other work to do may starve a guest for a while."""
    best = 0
    for _ in range(3):
        best = max(best, iperf(client, server, address, seconds, options))
        if best > enough:
            break
    return best
