"""Metrics: the text and its figures, over HTTP and by weirctl, and clients that mean no good."""

import contextlib
import http.client
import json
import os
import socket
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as prometheus

from net import BROADCAST, SLOW, Lab, Stream, SwitchError, frame, wait_for
from promtool import program, promtool

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# As Prometheus 2.42 asks.
PROMETHEUS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
ADDRESS = "127.0.0.1:9477"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connect(lab, where=None):
    return http.client.HTTPConnection(where, timeout=10 * SLOW) if where else UnixConnection(lab.path("metrics.sock"), timeout=10 * SLOW)


def request(lab, where=None, method="GET", path="/metrics", accept=None):
    connection = connect(lab, where)
    try:
        connection.request(method, path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


def samples(text):
    """{(name, labels): value}, from a parser that takes the specification at its word."""
    families = list(openmetrics.text_string_to_metric_families(text))
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def read(lab, *arguments):
    return samples(lab.weirctl("metrics", *arguments))


def value(lab, name, **labels):
    return read(lab).get((name, tuple(sorted(labels.items()))))


@pytest.fixture(scope="module")
def lab():
    program()  # may have to be fetched: from within the lab's namespace nothing can be
    with Lab() as lab:
        lab.network("blue", "--mac-limit", "100")
        for port in ("a", "b", "c"):
            lab.tap(port, "--network", "blue", f"external_ids:vm-id=id-of-{port}")
        yield lab


# --- the text

def test_formats(lab):
    lab.check("a", frame(1, 2), {"b": [frame(1, 2)], "c": [frame(1, 2)]})
    lab.weirctl("config", "set", f"metrics-listen={ADDRESS}")
    try:
        by_weirctl = set(read(lab))
        assert len(by_weirctl) > 100
        for where in (None, ADDRESS):
            status, kind, text = request(lab, where, accept=PROMETHEUS)
            assert (status, kind) == (200, OPENMETRICS) and text.endswith("\n# EOF\n")
            assert set(samples(text)) == by_weirctl
            status, kind, text = request(lab, where)
            assert (status, kind) == (200, TEXT) and "# EOF" not in text and "# UNIT" not in text
            old = {(s.name, tuple(sorted(s.labels.items()))) for f in prometheus.text_string_to_metric_families(text) for s in f.samples}
            assert {n for n, _ in old} == {n for n, _ in by_weirctl}
            assert promtool("check", "metrics", text=text) == ""
        assert promtool("check", "metrics", text=lab.weirctl("metrics", "text")) == ""
    finally:
        lab.weirctl("config", "del", "metrics-listen")
    with pytest.raises(SwitchError, match="not as \"xml\""):
        lab.weirctl("metrics", "xml")


def test_http(lab):
    assert request(lab, method="HEAD", accept=PROMETHEUS) == (200, OPENMETRICS, "")
    assert request(lab, path="/")[0] == 200
    assert request(lab, path="/metrics?x=y")[0] == 200
    assert request(lab, path="/../etc/passwd")[0] == 404
    assert request(lab, method="POST")[0] == 405
    assert os.stat(lab.path("metrics.sock")).st_mode & 0o777 == 0o660


def test_counters(lab):
    """Every counter of the ledger is there, and says what the statistics say."""
    lab.wire["a"].send(frame(1, BROADCAST))
    lab.wire["a"].send(b"\xff" * 6 + b"\x01" * 6 + b"\x08\x00" + b"\x00" * 46)  # no packet of anybody's
    lab.settle("a", lab.stats("a")["rx_packets"])
    wait_for(lambda: lab.drops("a"), 5, "a drop")
    stats, got = lab.stats("a"), read(lab)
    port = (("port", "a"),)
    for key, name in {"rx_packets": "weir_port_receive_packets_total", "rx_bytes": "weir_port_receive_bytes_total",
                      "tx_packets": "weir_port_transmit_packets_total", "tx_bytes": "weir_port_transmit_bytes_total", "sent": "weir_port_sent_packets_total",
                      "copies": "weir_port_copied_packets_total", "dropped": "weir_port_dropped_packets_total",
                      "resolved": "weir_resolver_packets_total", "flow_hits": "weir_flow_hit_packets_total",
                      "fdb_learned": "weir_fdb_learned_addresses_total"}.items():
        assert got[name, port] == stats[key], name
    drops = {labels["reason"]: v for (name, labels), v in ((k, v) for k, v in ((((n, dict(ls))), v) for (n, ls), v in got.items()))
             if name == "weir_port_drops_total" and labels["port"] == "a"}
    assert drops == lab.drops("a") and all(drops.values())
    assert got["weir_ledger_missing_packets", ()] == 0
    assert not [key for key in got if key[0] == "weir_port_missing_packets"]
    worker = (("worker", "0"),)
    assert got["weir_worker_receive_packets_total", worker] == got["weir_worker_burst_packets_sum", worker]
    assert got["weir_worker_burst_packets_bucket", (("le", "+Inf"), ("worker", "0"))] == got["weir_worker_burst_packets_count", worker] > 0
    assert got["weir_worker_busy_seconds_total", worker] > 0 and got["weir_worker_idle_seconds_total", worker] > 0


def test_states(lab):
    assert value(lab, "weir_port_up", port="a") == 1 and value(lab, "weir_port_problem", port="a") == 0
    assert value(lab, "weir_port_mtu_bytes", port="a") == 1500
    lab.weirctl("port", "add", "vm1", "--network", "blue")
    try:
        assert value(lab, "weir_port_up", port="vm1") == 0 and value(lab, "weir_port_problem", port="vm1") == 1
        assert value(lab, "weir_port_info", port="vm1", type="vhost-user", network="blue") == 1
    finally:
        lab.weirctl("port", "del", "vm1")
    assert value(lab, "weir_port_up", port="vm1") is None


def test_tables(lab):
    got = read(lab)
    assert got["weir_fdb_entries", ()] == len(lab.fdb()) > 0
    assert got["weir_fdb_network_entries", (("network", "blue"),)] == len(lab.fdb("blue"))
    assert got["weir_fdb_network_entries_limit", (("network", "blue"),)] == 100
    assert got["weir_table_fill_ratio", (("of", "blue"), ("table", "fdb_network"))] == len(lab.fdb("blue")) / 100
    assert got["weir_port_entries", ()] == 3 and got["weir_port_entries_limit", ()] == 4095
    assert got["weir_flow_entries_limit", (("worker", "0"),)] == lab.ask("worker/list")[0]["flow_limit"]
    assert 0 < got["weir_packet_buffer_entries_limit", (("numa_node", "0"),)] <= 16384
    assert ("weir_row_entries_limit", ()) not in got  # it has none
    lab.weirctl("flow", "add", "tcp", "drop", "--network", "blue")
    assert value(lab, "weir_rule_entries", network="blue") == 1
    lab.weirctl("flow", "del", "all")
    assert value(lab, "weir_rule_entries", network="blue") is None


def labels_of(lab, port):
    return next(dict(labels) for (name, labels), _ in read(lab).items() if name == "weir_port_info" and dict(labels)["port"] == port)


def test_labels(lab):
    assert labels_of(lab, "b") == {"port": "b", "type": "tap", "network": "blue", "vm_id": "id-of-b"}
    # Values are anybody's: they are escaped, cut and made UTF-8.
    nasty = 'x"} 1\\' + "\N{FISH}" * 100
    lab.weirctl("set", "Port", "b", "external_ids:vm-name=" + json.dumps(nasty, ensure_ascii=False), "external_ids:secret=1")
    name = labels_of(lab, "b")["vm_name"]
    assert nasty.startswith(name) and 100 < len(name.encode()) <= 128
    assert "secret" not in labels_of(lab, "b")
    try:
        lab.weirctl("config", "set", "metrics-labels=secret, port,vm-id,vm_id,no-such,," + ",".join(f"k{i}" for i in range(40)))
        assert labels_of(lab, "b") == {"port": "b", "type": "tap", "network": "blue", "secret": "1", "vm_id": "id-of-b"}
    finally:
        lab.weirctl("config", "del", "metrics-labels")
        lab.weirctl("remove", "Port", "b", "external_ids", "vm-name", "secret")
    assert "vm_name" not in labels_of(lab, "b")


# --- where it listens

@pytest.mark.parametrize("wrong", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "localhost:80", "::1:80", "[::1]", "[127.0.0.1]:80", "\x01", "1.2.3.4:5x"])
def test_wrong_address(lab, wrong):
    done = lab.weirctl("config", "set", f"metrics-listen={wrong}", check=False)
    try:
        assert done.returncode and "metrics-listen" in done.stderr, done
    finally:
        lab.weirctl("config", "del", "metrics-listen")


def test_address_changes(lab):
    def refused(where):
        with contextlib.suppress(ConnectionRefusedError):
            request(lab, where)
            return False
        return True

    Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("0")
    lab.weirctl("config", "set", "metrics-listen=[::1]:9478")
    assert request(lab, "[::1]:9478")[0] == 200 and refused(ADDRESS)
    lab.weirctl("config", "set", f"metrics-listen={ADDRESS}")
    assert request(lab, ADDRESS)[0] == 200 and refused("[::1]:9478")
    lab.weirctl("config", "del", "metrics-listen")
    assert refused(ADDRESS) and request(lab)[0] == 200


def test_address_taken(lab):
    """Somebody else has the port: a sentence, in health too; once it is free, metrics are there without further ado."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 9479))
        other.listen()
        lab.weirctl("config", "set", "metrics-listen=127.0.0.1:9479")
        problem = "metrics-listen: nobody gets metrics at 127.0.0.1:9479: Address already in use"
        assert problem in lab.weirctl("health")
        assert value(lab, "weir_configuration_problem") == 1
    wait_for(lambda: value(lab, "weir_configuration_problem") == 0, 10, "the port to be taken")
    assert request(lab, "127.0.0.1:9479")[0] == 200 and problem not in lab.weirctl("health")
    lab.weirctl("config", "del", "metrics-listen")


# --- clients

def greet(lab, data=b""):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30 * SLOW)
    s.connect(lab.path("metrics.sock"))
    s.sendall(data)
    return s


def closed(s):
    with contextlib.suppress(BlockingIOError, ConnectionError):
        return s.recv(1 << 16, socket.MSG_DONTWAIT) == b""
    return False


RUBBISH = [b"\0" * 100000, b"GET\n\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"GET " + b"/" * 60000 + b" HTTP/1.1\r\n\r\n", b"\r\n" * 1000,
           b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
           b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
           b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n", b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: " + b",;=q" * 2000 + b"\r\n\r\n",
           b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50, os.urandom(5000)]


def test_rubbish(lab):
    for data in RUBBISH:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError), greet(lab) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while s.recv(1 << 16):
                pass
        assert request(lab)[0] == 200, data[:60]
    for data in RUBBISH:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError), greet(lab) as s:
            s.sendall(data)  # and away
    wait_for(lambda: request(lab)[0] == 200, 10 * SLOW, "an answer")


def test_slow_clients(lab):
    """Silent ones and ones that dribble: packets pass, weirctl is answered, and all of them end."""
    stream = Stream(lab.wire["a"], lab.wire["b"], 1, 2, rate=500)
    clients = [greet(lab) for _ in range(6)]
    try:
        clients += [greet(lab, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ") for _ in range(20)]
        stream.wait(200)
        assert read(lab)  # by the control socket
        left = list(clients)

        def all_ended():
            for s in list(left):
                with contextlib.suppress(BlockingIOError, OSError):
                    s.send(b"x", socket.MSG_DONTWAIT)  # dribbles on
                if closed(s):
                    left.remove(s)
            return not left
        # Sixteen at a time, each for as long as a connection may last.
        wait_for(all_ended, 100 * SLOW, lambda: f"{len(left)} connections to end", 0.1)
        assert request(lab)[0] == 200
        stream.wait(200)
    finally:
        for s in clients:
            s.close()
    missing, swapped = stream.end()
    assert not missing and not swapped


def test_many_at_once(lab):
    """Who asks soon after somebody else gets the same text: the main thread isn't held up by how often somebody asks."""
    for _ in range(1000):
        assert request(lab)[0] == 200
    wait_for(lambda: request(lab)[2] == request(lab)[2], 20 * SLOW, "one text for two", 0)
    seen = request(lab)[2]
    wait_for(lambda: request(lab)[2] != seen, 20 * SLOW, "another text")


def test_stops_while_clients_wait(lab):
    lab.weirctl("config", "set", f"metrics-listen={ADDRESS}")
    clients = []
    for _ in range(8):
        s = socket.create_connection(("127.0.0.1", 9477))
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        clients.append(s)
    lab.weirctl("config", "del", "metrics-listen")
    for s in clients:
        s.settimeout(10 * SLOW)
        with contextlib.suppress(ConnectionResetError):
            while s.recv(1 << 16):
                pass
        s.close()
    assert request(lab)[0] == 200


# --- the switch as a whole

def test_thousand_ports():
    """The text of many ports, and clients that don't take it: more of it than a socket holds."""
    with Lab() as lab:
        lab.network("blue")
        words = []
        for i in range(1000):
            words += [*(["--"] if words else []), "port", "add", f"vm{i}", "--network", "blue", f"external_ids:vm-id=id{i}"]
        lab.weirctl(*words, limit=60 * SLOW)
        stuck = [greet(lab, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(30)]
        got = read(lab)
        assert len([1 for name, labels in got if name == "weir_port_info"]) == 1000
        assert got["weir_port_entries", ()] == 1000
        # No reason without drops: a thousand ports have some twenty series each, not hundreds.
        assert not [1 for name, labels in got if name == "weir_port_drops_total"] and len(got) < 30000
        # The next one gets a place when the first have had their time.
        assert samples(request(lab, accept=PROMETHEUS)[2]).keys() == got.keys()
        for s in stuck:
            s.close()

def test_database_away_and_restart():
    with Lab() as lab:
        assert value(lab, "weir_database_connected") == 1
        lab.stop_database()
        wait_for(lambda: "weir_database_connected 0" in request(lab)[2], 20 * SLOW, "the database to be missed")
        lab.start_database()
        wait_for(lambda: "weir_database_connected 1" in request(lab)[2], 20 * SLOW, "the database to be back")
        lab.restart_daemon(kill=True)  # leaves its socket behind
        assert request(lab)[0] == 200
        lab.stop_daemon()
        assert not os.path.exists(lab.path("metrics.sock"))
        lab.start_daemon()


def test_dpdk_telemetry(lab):
    """DPDK's own telemetry socket answers, as dpdk-telemetry.py asks it."""
    path = lab.path(f"dpdk/weir-{lab.daemon.pid}/dpdk_telemetry.v2")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(10 * SLOW)
        s.connect(path)
        hello = json.loads(s.recv(1024))
        assert hello["pid"] == lab.daemon.pid
        for command, check in {"/": lambda r: "/ethdev/list" in r, "/info": lambda r: r["pid"] == lab.daemon.pid,
                               "/ethdev/list": lambda r: r == []}.items():
            s.send(command.encode())
            answer = json.loads(s.recv(hello["max_output_len"]))
            assert check(answer[command]), answer
