"""The demonstration behind scripts/demo: a switch, two guests, traffic, and what weirctl shows of it."""

import argparse
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guest import Agent, Guest, GuestError, Nic, boot, image, iperf
from lab import Switch, SwitchError
from wait import Timeout, wait_for

START = float(os.environ.get("WEIR_DEMO_START", time.time()))
NAME = "/tmp/weir-demo-"
VMS = {"vm1": "10.0.0.1", "vm2": "10.0.0.2"}


class Step:
    now = "starting"

    def __new__(cls, text):
        cls.now = text
        print(f"[{time.time() - START:5.1f} s] {text}", flush=True)


def indented(text):
    return "".join(f"    {line}\n" for line in text.rstrip("\n").splitlines())


def show(switch, *args):
    """A weirctl command and what it says."""
    words = " ".join(f"'{a}'" if re.search(r"[^\w./:=-]", a) else a for a in args)
    print(f"  $ weirctl {words}\n{indented(switch.weirctl(*args))}", end="", flush=True)


def start_time(pid):
    """What tells a process from a later one with its number; None when it is gone (proc(5), field 22 of stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def demonstrate(switch, guests):
    Step("starting ovsdb-server on an embedded database, and weir-vswitchd")
    switch.start()
    Step('one network "blue", a vhost-user port for each guest')
    show(switch, "network", "add", "blue")
    for vm in guests:
        show(switch, "port", "add", vm.name, "--network", "blue", "--path", vm.nics[0].path)
        vm.nics[0].host_mtu = int(switch.weirctl("port", "mtu", vm.name))

    Step("booting two guests on QEMU (emulated: no KVM needed)")
    boot(guests)
    for vm in guests:
        vm.configure(VMS[vm.name] + "/24")
    vm1, vm2 = guests

    Step("vm1 pings vm2")
    vm1.wait_ping(VMS["vm2"])
    print(indented(vm1.sh(f"ping -n -c 4 -i 0.2 {VMS['vm2']}")), end="")

    Step("bulk TCP from vm1 to vm2, three seconds of iperf3")
    print(f"    {iperf(vm1, vm2, VMS['vm2'], 3):.0f} Mbit/s")

    Step("what the switch says: ports, addresses it has learned, flows")
    show(switch, "port", "list")
    show(switch, "fdb", "list")
    show(switch, "cache", "list")

    Step("why a packet goes where it goes")
    show(switch, "explain", "--port", "vm1",
         f"eth_src={vm1.nics[0].mac},eth_dst={vm2.nics[0].mac},tcp,ip_src={VMS['vm1']},ip_dst={VMS['vm2']},tcp_dst=5201")

    Step("the ledger: received = sent + queued + dropped by reason")
    switch.check_conservation()
    show(switch, "health")


def stay(switch, guests):
    pids = {g.name: g.process.pid for g in guests}
    pids.update({"weir-vswitchd": switch.daemon.pid, "ovsdb-server": switch.database.pid})
    state = [[name, pid, start_time(pid)] for name, pid in pids.items()]
    Path(switch.path("demo.json")).write_text(json.dumps(state))
    for guest in guests:
        guest.agent.close()
    Step("everything stays up. To play with it:")
    print(f"""
    export WEIR_DB={switch.db} WEIR_RUNDIR={switch.rundir} PATH={switch.build}/ctl:$PATH
    weirctl port list
    weirctl trace --help
    scripts/demo --in vm1 'ping -c 3 10.0.0.2'

    Logs, database and consoles are in {switch.rundir}.
    To end it: scripts/demo --stop
""")


def stayed():
    return sorted(glob.glob(NAME + "*/demo.json"), key=os.path.getmtime)


def stop_stayed():
    found = stayed()
    if not found:
        print("no demo is up")
    for path in found:
        pids = [(name, pid) for name, pid, started in json.loads(Path(path).read_text()) if start_time(pid) == started]
        # Guests first, as their switch should see them go.
        for name, pid in pids:
            os.kill(pid, signal.SIGTERM)
            try:
                wait_for(lambda: start_time(pid) is None, 10, name)
            except Timeout:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)
        print(f"ended the demo in {os.path.dirname(path)}")
    return 0


def run_inside(name, command):
    found = stayed()
    if not found:
        print("no demo is up: scripts/demo --stay", file=sys.stderr)
        return 1
    agent = Agent(os.path.join(os.path.dirname(found[-1]), name + ".ctl"))
    rc, out = agent.send(command, 3600).result()
    print(out, end="")
    return rc


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--stay", action="store_true", help="leave everything up")
    parser.add_argument("--stop", action="store_true", help="end what --stay has left")
    parser.add_argument("--in", dest="inside", nargs=2, metavar=("GUEST", "COMMAND"), help="run a command in a guest")
    options = parser.parse_args()
    if options.stop:
        return stop_stayed()
    if options.inside:
        return run_inside(*options.inside)

    def interrupted(number, _):
        # The first signal ends the demo, and cleaning up is not interrupted by a second one.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)

    rundir, guests, keep = None, [], False
    switch = None
    try:
        Step("the guests' image (Debian's cloud kernel, an initramfs of busybox)")
        image()
        rundir = tempfile.mkdtemp(prefix=os.path.basename(NAME), dir=os.path.dirname(NAME))
        switch = Switch(rundir, die_with_parent=not options.stay)
        guests = [Guest(name, rundir, [Nic(f"{rundir}/{name}.sock")], die_with_parent=not options.stay) for name in VMS]
        demonstrate(switch, guests)
        if options.stay:
            stay(switch, guests)
            guests, switch, rundir = [], None, None
            return 0
        status = 0
    except KeyboardInterrupt as e:
        number = e.args[0] if e.args else signal.SIGINT
        print(f"\nended by {signal.Signals(number).name} while: {Step.now}", flush=True)
        status = 128 + number
    except (GuestError, SwitchError, Timeout, OSError, subprocess.SubprocessError) as e:
        print(f"\nFAILED while: {Step.now}\n\n{e}\n", file=sys.stderr)
        for thing in [switch] + guests if switch else []:
            print(thing.logs(), file=sys.stderr, end="")
        keep, status = True, 1
    finally:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        if rundir:
            Step("cleaning up")
        for guest in guests:
            guest.stop()
        try:
            if switch:
                switch.stop(check=False)
        except SwitchError as e:
            print(f"\nFAILED while: {Step.now}\n\n{e}", file=sys.stderr)
            keep, status = True, 1
        if rundir and not keep:
            shutil.rmtree(rundir, ignore_errors=True)
    Step("done" if status == 0 else f"failed; logs, database and consoles are kept in {rundir}" if keep else "ended")
    return status


if __name__ == "__main__":
    sys.exit(main())
