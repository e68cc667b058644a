"""Drop reasons of the way out (tx.*): each is provoked here or by the test of what causes it. Those of stages: in the stages' tests."""

import re
from pathlib import Path

from scapy.all import IP, TCP, Ether, IPv6, IPv6ExtHdrHopByHop, Raw, raw

from net import SLOW, Lab, frame, mac, wait_for
from test_vhost_ports import partial, plug

HERE = Path(__file__).parent
# The switch's order of taking a port away leaves no packet that could find its worker without it; unit tests can make one.
BY_UNIT_TESTS = {"NO_PORT"}


def test_no_memory():
    """Nearly all buffers wait for guests that take nothing, so that there are none to cut a large packet into: that is said, and all goes on
    when there are some again."""
    with Lab() as lab:
        lab.weirctl("config", "set", "mbufs=1024")
        lab.stop_daemon()
        lab.start_daemon()
        lab.network("blue")
        lab.tap("t1", "--network", "blue", f"addresses={mac(1)}")
        # Guests for whom packets have to be cut.
        with plug(lab, "vm1", f"addresses={mac(2)}", guest="offload=0") as one, plug(lab, "vm2", f"addresses={mac(3)}", guest="offload=0") as two, \
                plug(lab, "vm3") as sender:
            def large(to, mss):
                data, start, offset = partial(Ether(src=mac(4), dst=mac(to)) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="A") / Raw(bytes(60000)))
                sender.tx(0, data, csum=(start, offset), tso=(mss, 54))

            def cut():
                lab.wire["t1"].clear()
                large(1, 1400)
                assert len(lab.wire["t1"].wait(43)) == 43

            def waits_no_more():
                wait_for(lambda: not lab.stats("vm3")["queued"], 10 * SLOW, "the queues to be empty", 0.002)
            cut()
            one.stop(0)
            two.stop(0)
            for to in (2, 3):
                sender.tx(0, frame(4, to), times=256)  # their rings are full then

            def out_of_memory():
                waits_no_more()  # what waits is dropped after a while
                large(2, 100)    # 512 buffers, which is what may wait
                large(3, 290)    # 207
                large(3, 100)    # 305 more than that, of which there are 275 at most
                return lab.drops("vm3").get("tx.NO_MEMORY", 0) > 0
            wait_for(out_of_memory, 30 * SLOW, lambda: f"a drop: {lab.drops('vm3')}", 0)
            lab.check_conservation()
            waits_no_more()
            cut()


def test_offload(clean):
    """A checksum of a jumbogram (RFC 2675), which nobody can finish who doesn't trust what the packet says of its length."""
    clean.network("blue")
    clean.tap("t1", "--network", "blue", f"addresses={mac(1)}")
    packet = bytearray(raw(Ether(src=mac(2), dst=mac(1)) / IPv6(src="fd00::2", dst="fd00::1") / IPv6ExtHdrHopByHop() / TCP() / Raw(bytes(100))))
    packet[18:20] = b"\0\0"
    with plug(clean, "vm1") as guest:
        number = clean.trace_start("--port", "vm1", "--count", "1")
        guest.tx(0, packet, csum=(14 + 40 + 8, 16))
        stats = clean.settle("vm1", 1)
        assert clean.drops("vm1") == {"tx.OFFLOAD": 1} and stats["dropped"] == 1
        assert "(tx.OFFLOAD)" in clean.trace_end(number)
        assert clean.stats("t1")["tx_dropped"] == 1 and clean.wire["t1"].received() == []


def test_each_is_provoked():
    """A reason that no test names is one that nobody has seen work."""
    header = (HERE.parents[1] / "ofproto/worker.h").read_text()
    reasons = set(re.findall(r"X\(tx, (\w+),", header))
    assert len(reasons) >= 8
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    named = {reason for reason in reasons if f'"tx.{reason}"' in tests}
    assert reasons - named == BY_UNIT_TESTS
