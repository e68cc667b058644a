"""The switches that the bench compares. Each forwards between the two sockets of the generator, with one worker on one processor.

A peer has start(paths, kind) for a mix of a kind, plan() for what the mix needs of it, stop(), pid, and facts() for what it counted. What is not its worker
is moved away by the bench.
"""

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guest import tail
from lab import Switch, SwitchError, unixctl
from process import BenchError, end, spawn, wait_until

ROOT = Path(__file__).resolve().parents[2]


class Peer:
    pages = 256     # hugepages that it takes
    what = ""
    rewrites = True  # it does to packets what the mix asks
    answers = False  # it answers ARP and neighbour discovery

    def __init__(self, rundir, cpus):
        """cpus: that of the worker, that of all else."""
        self.rundir, (self.cpu, self.other) = Path(rundir), cpus
        self.process = None

    def log(self, name):
        return str(self.rundir / name)

    @property
    def pid(self):
        return self.process.pid

    def plan(self, plan, routes):
        """What a router or a tunnel needs: what the generator says of the mix, and a file of routes. See gen.c."""

    def settle(self, generator, flows, mix):
        """Before a window: as it is when that many flows of the mix have been in use for a long time."""

    def facts(self):
        """What the switch says of itself."""
        return {}

    def stop(self):
        end(self.process)


class Weir(Peer):
    answers = True

    def __init__(self, rundir, cpus, build, trace=None):
        """trace: one packet in so many is traced."""
        super().__init__(rundir, cpus)
        self.trace, self.tracer = trace, None
        self.switch = Switch(rundir=rundir, build=build, huge=True, options=["--memory", "512"])

    @property
    def pid(self):
        return self.switch.daemon.pid

    def start(self, paths, kind):
        self.kind, s = kind, self.switch.start()
        s.weirctl("config", "set", "poll=busy", f"worker-cores={self.cpu}")
        networks = ["bench", "bench"] if kind.startswith("l2") else ["bench", "other"]
        words = [word for name in dict.fromkeys(networks) for word in ("network", "add", name, "--")]
        s.weirctl(*words, "port", "add", "a", "--network", networks[0], "--path", paths[0],
                  "--", "port", "add", "b", "--network", networks[1], "--path", paths[1])
        if self.trace:
            self.tracer = subprocess.Popen(["taskset", "-c", str(self.other), str(s.build / "ctl/weirctl"), "--ctl", s.ctl, "trace",
                                            "--sample", f"1/{self.trace}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def plan(self, plan, routes):
        if self.kind.startswith("l2"):
            return
        s = self.switch
        s.weirctl("router", "add", "r")
        for side, network in enumerate(("bench", "other")):
            here = plan["switch"][side]
            if self.kind.startswith("route") or side:  # with tunnels it is the uplink's network that has an address
                s.weirctl("router-port", "add", f"r{side}", "--router", "r", "--network", network, "--mac", here["mac"], f"{here['ip']}/{here['len']}")
        if self.kind.startswith("vxlan"):
            (host,) = s.weirctl("host", "list", json=True)
            s.weirctl("host", "set", host["name"], "--tunnel-ips", plan["switch"][1]["ip"])
            s.weirctl("network", "set", "bench", f"vni={plan['vni']}", f"flood_to={plan['vtep']['ip']}")
        else:
            lines = (line.split() for line in open(routes))
            Path(self.log("weir-routes")).write_text("".join(f"{prefix} via {gateway}\n" for prefix, gateway, _ in lines))
            s.weirctl("route", "load", self.log("weir-routes"), "--router", "r", limit=120)

    def facts(self):
        rows = json.loads(self.switch.unixctl("port/stats", "--json"))
        return {key: sum(row[key] for row in rows) for key, value in rows[0].items() if isinstance(value, int)}

    def stop(self):
        if self.tracer:
            end(self.tracer)
        try:
            self.switch.stop(check=False)
        except SwitchError as e:
            print(f"bench: weir: {e}", file=sys.stderr)


class Testpmd(Peer):
    what = "DPDK's testpmd, forwarding mode io: what the vhost library itself can do"
    rewrites = False

    def start(self, paths, kind):
        if not shutil.which("dpdk-testpmd"):
            raise BenchError("there is no dpdk-testpmd: scripts/install-deps bench")
        vdevs = [word for i, path in enumerate(paths) for word in ("--vdev", f"net_vhost{i},iface={path},client=1")]
        self.process = spawn(["dpdk-testpmd", "--lcores", f"0@{self.other},1@{self.cpu}", "--main-lcore", "0", "--in-memory", "--no-pci",
                              "--no-telemetry", "--file-prefix", f"bench-pmd-{os.getpid()}", "-m", "256", *vdevs,
                              "--", "--forward-mode=io", "--burst=32", "--nb-cores=1", "--total-num-mbufs=32768", "--no-mlockall", "--interactive"],
                             self.log("testpmd.log"), stdin=subprocess.PIPE, env={**os.environ, "RUNTIME_DIRECTORY": str(self.rundir)})
        # Without a terminal it would end at the end of its input, which stays open.
        self.process.stdin.write(b"start\n")
        self.process.stdin.flush()

    def stop(self):
        if self.process and self.process.poll() is None:
            try:
                self.process.stdin.write(b"quit\n")
                self.process.stdin.close()
                self.process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                pass
        end(self.process)


def unpacked_ovs():
    """The folder of Debian's OVS-DPDK, unpacked into the cache. Installed, it would start services of its own."""
    path = ROOT / "integration/image/build"
    loader = importlib.machinery.SourceFileLoader("image_build", str(path))
    image = importlib.util.module_from_spec(importlib.util.spec_from_loader("image_build", loader))
    loader.exec_module(image)
    cache = image.cache_folder()
    tree = cache / "openvswitch"
    if not tree.exists():
        with tempfile.TemporaryDirectory(dir=cache) as tmp:
            for package in ("openvswitch-switch", "openvswitch-switch-dpdk"):
                print(f"bench: fetching {package}", file=sys.stderr)
                subprocess.run(["dpkg", "-x", str(image.apt_download(package, tmp)), tmp + "/tree"], check=True)
            Path(tmp + "/tree").rename(tree)
    return tree


class Ovs(Peer):
    pages = 700
    settings, bridge = {}, {}

    def start(self, paths, kind):
        tree = unpacked_ovs()
        self.db = "unix:" + self.log("db.sock")
        self.ctl = self.log("vswitchd.ctl")
        self.tool = tree / "usr/bin/ovs-vsctl"
        env = {**os.environ, "OVS_RUNDIR": str(self.rundir), "OVS_LOGDIR": str(self.rundir), "OVS_DBDIR": str(self.rundir),
               "OVS_SYSCONFDIR": str(self.rundir), "OVS_PKGDATADIR": str(tree / "usr/share/openvswitch"), "RUNTIME_DIRECTORY": str(self.rundir)}
        subprocess.run(["ovsdb-tool", "create", self.log("conf.db"), str(tree / "usr/share/openvswitch/vswitch.ovsschema")], check=True)
        self.database = spawn(["ovsdb-server", self.log("conf.db"), "--remote=punix:" + self.log("db.sock"), "--unixctl=" + self.log("db.ctl"),
                               "--log-file=" + self.log("ovsdb-server.log"), "-vconsole:off"], self.log("ovsdb-server.out"), env=env)
        wait_until(lambda: os.path.exists(self.log("db.sock")), 10, "no database of OVS")
        other = {"dpdk-init": "true", "dpdk-lcore-mask": hex(1 << self.other), "pmd-cpu-mask": hex(1 << self.cpu),
                 "dpdk-extra": f"--in-memory --no-pci --no-telemetry --file-prefix=bench-ovs-{os.getpid()}", **self.settings}
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", *[f'other_config:{k}="{v}"' for k, v in other.items()])
        # A network namespace of its own: it makes interfaces named after its bridge.
        self.process = spawn(["unshare", "--net", tree / "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", self.db, "--unixctl=" + self.ctl,
                              "--log-file=" + self.log("ovs-vswitchd.log"), "-vconsole:off"], self.log("ovs-vswitchd.out"), env=env)
        # With tunnels the uplink is in a bridge of its own, whose internal port is their end point.
        bridges = ["br", "br-phy"] if kind.startswith("vxlan") else ["br", "br"]
        words = [word for name in dict.fromkeys(bridges) for word in
                 ("--", "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", *[f"other_config:{k}={v}" for k, v in self.bridge.items()])]
        for name, bridge, path in zip("ab", bridges, paths):
            words += ["--", "add-port", bridge, name, "--", "set", "Interface", name, "type=dpdkvhostuserclient", f"options:vhost-server-path={path}"]
        self.vsctl("--timeout=30", *words)
        self.kind = kind

    def plan(self, plan, routes):
        if self.kind.startswith("route"):
            self.plan_routes(plan, routes)
        elif self.kind.startswith("vxlan"):
            self.plan_tunnel(plan)

    def plan_routes(self, plan, routes):
        """A router by flows: a flow for each prefix; its priority is its length."""
        number = {name: self.vsctl("get", "Interface", name, "ofport").strip() for name in "ab"}
        lines = []
        for line in open(routes):
            prefix, gateway, side = line.split()
            here = plan["switch"][int(side)]
            match = f"ipv6,ipv6_dst={prefix}" if ":" in prefix else f"ip,nw_dst={prefix}"
            lines.append(f"priority={100 + int(prefix.split('/')[1])},{match},actions=dec_ttl,mod_dl_src:{here['mac']},"
                         f"mod_dl_dst:{here['stations'][gateway]},output:{number['ab'[int(side)]]}\n")
        Path(self.log("flows")).write_text("".join(lines))
        self.tell("ovs-ofctl", "--protocols=OpenFlow14", "--bundle", "replace-flows", f"unix:{self.log('br.mgmt')}", self.log("flows"))

    def plan_tunnel(self, plan):
        here, there = plan["switch"][1], plan["vtep"]
        self.vsctl("set", "bridge", "br-phy", f'other_config:hwaddr="{here["mac"]}"')
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]
        # nodad: the bridge's address isn't to wait until the bridge is sure that nobody else has it.
        self.tell(*inside, "ip", "address", "add", f"{here['ip']}/{here['len']}", "dev", "br-phy", *(["nodad"] if ":" in here["ip"] else []))
        self.tell(*inside, "ip", "link", "set", "br-phy", "up")
        self.vsctl("add-port", "br", "tunnel", "--", "set", "Interface", "tunnel", "type=vxlan", f"options:remote_ip={there['ip']}",
                   f"options:key={plan['vni']}")
        wait_until(lambda: here["mac"] in self.tell(*inside, "ip", "link", "show", "br-phy"), 10, "OVS' bridge doesn't get its MAC")
        wait_until(lambda: here["ip"] in unixctl(self.ctl, "ovs/route/show"), 10, "OVS sees no address of its own")
        unixctl(self.ctl, "tnl/arp/set", "br-phy", there["ip"], there["mac"])

    @staticmethod
    def tell(*words):
        done = subprocess.run([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        if done.returncode:
            raise BenchError(f"{' '.join(map(str, words))}: {done.stdout}")
        return done.stdout

    def limits(self):
        """(flows that it has, flows that it allows itself)"""
        text = unixctl(self.ctl, "upcall/show")
        return tuple(int(re.search(rf"\({word} (\d+)\)", text).group(1)) for word in ("current", "limit"))

    def settle(self, generator, flows, mix):
        # It allows itself 10,000 flows at first, and 1,000 more with each look at them that was quick and found some thousands: it is made to look
        # more often until there is room, then as always. It looks while the generator rests, which has the same processor.
        if flows < 5000:
            return
        self.vsctl("set", "Open_vSwitch", ".", "other_config:max-revalidator=100")
        generator.ask("mix flows=6000 macs=0 bytes=64 random=no")
        until = time.monotonic() + 120
        while self.limits()[1] < min(1.2 * flows, 190000):
            if time.monotonic() > until:
                raise BenchError(f"OVS doesn't allow itself {flows} flows: it has and allows {self.limits()}")
            generator.ask("learn rate=100000")
            time.sleep(1)
        self.vsctl("remove", "Open_vSwitch", ".", "other_config", "max-revalidator")
        generator.ask("mix " + mix)
        for _ in range(20):
            generator.ask("learn rate=100000")
            if self.limits()[0] >= 0.99 * flows:
                return
            time.sleep(1)
        raise BenchError(f"OVS doesn't keep {flows} flows: it has and allows {self.limits()}")

    def vsctl(self, *words):
        done = subprocess.run([str(self.tool), "--db=" + self.db, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60)
        if done.returncode:
            raise BenchError(f"ovs-vsctl {' '.join(words)}: {done.stdout}\n{tail(self.log('ovs-vswitchd.log'))}")
        return done.stdout

    def facts(self):
        flows, limit = self.limits()
        # Its PMD comes first; the main thread has the same words.
        text = unixctl(self.ctl, "dpif-netdev/pmd-stats-show")
        words = {"rx_packets": "packets received", "emc_hits": "emc hits", "smc_hits": "smc hits", "megaflow_hits": "megaflow hits",
                 "installed": "miss with success upcall", "failed": "miss with failed upcall"}
        found = {key: int(re.search(rf"{name}: (\d+)", text).group(1)) for key, name in words.items()}
        return {"flows": flows, "flow_limit": limit, "misses": found.pop("installed") + found.pop("failed"), **found}

    def stop(self):
        end(self.process)
        end(getattr(self, "database", None))


class OvsPackaged(Ovs):
    what = "OVS-DPDK as Debian packages it, action NORMAL"


class OvsTuned(Ovs):
    what = "OVS-DPDK: signature match cache instead of the exact match cache, a large MAC table"
    settings = {"smc-enable": "true", "emc-insert-inv-prob": "0"}
    bridge = {"mac-table-size": "1048576"}


OTHERS = {"testpmd": Testpmd, "ovs": OvsPackaged, "ovs-tuned": OvsTuned}
