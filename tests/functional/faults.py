#!/usr/bin/python3
"""Five faults, made in a real switch with two guests, and what an operator types to find each: the page docs/finding-out-why.md.

    tests/functional/faults.py > docs/finding-out-why.md     writes the page anew, with what the commands really say

test_finding_out.py runs the same commands and holds their answers to what the page promises.
"""

import re
import shlex
import sys
from dataclasses import dataclass, field

from scapy.all import IP, TCP, UDP, Dot1Q, Ether, Raw, raw

from net import Lab, wait_for
from vguest import Guest

MACS = {"vm1": "52:54:00:00:00:01", "vm2": "52:54:00:00:00:02"}
ADDRESSES = {"vm1": "10.0.0.1", "vm2": "10.0.0.2"}
PORT = {"vm1": 0, "vm2": 1}


class World:
    """A switch, and two guests on its network "blue"."""

    def __enter__(self):
        self.lab = Lab().start()
        self.lab.network("blue", "mtu=1500")
        paths = {vm: self.lab.path(vm + ".sock") for vm in MACS}
        self.guests = Guest(*[f"path={path},server=1,mac={MACS[vm]},size=256" for vm, path in paths.items()])
        for vm, path in paths.items():
            self.lab.weirctl("port", "add", vm, "--network", "blue", "--path", path)
        self.guests.ready(60)
        wait_for(lambda: all(p["link_state"] == "up" for p in self.lab.weirctl("port", "list", json=True)), 20, "both guests")
        return self

    def __exit__(self, *error):
        try:
            self.guests.quit()
        finally:
            self.lab.stop(check=not error[0])

    def send(self, vm, frame, times=1):
        """Sends frames from a guest, and waits until the switch is done with them."""
        before = self.lab.stats(vm)["rx_packets"]
        assert self.guests.tx(PORT[vm], frame, times=times) == times
        self.lab.settle(vm, before + times, 30)

    def speak(self, *vms):
        """The switch learns where they are."""
        for vm in vms:
            self.send(vm, raw(Ether(src=MACS[vm], dst="ff:ff:ff:ff:ff:ff", type=0x88b5) / Raw(bytes(46))))

    def weirctl(self, *words):
        return self.lab.weirctl(*words).replace(str(self.lab.rundir), "/run/weir")


def tcp(src, dst, dport, size=0, flags="S"):
    return raw(Ether(src=MACS[src], dst=MACS[dst]) / IP(src=ADDRESSES[src], dst=ADDRESSES[dst]) / TCP(sport=40000, dport=dport, flags=flags) / Raw(bytes(size)))


def udp(src, dst, size=18, tag=None):
    ether = Ether(src=MACS[src], dst=MACS[dst])
    return raw((ether / Dot1Q(vlan=tag) if tag else ether) / IP(src=ADDRESSES[src], dst=ADDRESSES[dst]) / UDP(sport=40000, dport=4789) / Raw(bytes(size)))


@dataclass
class Fault:
    name: str
    title: str
    story: str                                   # what the operator is told
    make: object                                 # World: makes the fault, with the traffic that meets it
    steps: list = field(default_factory=list)    # (what it shows, command, [what its answer must have, as expressions])
    cure: list = field(default_factory=list)     # commands
    after: str = ""                              # what is to be said at the end
    healed: object = None                        # World: the same traffic, which must pass now
    undo: object = None


# --- 1. an address that nobody has

def unlearned(w):
    w.weirctl("network", "set", "blue", "unknown_unicast=drop")
    w.lab.weirctl("fdb", "flush")
    w.speak("vm1")
    w.send("vm1", udp("vm1", "vm2"), 5)


def passes(w, frame):
    w.guests.rx(PORT["vm2"])
    w.send("vm1", frame)
    w.guests.rx(PORT["vm2"], 1, 20)


# --- 2. the wrong VLAN

def wrong_vlan(w):
    w.speak("vm1", "vm2")
    w.send("vm1", udp("vm1", "vm2", tag=30), 5)


# --- 3. MTU

def too_large(w):
    w.speak("vm1", "vm2")
    w.weirctl("port", "set", "vm2", "mtu_request=1400")
    w.send("vm1", udp("vm1", "vm2", 1460), 5)


# --- 4. a guest without buffers

def no_buffers(w):
    w.speak("vm1", "vm2")
    w.guests.stop(PORT["vm2"])
    # More than its ring and the switch's queue hold.
    for _ in range(12):
        w.send("vm1", udp("vm1", "vm2"), 200)
    wait_for(lambda: any(r.startswith("tx.") for r in w.lab.drops("vm1")), 20, "packets that vm2 doesn't take")
    wait_for(lambda: any("receive buffers" in p["problem"] for p in w.lab.weirctl("port", "list", json=True) if p["problem"]), 20, "the port to say so")


def take_again(w):
    w.guests.go(PORT["vm2"])
    wait_for(lambda: not w.lab.stats("vm1")["queued"], 20, "the queue to empty")


# --- 5. a rule

def denied(w):
    w.speak("vm1", "vm2")
    w.weirctl("flow", "add", "priority=100,tcp,tp_dst=23,actions=drop")
    w.send("vm1", tcp("vm1", "vm2", 23), 5)


MATCH = "udp,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=40000,tp_dst=4789"
TELNET = MATCH.replace("udp,", "tcp,").replace("4789", "23")

FAULTS = [
    Fault("unlearned", "An address that nobody has",
          "vm1 reaches everybody but vm2. The network drops what is for unknown addresses (`unknown_unicast=drop`), and vm2 has not sent anything since its port came up.",
          unlearned,
          [("What is lost, and why: most first.", "weirctl drops --port vm1", [r"fdb\.UNKNOWN", "vm1"]),
           ("All that the switch knows of these packets, with the verdict first.", f"weirctl why --port vm1 '{MATCH}'", [r"fdb\.UNKNOWN", "problem"]),
           ("The address is not in the table.", "weirctl fdb list", [MACS["vm1"]])],
          ["weirctl fdb add blue 52:54:00:00:00:02 vm2"],
          "A guest that never speaks has a static address; else let the network flood what it doesn't know (`weirctl network set blue unknown_unicast=flood`).",
          lambda w: passes(w, udp("vm1", "vm2")),
          lambda w: w.weirctl("fdb", "del", "blue", MACS["vm2"]) + w.weirctl("network", "set", "blue", "unknown_unicast=flood")),
    Fault("vlan", "The wrong VLAN",
          "Inside vm1 somebody has made a VLAN interface, but vm1's port is an access port.",
          wrong_vlan,
          [("The reason names the port; the last packets are shown in the words that `explain` takes.", "weirctl drops --port vm1", [r"vlan\.", "dl_vlan=30"]),
           ("What would happen to such a packet, stage by stage, without sending one.", f"weirctl explain --port vm1 'dl_vlan=30,{MATCH}'", [r"VLAN 30", r"dropped \(vlan\."])],
          ["weirctl network add green vlan=30", "weirctl port set vm1 vlan_mode=native-untagged trunks=green"],
          "The port takes VLAN 30 now, and passes it into a network of its own.",
          None,
          lambda w: w.weirctl("port", "set", "vm1", "vlan_mode=access", "trunks=") + w.weirctl("network", "del", "green")),
    Fault("mtu", "A packet that is too large",
          "Small packets pass, large ones don't: ssh connects and then hangs.",
          too_large,
          [("", "weirctl drops --port vm1", [r"mtu\.TOO_LARGE", "vm2"]),
           ("The size of the packet is part of the question.", f"weirctl explain --port vm1 '{MATCH},packet_len=1502'", ["against MTU 1400 of vm2", r"mtu\.TOO_LARGE"]),
           ("", "weirctl port list", ["vm2"])],
          ["weirctl port set vm2 mtu_request=1500"],
          "",
          lambda w: passes(w, udp("vm1", "vm2", 1460)),
          None),
    Fault("buffers", "A guest that takes nothing",
          "vm2 hangs, or its driver does: it posts no receive buffers. The switch waits for it a little and then drops, on vm2's account only.",
          no_buffers,
          [("", "weirctl drops --port vm1", [r"tx\.(NO_BUFFERS|QUEUE_FULL)", "vm2"]),
           ("", "weirctl port list", ["no receive buffers posted"]),
           ("", "weirctl health --since 10s", ["vm1", r"tx\.(NO_BUFFERS|QUEUE_FULL)"])],
          [],
          "There is nothing to be set right in the switch: look into the guest, or restart it.",
          take_again,
          None),
    Fault("rule", "A rule that denies",
          "telnet from vm1 to vm2 gets no answer; everything else works.",
          denied,
          [("The drop names the rule.", "weirctl drops --port vm1", [r"rule\.", "Flow"]),
           ("", f"weirctl why --port vm1 '{TELNET}'", [r"rule\.", "Flow"]),
           ("A real packet, followed: the next one that matches the filter of tcpdump's syntax.", "weirctl trace --port vm1 --filter 'tcp port 23' --count 1", [r"dropped \(rule\."]),
           ("", "weirctl flow list", ["tp_dst=23", "drop"])],
          ["weirctl flow del 'tcp,tp_dst=23'"],
          "",
          lambda w: passes(w, tcp("vm1", "vm2", 23)),
          None),
]


def answer(w, command):
    """What the command says. A trace waits for packets: one is sent."""
    words = shlex.split(command)[1:]
    if words[0] != "trace":
        return w.weirctl(*words)
    number = w.lab.trace_start(*words[1:])
    w.send("vm1", tcp("vm1", "vm2", 23))
    return re.sub(r"end\n$", "", w.lab.trace_end(number))


HEAD = """# Finding out why

Five faults, with what an operator types and what the switch says. The output is real: `tests/functional/faults.py` makes each fault in a switch with two guests, and the
suite runs the same commands. vm1 (10.0.0.1, 52:54:00:00:00:01) and vm2 (10.0.0.2, 52:54:00:00:00:02) are on the network "blue".

| question | command |
| --- | --- |
| Is everything in order? Is any packet not accounted for? | `weirctl health`, `weirctl health --since 10s` |
| What is lost, why, and because of which row? | `weirctl drops`, `weirctl drops --follow` |
| Why don't these packets arrive? | `weirctl why MATCH` |
| What would happen to this packet, and to the answer? | `weirctl explain --port PORT MATCH`, `--reply` |
| What happens to real packets? | `weirctl trace --filter EXPRESSION` |
| What do they look like? | `weirctl capture --port PORT --point rx -w -` |
| Who uses the processors? Who is slow? | `weirctl top`, `weirctl port latency`, `weirctl worker history` |
"""


def shown(command):
    return command if len(command) < 110 else command.replace(" '", " \\\n        '", 1)


def page(out):
    out.write(HEAD)
    for number, fault in enumerate(FAULTS, 1):
        with World() as w:
            fault.make(w)
            out.write(f"\n## {number}. {fault.title}\n\n{fault.story}\n")
            for says, command, _ in fault.steps:
                lines = [line.rstrip() for line in answer(w, command).splitlines()]
                # Packets that are the same are on the page once.
                lines = [line for line, before in zip(lines, ["", *lines]) if line != before or not line]
                text = "".join(f"    {line}".rstrip() + "\n" for line in lines)
                out.write((f"\n{says}\n" if says else "") + f"\n    $ {shown(command)}\n{text}")
            if fault.cure:
                out.write("\nThe cure:\n\n" + "".join(f"    $ {c}\n" for c in fault.cure))
            if fault.after:
                out.write(f"\n{fault.after}\n")
            if fault.healed is take_again:
                fault.healed(w)


if __name__ == "__main__":
    page(sys.stdout)
