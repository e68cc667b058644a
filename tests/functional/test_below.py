"""What is lost below the switch: chains that the vhost library discards, frames that the kernel has no room for; and that running out of buffers loses
nothing there."""

import os
import signal
import time

import pytest

from net import BROADCAST, SLOW, Lab, Namespace, Wire, frame, mac, run, wait_for
from test_vhost_ports import plug


@pytest.fixture
def ports(clean):
    clean.network("blue")
    return clean


def below(lab, port):
    """{what: packets or "unknown"} of a port."""
    return {r["loss"]: r["packets"] for r in lab.ask("drops", "--below", "--port", port)}


def test_bad_chains(ports):
    """A chain that holds no packet is discarded by the library, and counted; packets before and behind it arrive."""
    ports.tap("t1", "--network", "blue", f"addresses={mac(1)}")
    with plug(ports, "vm1", f"addresses={mac(2)}") as guest:
        assert below(ports, "vm1") == {"below_rx_bad": 0}
        for n in range(20):
            assert guest.tx(0, frame(2, 1), times=3) == 3
            assert guest.bad(0, 1 + n % 2) == 1 + n % 2
        assert len(ports.wire["t1"].wait(60)) == 60
        wait_for(lambda: below(ports, "vm1")["below_rx_bad"] == 30, 10 * SLOW, lambda: below(ports, "vm1"))
        assert ports.settle("vm1", 60)["rx_packets"] == 60
        health = ports.health()
        assert health["conserved"] and [(r["port"], r["loss"], r["packets"]) for r in health["below"]] == [("vm1", "below_rx_bad", 30)]
        text = ports.weirctl("health")
        assert "Lost below the switch" in text and "below_rx_bad" in text
        wait_for(lambda: ports.port("vm1")["statistics"].get("below_rx_bad") == 30, 10 * SLOW, "the figure in the database")
    # Another device of the port begins where it begins, and the port's figure goes on.
    with plug(ports, "vm1", port=False) as guest:
        guest.bad(0, 4)
        guest.tx(0, frame(2, 1), times=5)
        ports.settle("vm1", 65)
    # Also if the guest, or the device, goes before anybody has looked.
    ports.weirctl("port", "set", "vm1", "options:queues=2")
    assert below(ports, "vm1")["below_rx_bad"] == 34


def test_many_bad_chains(ports):
    """More than the index of a ring can count."""
    with plug(ports, "vm1") as guest:
        total = 0
        while total < 70000:
            total += guest.bad(0, 200)
        wait_for(lambda: below(ports, "vm1")["below_rx_bad"] == total, 20 * SLOW, lambda: f"{total}: {below(ports, 'vm1')}")


def test_packed_is_unknown(ports):
    """Nobody can tell what the library discards of a packed ring: that is what is shown."""
    with plug(ports, "vm1", "options:packed=true", guest="packed=1") as guest:
        guest.tx(0, frame(2, BROADCAST))
        ports.settle("vm1", 1)
        wait_for(lambda: below(ports, "vm1") == {"below_rx_bad": "unknown"}, 10 * SLOW, lambda: below(ports, "vm1"))
        row = wait_for(lambda: (p := ports.port("vm1")) and p["status"].get("unknown") and p, 10 * SLOW, "the port's status")
        assert row["status"]["unknown"] == "below_rx_bad" and "below_rx_bad" not in row["statistics"]
        assert "unknown" in next(line for line in ports.weirctl("drops", "--below").splitlines() if line.startswith("vm1 "))


def test_no_buffers_lose_nothing():
    """Nearly all buffers wait for guests that take nothing. Large packets of another guest wait in its ring then, and none is lost."""
    with Lab() as lab:
        lab.weirctl("config", "set", "mbufs=1024")
        lab.stop_daemon()
        lab.start_daemon()
        lab.network("blue")
        lab.tap("t1", "--network", "blue", f"addresses={mac(1)}", "mtu_request=9000")
        large = frame(4, 1, size=9000)
        with plug(lab, "vm1", f"addresses={mac(2)}") as one, plug(lab, "vm2", f"addresses={mac(3)}") as two, plug(lab, "vm3") as sender:
            one.stop(0)
            two.stop(0)
            rounds = fillers = large_sent = 0
            # A switch that has no processor for a while takes nothing: then it takes longer.
            end = time.monotonic() + 60 * SLOW
            while rounds < 30 or large_sent <= 100 and time.monotonic() < end:
                rounds += 1
                # Buffers that wait for the guests, 100 ms at most, and packets of five buffers between them.
                for to in (2, 3):
                    for _ in range(8):
                        fillers += sender.tx(0, frame(4, to), times=64)
                        large_sent += sender.tx(0, large, times=8)
            stats = lab.settle("vm3", fillers + large_sent, 30)
            assert stats["rx_packets"] == fillers + large_sent and large_sent > 100
            assert below(lab, "vm3") == {"below_rx_bad": 0}
            lab.check_conservation()


def stopped(lab):
    """The switch stands still in the block, all its threads."""
    class Stopped:
        def __enter__(self):
            os.kill(lab.daemon.pid, signal.SIGSTOP)

        def __exit__(self, *_):
            os.kill(lab.daemon.pid, signal.SIGCONT)
    return Stopped()


def send_some(wire, count):
    sent = 0
    for _ in range(count):
        try:
            wire.send(frame(1, BROADCAST))
            sent += 1
        except OSError:
            pass  # the sender is told: it isn't lost
    return sent


def test_tap(ports):
    """More frames than the kernel keeps for a switch that is held up."""
    ports.tap("t1", "--network", "blue")
    assert below(ports, "t1")["below_rx_kernel"] == 0
    start = ports.stats("t1")["rx_packets"]
    with stopped(ports):
        sent = send_some(ports.wire["t1"], 3000)
    wait_for(lambda: ports.stats("t1")["rx_packets"] - start + below(ports, "t1")["below_rx_kernel"] == sent, 10 * SLOW,
             lambda: f"{sent} sent: {ports.stats('t1')}, {below(ports, 't1')}")
    assert below(ports, "t1")["below_rx_kernel"] > 0
    # In another namespace the kernel doesn't say.
    other = Namespace()
    try:
        other.take("t1")
        assert below(ports, "t1") == {"below_rx_buffers": 0, "below_rx_kernel": "unknown", "below_tx_kernel": "unknown"}
    finally:
        ports.delete("t1")
        other.close()


def test_af_packet(ports):
    run("ip", "link", "add", "k0", "type", "veth", "peer", "name", "k1")
    for name in ("k0", "k1"):
        run("ip", "link", "set", name, "up")
    ports.weirctl("port", "add", "up", "--type", "kernel", "--iface", "k0", "--network", "blue")
    with Wire("k1") as wire:
        wait_for(lambda: ports.port("up")["link_state"] == "up", 10 * SLOW, "the link")
        assert below(ports, "up")["below_rx_kernel"] == 0 and "below_rx_full" not in below(ports, "up")
        start = ports.stats("up")["rx_packets"]
        with stopped(ports):
            sent = send_some(wire, 3000)
        wait_for(lambda: ports.stats("up")["rx_packets"] - start + below(ports, "up")["below_rx_kernel"] == sent, 10 * SLOW,
                 lambda: f"{sent} sent: {ports.stats('up')}, {below(ports, 'up')}")
        assert below(ports, "up")["below_rx_kernel"] > 0
    run("ip", "link", "del", "k0")


def test_rubbish(lab):
    for options, sentence in ((["--below", "--reason", "rule"], "--reason"), (["--below", "--port", "nobody"], "there is no port nobody"),
                              (["--below", "--follow"], "don't go together")):
        done = lab.weirctl("drops", *options, check=False)
        assert done.returncode == 1 and sentence in done.stderr and not done.stdout, done
