"""What the tests by topology share: kernels as hosts and routers behind ports of a switch, and what is asked of them.

Each kernel is a network namespace of its own. Its interfaces are the kernel ends of TAPs, named after the switch's ports.
"""

import json
import re
import subprocess
from pathlib import Path

from net import SLOW, Namespace, wait_for


class Kernel(Namespace):
    """A host, or with forward=True a router."""

    def __init__(self, forward=False):
        super().__init__(ipv6=True)
        # Every kernel here answers as often as it is asked.
        self.sysctl(**{"net.ipv4.icmp_ratelimit": 0, "net.ipv6.icmp.ratelimit": 0})
        if forward:
            self.sysctl(**{"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})

    def sysctl(self, **values):
        with self:
            for name, value in values.items():
                Path("/proc/sys", *name.split(".")).write_text(str(value))

    def plug(self, lab, port, network, *addresses, mtu=None, port_settings=()):
        """Adds a TAP port to the switch and takes its kernel end."""
        lab.weirctl("port", "add", port, "--type", "tap", "--network", network, *port_settings)
        self.take(port)
        if mtu:
            self.run("ip", "link", "set", "dev", port, "mtu", mtu)
        self.run("ip", "link", "set", "dev", port, "up")
        for address in addresses:
            self.address(port, address)
        return self

    def address(self, device, address):
        self.run("ip", "address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    def route(self, *words):
        self.run("ip", *(["-6"] if any(":" in w for w in words) else []), "route", "replace", *words)

    def default(self, *gateways):
        for gateway in gateways:
            self.route("default", "via", gateway)
        return self

    def mac(self, device):
        return json.loads(self.run("ip", "-j", "link", "show", "dev", device))[0]["address"]

    # --- what is asked

    def ping(self, address, *options, count=3):
        """The text of so many pings, answered or not."""
        return self.run("ping", "-n", "-c", count, "-i", "0.05", "-W", 2 * SLOW, *options, address, check=False, limit=60).stdout

    def answers(self, address, *options, limit=10):
        """A ping comes back, within the limit."""
        wait_for(lambda: "bytes from" in self.ping(address, *options, count=1), limit * SLOW, f"a ping to {address} to come back", 0)

    def reaches(self, address, *options, count=5):
        """Pings come back, as many as are sent but for those under way, and none twice."""
        self.answers(address, *options)
        # With a deadline it waits for the last ones: without, for two round trips only, which says nothing on a busy machine.
        text = self.ping(address, "-w", 10 * SLOW, *options, count=count)
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", text).groups())
        assert count <= received <= sent <= 2 * count and "DUP" not in text, text
        return text

    def traceroute(self, address, *options):
        """The hops, as addresses."""
        text = self.run("traceroute", "-n", "-q", 1, "-w", 3 * SLOW, "-m", 8, "-I", *options, address, limit=60)
        return re.findall(r"^ *\d+  (\S+)", text, re.M)

    def path_mtu(self, address):
        text = self.run("tracepath", "-n", address, limit=60)
        return int(re.findall(r"pmtu (\d+)", text)[-1]), text

    def close(self):
        """Its processes have ended; so its interfaces go with it, once the switch has let go of them."""
        super().close()


def tcp(client, server, address, size=4):
    """iperf3 sends so many megabytes from client to server, and all of them are acknowledged before it ends."""
    listener = server.popen("iperf3", "-s", "-1", "-p", 5201, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: ":5201" in server.run("ss", "-Hltn"), 10 * SLOW, "iperf3 to listen", 0.02)
        text = client.run("iperf3", "-J", "-c", address, "-n", f"{size}M", "--connect-timeout", 5000, check=False, limit=60 * SLOW).stdout
        result = json.loads(text)
        assert "error" not in result and result["end"]["sum_sent"]["bytes"] >= size << 20, text
        # The server counts what it has read when the client has sent all.
        assert result["end"]["sum_received"]["bytes"] > 0, text
        listener.wait(10)
    finally:
        if listener.poll() is None:
            listener.kill()
            listener.wait()


def udp_error(client, address, port=9, family="4"):
    """What a connected UDP socket is told of a packet to that port: the name of the error, or "" within two seconds."""
    script = (f"import socket,errno; s=socket.socket(socket.AF_INET{'6' if family == '6' else ''}, socket.SOCK_DGRAM); s.settimeout({2 * SLOW})\n"
              f"s.connect(('{address}', {port})); s.send(b'x')\n"
              "try: s.recv(1)\nexcept TimeoutError: pass\nexcept OSError as e: print(errno.errorcode[e.errno])")
    return client.run("/usr/bin/python3", "-c", script).strip()


# --- the switch's side

def router(lab, name, ports=(), routes=()):
    """A router with ports {name: (network, addresses...)} and routes (prefix, next hops...[, option, value])."""
    lab.weirctl("router", "add", name)
    for port, (network, *addresses) in dict(ports).items():
        router_port(lab, port, name, network, *addresses)
    for prefix, *words in routes:
        route(lab, name, prefix, *words)


def router_port(lab, name, of, network, *words):
    lab.weirctl("router-port", "add", name, "--router", of, "--network", network, *words)


def route(lab, of, prefix, *gateways, table=()):
    lab.weirctl("route", "add", *(["--table", table] if table else []), of, prefix, *[w for g in gateways for w in ("via", g)])


def tunnel_ips(lab, *addresses):
    """The switch's end points of tunnels."""
    (host,) = lab.weirctl("host", "list", json=True)
    lab.weirctl("host", "set", host["name"], "--tunnel-ips", ",".join(addresses))


def traced(lab, port, action, filter=None):
    """The trace of the first packet of the port that the filter lets through while the action runs."""
    number = lab.trace_start("--port", port, "--count", "1", *(["--filter", filter] if filter else []))
    action()
    return lab.trace_end(number)


def icmp(src, dst):
    """What explain takes for a ping."""
    return f"icmp6,ipv6_src={src},ipv6_dst={dst}" if ":" in dst else f"icmp,nw_src={src},nw_dst={dst}"
