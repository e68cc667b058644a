"""Copies of a mirror as ERSPAN, over IPv4 and IPv6, read by tshark at the analyser.

    a --- weir --- b
           |
           +--- k ===== peer     the analyser, a kernel that answers ARP and ND
                                 (network under: weir is 192.0.2.1, fd00::1, it is .99)
"""

import json
import shutil

import pytest

from net import SLOW, Namespace, Wire, frame, mac, run, wait_for

ANALYSER = {4: "192.0.2.99", 6: "fd00::99"}


@pytest.fixture
def span(clean):
    clean.network("blue", "vlan=10")
    clean.network("under")
    clean.tap("a", "--vlan-mode", "trunk", "trunks=blue")
    clean.tap("b", "--network", "blue", f"addresses={mac(2)}")
    run("ip", "link", "add", "k", "type", "veth", "peer", "name", "peer")
    run("ip", "link", "set", "dev", "k", "up")
    clean.weirctl("port", "add", "k", "--type", "kernel", "--network", "under")
    uuid = {row["name"]: row["_uuid"] for row in clean.weirctl("list", "Network", json=True)}
    clean.weirctl("--id=@r", "create", "Router", "name=r", "--", "create", "Router_Port", "name=r-under", "router=@r", f"network={uuid['under']}",
                  "addresses=192.0.2.1/24,\"fd00::1/64\"")
    host = clean.weirctl("list", "Host", json=True)[0]["_uuid"]
    clean.weirctl("set", "Host", host, "tunnel_ips=192.0.2.1,\"fd00::1\"")
    space = Namespace(ipv6=True)
    space.take("peer")
    space.run("ip", "address", "add", "192.0.2.99/24", "dev", "peer")
    space.run("ip", "address", "add", "fd00::99/64", "dev", "peer", "nodad")
    space.run("ip", "link", "set", "dev", "peer", "up")
    with space:
        clean.analyser = Wire("peer")
    yield clean
    clean.analyser.close()
    clean.weirctl("clear", "Host", host, "tunnel_ips")
    for table in ("Mirror", "Router_Port", "Router"):
        for row in clean.weirctl("list", table, json=True):
            clean.weirctl("destroy", table, row["_uuid"])
    space.close()
    clean.check_conservation()
    clean.clear()
    run("ip", "link", "del", "k", check=False)


def decoded(frames, tmp):
    """What tshark says of the frames."""
    path = tmp / "span.pcap"
    with open(path, "wb") as f:
        f.write(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
        for data in frames:
            f.write(bytes(8) + len(data).to_bytes(4, "little") * 2 + data)
    return [p["_source"]["layers"] for p in json.loads(run("tshark", "-r", path, "-T", "json", "-x"))]


@pytest.mark.parametrize("family", [4, 6])
def test_erspan(span, family, tmp_path):
    if not shutil.which("tshark"):
        pytest.skip("no tshark: scripts/install-deps test")
    span.weirctl("mirror", "add", "m", "--src", "a", "--to-address", ANALYSER[family], "--session", "677")
    data = frame(1, 2, (0x8100, 10 | 5 << 13), payload=bytes(range(40)), size=90)
    got = []

    def copied():  # the analyser has to be asked for its address first
        span.wire["a"].send(data)
        got.extend(f for f in span.analyser.received() if f.endswith(data))
        return len(got) >= 3

    wait_for(copied, 20 * SLOW, lambda: f"copies: {span.drops()}", 0.05)
    layers = decoded(got[-2:], tmp_path)
    for packet in layers:
        assert packet["gre"]["gre.proto"] == "0x88be"
        assert packet["ip" if family == 4 else "ipv6"]["ip.src" if family == 4 else "ipv6.src"] == ("192.0.2.1" if family == 4 else "fd00::1")
        erspan = packet["erspan"]
        assert erspan["erspan.spanid"] == "677" and erspan["erspan.vlan"] == "10" and erspan["erspan.cos"] == "5"
        assert erspan["erspan.version"] in ("1", "0x01") and erspan["erspan.truncated"] in ("0", False)
        assert "".join(packet["frame_raw"][0].split()).endswith(data.hex())
    first, second = (int(p["gre"]["gre.sequence_number"]) for p in layers)
    assert second > first
    # The explanation has it, and the packet itself went its way.
    text = span.explain("a", data)
    assert "erspan packet, session 677" in text and "a copy for tunnel:" in text, text
    span.wire["b"].clear()
    span.wire["a"].send(data)
    assert len(span.wire["b"].wait(1)) >= 1
    # Cut: it says so.
    span.weirctl("mirror", "set", "m", "snaplen=64")
    got.clear()
    short = data[:64]

    def cut():
        span.wire["a"].send(data)
        got.extend(f for f in span.analyser.received() if f.endswith(short))
        return got

    wait_for(cut, 10 * SLOW, "a copy that is cut", 0.05)
    assert decoded(got[-1:], tmp_path)[0]["erspan"]["erspan.truncated"] in ("1", True)
    done = span.weirctl("mirror", "set", "m", "output_address=192.0.2.1", check=False)
    assert done.returncode and "this switch's own" in done.stderr
