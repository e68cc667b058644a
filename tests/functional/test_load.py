"""Latency, what ports cost, where workers' time goes, and the flight recorder."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from net import BROADCAST, SLOW, frame, mac, wait_for
from test_ledger import plug_red

LIMITS = ("history-round-us", "history-queue-full", "history-resolves", "poll")


@pytest.fixture
def ports(clean):
    """Networks blue and red, ports a and b on blue; recorders that nothing has frozen, and that only what the test wants freezes."""
    clean.weirctl("config", "set", "history-round-us=0", "history-queue-full=0", "history-resolves=0")
    clean.network("blue")
    clean.network("red")
    clean.tap("a", "--network", "blue", f"addresses={mac(1)}")
    clean.tap("b", "--network", "blue", f"addresses={mac(2)}")
    clean.weirctl("worker", "history", "clear")
    yield clean
    clean.weirctl("config", "del", *LIMITS)
    clean.weirctl("worker", "history", "clear")


def latency(lab, port):
    return lab.weirctl("port", "latency", port, json=True)[0]


def frozen(lab):
    return lab.weirctl("worker", "history", "--frozen", "--limit", "1024", json=True)


def test_latency(ports):
    before = latency(ports, "b")
    assert before["packets"] == 0 and before["p50_us"] is None
    for _ in range(10):
        ports.wire["a"].send(frame(1, 2))
    ports.settle("a", 10)
    b = latency(ports, "b")
    # All of them, but what was sent since the last flush that was measured.
    assert 0 < b["packets"] <= 10
    assert 0 < b["p50_us"] <= b["p90_us"] <= b["p99_us"] <= b["p999_us"] <= b["max_us"] and b["mean_us"] <= b["max_us"]
    assert (b["backlog"], b["misses"]) == (0, 0)
    assert latency(ports, "a")["packets"] == 0
    rows = {row["port"]: row for row in ports.weirctl("port", "latency", json=True)}
    assert rows["b"] == b and set(rows) == {"a", "b"}
    (worker,) = ports.ask("worker/list")
    assert worker["p50_us"] > 0 and worker["p99_us"] >= worker["p50_us"] and worker["resolved"] > 0 and worker["resolve_us"] > 0
    assert ports.weirctl("port", "latency", "nosuch", check=False).stderr == "weirctl: there is no port nosuch\n"


def test_what_waited_is_in_the_latency(ports):
    """Packets that a guest takes late: each of them is in the histogram, with the time that it waited."""
    ports.tap("c", "--network", "red", f"addresses={mac(3)}")
    with plug_red(ports) as guest:
        guest.tx(0, frame(4, BROADCAST))
        ports.settle("vm1", 1)
        guest.stop(0)
        sent = 0

        def waiting():
            nonlocal sent
            ports.wire["c"].send(frame(3, 4))
            sent += 1
            return latency(ports, "vm1")["backlog"] > 3
        wait_for(waiting, 20 * SLOW, lambda: f"packets to wait: {latency(ports, 'vm1')}", 0)
        guest.go(0)
        ports.settle("c", sent)
        row = latency(ports, "vm1")
        assert row["backlog"] == 0 and row["max_us"] > 1000 * 0.1, row


def test_cost(ports):
    for _ in range(100):
        ports.wire["a"].send(frame(7, 2))
    ports.settle("a", 100)
    rows = {row["port"]: row for row in ports.weirctl("port", "cost", json=True)}
    a, b = rows["a"], rows["b"]
    assert a["packets"] == b["packets"] == 100 and a["bytes"] == b["bytes"] == 6000
    assert a["cycles"] > 0 and b["cycles"] > 0 and a["resolved"] >= 1 and b["resolved"] == 0
    assert a["resolver_share_percent"] == 100 and b["resolver_share_percent"] == 0
    assert abs(a["share_percent"] + b["share_percent"] - 100) < 0.2
    # Learned addresses: static ones are the operator's.
    assert (a["flows"], b["flows"]) == (1, 0) and (a["addresses"], b["addresses"]) == (1, 0)
    assert a["memory_kb"] > 0 and a["cycles_per_packet"] > 0
    assert ports.weirctl("port", "cost", "a", json=True)[0]["port"] == "a"
    assert ports.weirctl("port", "cost", "nosuch", check=False).stderr == "weirctl: there is no port nosuch\n"


def test_cycles(ports):
    def parts():
        return {row["part"]: row for row in ports.weirctl("worker", "cycles", json=True)}

    def measured():
        for _ in range(200):
            ports.wire["a"].send(frame(1, 2))
        now = parts()
        return now["receive"]["packets"] > 0 and now["look-up"]["packets"] > 0 and now["egress"]["packets"] > 0
    wait_for(measured, 20 * SLOW, lambda: f"bursts to be measured: {parts()}", 0)
    now = parts()
    assert {"receive", "parse", "look-up", "serve", "resolve", "run", "egress", "publish", "stage mtu", "stage rule", "stage storm"} <= set(now)
    assert now["parse"]["cycles_each"] > 0 and abs(sum(row["share_percent"] for row in now.values()) - 100) < 1


def test_history(ports):
    for _ in range(3):
        ports.wire["a"].send(frame(1, 2))
    ports.settle("a", 3)
    rows = ports.weirctl("worker", "history", "--worker", "0", json=True)
    assert sum(row["packets"] for row in rows) >= 3 and all(row["suspicious"] is None for row in rows)
    # Idle rounds are one record, so the packets stay in sight.
    assert all(not (x["packets"] == y["packets"] == x["call_us"] == y["call_us"] == 0 and
                    (x["misses"], x["backlog"], x["dropped"]) == (y["misses"], y["backlog"], y["dropped"])) for x, y in zip(rows, rows[1:]))
    assert len(ports.weirctl("worker", "history", "--limit", "2", json=True)) == 2
    assert frozen(ports) == [] and "nothing is frozen" in ports.weirctl("worker", "history", "--frozen")
    for words, sentence in ((["--worker", "7"], "there is no worker 7"), (["--limit", "x"], "worker history takes"), (["x"], "worker history takes"),
                            (["--worker"], "--worker wants a value"), (["clear", "--frozen"], "worker history takes")):
        done = ports.weirctl("worker", "history", *words, check=False)
        assert done.returncode == 1 and sentence in done.stderr, done


def test_storm_freezes_it(ports):
    """Addresses without end from one port: many packets to resolve."""
    ports.weirctl("config", "set", "history-resolves=100")
    n = 100

    def storm():
        nonlocal n
        for _ in range(400):
            n += 1
            ports.wire["a"].send(frame(n, BROADCAST))
        return frozen(ports)
    wait_for(storm, 20 * SLOW, "the recorder to freeze", 0)
    rows = frozen(ports)
    assert "packets were resolved within 100 ms: many new flows" in rows[-1]["suspicious"], rows[-1]
    assert sum(row["resolved"] for row in rows) > 100 and rows[-1]["resolved"] > 0
    text = ports.weirctl("worker", "history")
    assert "worker 0: " in text and "frozen at" in text and "--frozen shows the rounds before it" in text
    # It stays, whatever comes then, until it is cleared.
    storm()
    assert [row["busy_us"] for row in frozen(ports)] == [row["busy_us"] for row in rows]
    assert ports.weirctl("worker", "history", "clear") == "1 recorder goes on\n"
    ports.weirctl("config", "set", "history-resolves=0")
    ports.weirctl("worker", "history", "clear")
    assert frozen(ports) == []


def test_blocked_worker_freezes_it(ports):
    """A worker that is kept from working for longer than it may."""
    ports.weirctl("config", "set", "poll=busy", "history-round-us=30000")

    def blocked():
        os.kill(ports.daemon.pid, signal.SIGSTOP)
        time.sleep(0.05)  # that is what is tested
        os.kill(ports.daemon.pid, signal.SIGCONT)
        return frozen(ports)
    wait_for(blocked, 20 * SLOW, "the recorder to freeze", 0.01)
    last = frozen(ports)[-1]
    assert "the round took" in last["suspicious"] and "(limit 30.0)" in last["suspicious"] and last["busy_us"] > 30000
    wait_for(lambda: "weirctl worker history --frozen --worker 0" in ports.logs(1000), 5 * SLOW, "a line in the log")


def test_full_queue_freezes_it(ports):
    ports.weirctl("config", "set", "history-queue-full=1")
    ports.tap("c", "--network", "red", f"addresses={mac(3)}")
    with plug_red(ports) as guest:
        guest.tx(0, frame(4, BROADCAST))
        ports.settle("vm1", 1)
        guest.stop(0)

        def full():
            for _ in range(500):
                ports.wire["c"].send(frame(3, 4))
            return frozen(ports)
        wait_for(full, 20 * SLOW, lambda: f"the recorder to freeze: {ports.drops('c')}", 0)
        last = frozen(ports)[-1]
        assert "the queue of port vm1 was full, as it takes packets too slowly" in last["suspicious"], last
        assert last["dropped"] > 0 and last["backlog"] > 0
        wait_for(lambda: not ports.stats("c")["queued"], 10 * SLOW, "what waits to be dropped")


def test_top_in_batches(ports):
    ports.wire["a"].send(frame(1, 2))
    ports.settle("a", 1)

    def traffic():
        for _ in range(50):
            ports.wire["a"].send(frame(1, 2))
        text = ports.weirctl("top", "--batch", "-n", "1", "--interval", "0.1", "--sort", "name")
        assert text.startswith("weirctl top  ") and "2 ports, 1 workers" in text and "by name" in text
        return text

    head, _, workers, _, columns, a, b = [line for line in traffic().splitlines() if line.strip()]
    assert columns.split()[:3] == ["PORT", "RX(pps)", "TX(pps)"] and (a.split()[0], b.split()[0]) == ("a", "b")
    assert workers.split()[:2] == ["WORKER", "CORE"]
    # Two answers, while packets come: rates of the interval, and its latency.
    process = subprocess.Popen([str(ports.build / "ctl/weirctl"), "--db", ports.db, "--ctl", ports.ctl, "-f", "json", "top", "--batch", "--interval", "0.3"],
                               stdout=subprocess.PIPE, text=True)
    try:
        def seen():
            while not select.select([process.stdout], [], [], 0)[0]:
                ports.wire["a"].send(frame(1, 2))
            answer = json.loads(process.stdout.readline())
            rows = {row["port"]: row for row in answer["ports"]}
            return (rows, answer) if rows["a"]["rx_pps"] > 0 and rows["b"]["p99_us"] else None
        rows, answer = wait_for(seen, 20 * SLOW, "rates", 0) or seen()
        assert rows["b"]["tx_pps"] > 0 and rows["a"]["tx_pps"] == 0 and rows["a"]["p50_us"] is None and rows["a"]["cpu_percent"] > 0
        assert answer["ports"][0]["port"] in "ab" and answer["total"]["rx_pps"] > 0 and answer["workers"][0]["busy_percent"] > 0
        assert rows["b"]["p50_us"] <= rows["b"]["p99_us"]
    finally:
        process.terminate()
        assert process.wait(10) == 0
    for words, sentence in ((["--batch", "-n", "0"], "-n is how many times"), (["--sort", "x"], "--sort is packets, bytes"), (["x"], "top takes --batch"),
                            (["--interval", "0"], "--interval is seconds from 0.1"), (["-n"], "-n wants a value"), (["-n", "1"], "go with --batch"),
                            ([], "top needs a terminal")):
        done = ports.weirctl("top", *words, check=False)
        assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1, done


def test_top_on_a_terminal(ports):
    pid, terminal = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm"
        os.execv(str(ports.build / "ctl/weirctl"), ["weirctl", "--db", ports.db, "--ctl", ports.ctl, "top", "--interval", "0.2"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 150, 0, 0))
    text = ""

    def shows(what):
        nonlocal text

        def there():
            nonlocal text
            while select.select([terminal], [], [], 0.02)[0]:
                try:
                    text += os.read(terminal, 65536).decode(errors="replace")
                except OSError:  # top has ended, and that was all
                    break
            return what in text
        wait_for(there, 10 * SLOW, lambda: f"{what!r} on the screen: {text[-3000:]!r}", 0)
        text = ""
    try:
        shows("by packets")
        os.write(terminal, b"d\x0c")  # ^L: else only what has changed is written
        shows("by drops")
        os.write(terminal, b"\x1b[B\x1b[5~nx\x0c")  # down, page up, by name, and a key that is none
        shows("by name")
        os.write(terminal, b"q")
        # The screen is given back.
        shows("\x1b[?1049l")
        assert os.waitpid(pid, 0)[1] == 0
        pid = 0
    finally:
        os.close(terminal)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
