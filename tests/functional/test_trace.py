"""trace: what happens to real packets, as it happens."""

import json
import signal
import struct
import subprocess
import time

import pytest

from net import BROADCAST, SLOW, frame, mac, steps, wait_for


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("blue")
    for n, name in enumerate(("a", "b", "c"), 1):
        lab.tap(name, "--network", "blue", f"addresses={mac(n)}")
    return lab


def tracing(lab, *options, json_out=False):
    """weirctl trace at work; it has begun when the switch has a tracer."""
    command = [str(lab.build / "ctl/weirctl"), "--db", lab.db, "--ctl", lab.ctl, *(["-f", "json"] if json_out else []), "trace", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def begun():
        # Only one can trace, so a refusal says that it has begun.
        done = lab.weirctl("trace", "--count", "0", check=False) if process.poll() is None else None
        return done is None or "running already" in done.stderr
    wait_for(begun, 10 * SLOW, "the trace to begin")
    return process


def ended(process, limit=10):
    out, err = process.communicate(timeout=limit * SLOW)
    return out, err, process.returncode


def send(lab, port, *frames):
    before = lab.stats(port)["rx_packets"]
    for at in range(0, len(frames), 200):  # the kernel has room for a thousand
        for f in frames[at:at + 200]:
            lab.wire[port].send(f)
        lab.settle(port, before + min(at + 200, len(frames)))


def test_count(ports):
    """Ends by itself after so many packets; its lines are explain's, with times."""
    process = tracing(ports, "--port", "a", "--count", "2")
    send(ports, "b", frame(2, 3))
    send(ports, "a", frame(1, 2), frame(1, 3), frame(1, BROADCAST))
    out, err, code = ended(process)
    assert code == 0 and not err
    packets = out.split("packet ")[1:]
    assert len(packets) == 2 and packets[0].startswith("1 at ") and packets[1].startswith("2 at ") and " on a:" in packets[0]
    assert steps(packets[0]) == steps(ports.explain("a", frame(1, 2)))
    assert steps(packets[1]) == steps(ports.explain("a", frame(1, 3)))
    times = [int(line.split()[0]) for line in packets[0].splitlines() if " ns " in line]
    assert times == sorted(times) and len(times) > 4


def test_cached_flow(ports):
    """The first packet shows that it is resolved, the next ones name the flow that serves them, as cache list has it."""
    ports.unixctl("cache/flush")
    number = ports.trace_start("--port", "a", "--count", "3")
    send(ports, "a", frame(1, 2))
    send(ports, "a", frame(1, 2), frame(1, 2))
    packets = ports.trace_end(number).split("packet ")[1:]
    assert len(packets) == 3
    assert "no cached flow, resolving" in packets[0] and "cached flow " not in packets[0].replace("no cached flow", "")
    (flow,) = [f for f in ports.ask("cache/list", "--port", "a") if f"dl_src={mac(1)},dl_dst={mac(2)}" in f["match"]]
    for packet in packets[1:]:
        assert f"cached flow {flow['flow']}: output to b" in packet, packet
        assert "DEFECT" not in packet
        assert steps(packet) == steps(packets[0])


def test_filter(ports):
    """tcpdump's language, on the packet as it came in."""
    process = tracing(ports, "--filter", f"ether dst {mac(3)}", "--count", "1")
    send(ports, "a", frame(1, 2))
    send(ports, "b", frame(2, 3))
    out, _, code = ended(process)
    assert code == 0 and out.count("packet ") == 1 and f"{mac(2)} > {mac(3)}" in out and " on b:" in out


@pytest.mark.parametrize("options, sentence", [
    (["--filter", "no such thing"], "no such thing"),
    (["--filter"], "--filter wants a value"),
    (["--port", "nobody"], "there is no port nobody"),
    (["--count", "many"], "many"),
    (["--frobnicate"], "frobnicate"),
])
def test_bad_options(ports, options, sentence):
    done = ports.weirctl("trace", *options, check=False)
    assert done.returncode == 1 and sentence in done.stderr and not done.stdout, done
    number = ports.trace_start("--count", "1")  # a refused one leaves nothing behind
    ports.unixctl("trace/stop", number)


def test_sample(ports):
    """About one packet in ten; the others of the port, and all of other ports, pass untraced, and in order."""
    number = ports.trace_start("--port", "a", "--sample", "1/10")
    ports.wire["b"].clear()
    frames = [frame(1, 2, payload=struct.pack("!I", n)) for n in range(1000)]
    send(ports, "a", *frames)
    send(ports, "c", *[frame(3, 2)] * 50)
    assert [f for f in ports.wire["b"].wait(1050) if f[6:12] != frame(3, 2)[6:12]] == frames
    assert 50 < ports.trace_end(number).count(" on a:") < 200
    number = ports.trace_start("--port", "a", "--sample", "1/10", "--count", "5")
    send(ports, "a", *frames)
    assert ports.trace_end(number).count("packet ") == 5


def test_more_than_there_is_room_for(ports):
    """A count beyond the traces that there are at one time: each is used again when it has been read, and no more are shown than asked for."""
    number, text = ports.trace_start("--port", "a", "--count", "600"), ""
    for _ in range(30):
        send(ports, "a", *[frame(1, 2)] * 50)
        text += ports.trace_read(number)
    text += ports.trace_end(number)
    assert text.count("packet ") == 600 and "came faster" not in text


def test_time_in_stages(ports):
    """The time of each line is that since the line before; all together is the time of the packet."""
    number = ports.trace_start("--json", "--port", "a", "--count", "1")
    send(ports, "a", frame(1, 2))
    (packet,) = [json.loads(line) for line in ports.trace_end(number).splitlines() if line.startswith("{")]
    assert sum(step["took_ns"] for step in packet["steps"]) == packet["steps"][-1]["ns"] > 0
    assert {"rx", "vlan", "fdb", "isolation", "output", "mtu", "tx"} <= {step["stage"] for step in packet["steps"]}


def test_json(ports):
    process = tracing(ports, "--port", "a", "--count", "1", json_out=True)
    send(ports, "a", frame(1, 2))
    out, _, code = ended(process)
    (packet,) = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and packet["packet"] == 1 and packet["port"] == "a" and abs(packet["time"] - time.time()) < 60
    assert (packet["steps"][0]["stage"], packet["steps"][-1]["text"]) == ("rx", "out by b")


def test_interrupted(ports):
    """Ctrl-C ends it in order, with what was traced; the switch is free for the next one at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        process = tracing(ports, "--port", "a")
        send(ports, "a", frame(1, 2))
        assert process.stdout.readline().startswith("packet 1 ")
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(10 * SLOW) == 0 and not process.stderr.read()
        ports.unixctl("trace/stop", ports.trace_start())


def test_one_at_a_time(ports):
    number = ports.trace_start()
    done = ports.weirctl("trace", check=False)
    assert done.returncode == 1 and "a trace is running already: end it first" in done.stderr
    ports.unixctl("trace/stop", number)


def test_abandoned(ports):
    """A reader that died is forgotten after a while, and packets that it would have wanted are forwarded meanwhile."""
    ports.trace_start()
    for _ in range(5):
        send(ports, "a", *[frame(1, 2)] * 100)

    def free():
        done = ports.weirctl("trace", "--count", "0", check=False)
        return "running already" not in done.stderr
    wait_for(free, 30, "the abandoned trace to be ended", 0.5)
    assert ports.drops() == {}


def test_lost_traces_are_counted(ports):
    """More packets than there is room for: traces are lost, and counted; packets are not."""
    number = ports.trace_start("--port", "a")
    ports.wire["b"].clear()
    send(ports, "a", *[frame(1, 2)] * 1000)
    assert len(ports.wire["b"].wait(1000)) == 1000
    text = ""

    def all_read():
        nonlocal text
        part = ports.trace_read(number)
        text += part
        return not part
    wait_for(all_read, 10, "the traces to be read", 0)
    ports.unixctl("trace/stop", number)
    traced = text.count("packet ")
    lost = sum(int(line.split()[0].strip("(")) for line in text.splitlines() if "came faster than they could be traced" in line)
    assert traced == 256 and traced + lost == 1000


def test_ports_go_while_traced(ports):
    """A trace that names a port that is gone by the time it is printed says so."""
    ports.tap("gone", "--network", "blue")
    number = ports.trace_start("--port", "gone")
    send(ports, "gone", frame(9, 1))
    ports.delete("gone")
    text = ports.trace_end(number)
    assert "packet 1" in text and "out by a" in text
