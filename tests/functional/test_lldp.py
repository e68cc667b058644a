"""LLDP on uplinks: with lldpd, the daemon that hosts and switches run, at the other end of a cable.

    t1 --- weir --- up ===== peer    lldpd, in a namespace of its own
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from net import SLOW, Namespace, Wire, frame, mac_bytes, mac, run, wait_for

LLDP = bytes.fromhex("0180c200000e")


@pytest.fixture
def uplink(clean):
    clean.network("blue")
    run("ip", "link", "add", "upl", "type", "veth", "peer", "name", "peer")
    for name in ("upl", "peer"):
        run("ip", "link", "set", "dev", name, "up")
    clean.weirctl("port", "add", "up", "--type", "kernel", "--iface", "upl", "--network", "blue")
    clean.tap("t1", "--network", "blue")
    yield clean
    clean.weirctl("config", "set", "lldp=off")
    clean.check_conservation()
    clean.clear()
    run("ip", "link", "del", "upl", check=False)


def neighbours(lab):
    return lab.ask("lldp/list")


def said(ttl=120, name="switch1", port="Eth1/7", more=b""):
    def tlv(kind, value):
        return (kind << 9 | len(value)).to_bytes(2, "big") + value

    return (LLDP + mac_bytes(mac(9)) + b"\x88\xcc" + tlv(1, b"\x04" + mac_bytes(mac(9))) + tlv(2, b"\x05" + port.encode()) + tlv(3, ttl.to_bytes(2, "big"))
            + (tlv(4, b"a port") + tlv(5, name.encode()) + more if ttl else b"") + tlv(0, b"")).ljust(60, b"\0")


def test_lldpd(uplink):
    """Each has the other in its list: names, ports, addresses, capabilities."""
    if not shutil.which("lldpd"):
        pytest.skip("no lldpd: scripts/install-deps test")
    uplink.weirctl("config", "set", "lldp=both", "lldp-management-address=192.0.2.7")
    space, tmp = Namespace(), Path(tempfile.mkdtemp())
    tmp.chmod(0o777)  # lldpd gives up its privileges
    space.take("peer")
    space.run("ip", "address", "add", "10.9.9.9/24", "dev", "peer")
    space.run("ip", "link", "set", "dev", "peer", "up")
    daemon = space.popen("unshare", "--mount", "--propagation", "private", "sh", "-c",
                         f"mkdir -p {tmp}/run /run/lldpd && mount -t tmpfs none /run/lldpd; exec lldpd -d -u {tmp}/socket -C peer -I peer",
                         stdout=subprocess.DEVNULL, stderr=open(tmp / "log", "w"))
    try:
        def ours():
            done = run("lldpcli", "-u", tmp / "socket", "-f", "json0", "show", "neighbors", check=False)
            text = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
            return [i for entry in text.get("lldp", []) for i in entry.get("interface", [])]

        wait_for(lambda: neighbours(uplink), 60 * SLOW, lambda: f"lldpd to be heard: {(tmp / 'log').read_text()[-2000:]}", 0.2)
        wait_for(ours, 60 * SLOW, lambda: f"lldpd to hear us: {(tmp / 'log').read_text()[-2000:]}", 0.2)
        it = neighbours(uplink)[0]
        assert it["port"] == "up" and it["its_port"] and it["system"] and "Linux" in it["system_description"] and it["ttl"] > 60
        assert it["address"] == "10.9.9.9"
        assert uplink.weirctl("lldp", "list").split("\n")[1].startswith("up ")
        heard = ours()[0]
        chassis = heard["chassis"][0]
        assert chassis["name"][0]["value"]
        assert "Weir" in chassis["descr"][0]["value"] and chassis["mgmt-ip"][0]["value"] == "192.0.2.7"
        assert [c for c in chassis["capability"] if c["type"] == "Bridge"][0]["enabled"]
        assert heard["port"][0]["id"][0]["value"] == "up" and heard["port"][0]["descr"][0]["value"] == "kernel upl"
        # It goes, and says so.
        daemon.terminate()
        daemon.wait(10)
        wait_for(lambda: not neighbours(uplink), 20 * SLOW, "the neighbour to go", 0.1)
        stats = uplink.ask("lldp/stats")[0]
        assert stats["rx"] >= 2 and stats["tx"] >= 1 and not stats["bad"]
    finally:
        if daemon.poll() is None:
            daemon.kill()
        space.close()
        shutil.rmtree(tmp, ignore_errors=True)


def test_modes(uplink):
    """Off: LLDP is a frame like others of its kind, and none is sent. A port's own word counts more than the switch's."""
    uplink.wire["up"] = Wire("peer")
    uplink.wire["up"].send(said())
    uplink.settle("up", 1)
    assert neighbours(uplink) == [] and uplink.ask("lldp/stats") == [] and uplink.stats("up")["consumed"] == 0
    uplink.weirctl("config", "set", "lldp=rx")
    uplink.wire["up"].send(said())
    wait_for(lambda: neighbours(uplink), 10 * SLOW, "the neighbour", 0.02)
    row = neighbours(uplink)[0]
    assert (row["system"], row["its_port"], row["chassis"], row["description"]) == ("switch1", "Eth1/7", mac(9), "a port")
    assert uplink.stats("up")["consumed"] == 1 and uplink.wire["t1"].received() == []
    wait_for(lambda: uplink.port("up")["status"].get("neighbour") == "switch1 Eth1/7", 10 * SLOW, "the port's status", 0.05)
    uplink.wire["up"].send(said(ttl=0))
    wait_for(lambda: not neighbours(uplink), 10 * SLOW, "it to be gone", 0.02)
    uplink.wire["up"].send(said(ttl=1))
    wait_for(lambda: uplink.ask("lldp/stats")[0]["aged"] == 1, 10 * SLOW, "it to age", 0.05)
    assert neighbours(uplink) == [] and uplink.ask("lldp/stats")[0]["tx"] == 0
    uplink.wire["up"].clear()
    uplink.weirctl("port", "set", "up", "other_config:lldp=tx")
    told = uplink.wire["up"].wait(1)[0]
    assert told[:6] == LLDP and told[12:14] == b"\x88\xcc" and told[14:17] == b"\x02\x07\x04"
    uplink.wire["up"].send(said())
    uplink.settle("up", 4)
    assert neighbours(uplink) == []
    # What held holds no more when it is switched off.
    uplink.wire["up"].clear()
    uplink.weirctl("port", "set", "up", "other_config:lldp=off")
    last = uplink.wire["up"].wait(1)[-1]
    assert last[14:23] == told[14:23] and last[14 + 9:].startswith(told[23:27]) and b"\x06\x02\x00\x00" in last
    done = uplink.weirctl("port", "set", "up", "other_config:lldp=yes", check=False)
    assert done.returncode and "lldp must be one of" in done.stderr
    # Frames without a guest's doing that are no LLDP go on as before.
    f = frame(1, "ff:ff:ff:ff:ff:ff")
    uplink.weirctl("port", "set", "up", "other_config:lldp=both")
    uplink.wire["up"].send(f)
    assert f in uplink.wire["t1"].wait(1)


def test_rubbish(uplink):
    uplink.weirctl("config", "set", "lldp=rx")
    uplink.wire["up"] = Wire("peer")
    whole = said(more=bytes.fromhex("fe060080c2010007") + bytes.fromhex("10020501"))
    for n in range(15, len(whole)):
        uplink.wire["up"].send(whole[:n] if n >= 60 else whole[:n].ljust(60, b"\xff"))
    uplink.settle("up", len(whole) - 15)
    wait_for(lambda: uplink.ask("lldp/stats")[0]["bad"] > 30, 10 * SLOW, lambda: f"them to be read: {uplink.ask('lldp/stats')}", 0.05)
    assert len(neighbours(uplink)) <= 1
