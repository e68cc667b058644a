"""A guest without a virtual machine (tests/tools/vguest.c), and the vhost backend without the switch (vhost_echo.c).

    with Guest(f"path={sock},server=1,queues=2") as guest:      # the switch connects to it
        guest.ready()
        guest.tx(0, frame)
        queue, flags, mss, data = guest.rx(0, 1)[0]
"""
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("WEIR_BUILD", ROOT / "build")).absolute()
_serial = iter(range(1, 1 << 30))


def wait_for(condition, limit=10.0, what="the condition"):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {limit} s; last seen {value!r}")
        time.sleep(0.005)


class Refused(Exception):
    """The program answered "error SENTENCE"."""


class Program:
    """A program that answers each line on stdin by "ok ..." or "error ..."."""

    def __init__(self, tool, *, memory=256, prefix="vg", arguments=(), env=None, as_user=None, eal=True):
        self.prefix = f"{prefix}{os.getpid()}-{next(_serial)}"
        self.log = tempfile.NamedTemporaryFile("w+", prefix=self.prefix + "-", suffix=".log")
        # One lcore that floats over all processors: nothing here is worth a processor of its own.
        eal = ["--lcores", f"0@(0-{os.cpu_count() - 1})", "--no-huge", "-m", str(memory), "--no-pci", "--no-telemetry",
               "--file-prefix", self.prefix] if eal else []
        path = BUILD / "tests/tools" / tool
        if as_user:  # who may not be let into the folder of the build
            self.folder = tempfile.TemporaryDirectory(prefix=self.prefix + "-")
            os.chmod(self.folder.name, 0o755)
            path = shutil.copy(path, self.folder.name)
        command = [path, *eal, *arguments]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        bufsize=0, env={**os.environ, **(env or {})}, user=as_user)
        self.buffer = b""
        self.is_ready = False

    def line(self, limit=20.0):
        end = time.monotonic() + limit
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError(f"no answer within {limit} s\n{self.log_text()}")
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError(f"{self.process.args[0]} ended ({self.process.wait()})\n{self.log_text()}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def answer(self, limit=20.0):
        # The driver's own log lines may come between on a shared terminal; an answer begins with ok or error.
        while True:
            word, _, rest = self.line(limit).partition(" ")
            if word == "error":
                raise Refused(rest)
            if word == "ok":
                return rest

    def ready(self, limit=20.0):
        """Waits until the program has started; a port in server mode has started when the switch has connected."""
        if not self.is_ready:
            self.answer(limit)
            self.is_ready = True
        return self

    def ask(self, command, limit=20.0):
        self.ready(limit)
        self.process.stdin.write(command.encode() + b"\n")
        return self.answer(limit)

    def log_text(self):
        return Path(self.log.name).read_text()

    def kill(self):
        """As a host that loses power: nothing is said to the other side."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.clean()

    def quit(self, limit=20.0):
        """Ends the program and returns its exit code."""
        if self.process.poll() is None:
            try:
                self.process.stdin.write(b"quit\n")
                self.process.stdin.close()
                self.process.wait(limit)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.clean()
        return self.process.returncode

    def clean(self):
        shutil.rmtree(f"/var/run/dpdk/{self.prefix}", ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.quit()


class Guest(Program):
    """Virtio-user ports, given as vguest takes them: Guest("path=/run/a.sock,server=1", "path=/run/b.sock,server=1")."""

    def __init__(self, *ports, bridge_tap=None, **options):
        arguments = ["--", *(["--bridge-tap", bridge_tap] if bridge_tap else []), *ports]
        super().__init__("vguest", arguments=arguments, **options)

    def tx(self, port, frame, queue=0, csum=None, tso=None, times=1):
        """Sends a frame; csum=(start, offset), tso=(mss, length of headers). Returns how many the ring took."""
        command = f"tx {port} {queue} {bytes(frame).hex()} times={times}"
        if csum:
            command += f" csum={csum[0]}:{csum[1]}"
        if tso:
            command += f" tso={tso[0]}:{tso[1]}"
        return int(self.ask(command))

    def bad(self, port, times=1, queue=0):
        """Gives the ring chains that no packet can be made of. Returns how many the ring took."""
        return int(self.ask(f"bad {port} {queue} {times}"))

    def rx(self, port, count=0, limit=5.0):
        """Received frames as (queue, flags, mss, bytes): at least `count`, or TimeoutError; flags is a set of p, v, l."""
        frames = []

        def take():
            for _ in range(int(self.ask(f"rx {port}"))):
                queue, flags, mss, data = self.line().split()
                frames.append((int(queue), set(flags) - {"-"}, int(mss), bytes.fromhex(data)))
            return len(frames) >= count
        wait_for(take, limit, f"{count} frames at port {port}")
        return frames

    def count(self, port):
        return json.loads(self.ask(f"count {port}"))

    def blast(self, port, count, frame, queue=0, rate=0, random=(), vary=(), stamp=None):
        """Sends without waiting; random and vary are (at, length) fields of the frame, stamp where it says when it was sent. Wait with blasted()."""
        fields = [f"stamp={stamp}"] if stamp else []
        fields += [f"random={a}:{n}" for a, n in random] + [f"vary={a}:{n}" for a, n in vary]
        self.ask(" ".join(["blast", str(port), str(queue), str(count), bytes(frame).hex(), f"rate={rate}", *fields]))

    def blasted(self, port, limit=60.0):
        wait_for(lambda: self.count(port)["left"] == 0, limit, "the end of the blast")

    def clear(self, port):
        self.ask(f"clear {port}")

    def capture(self, port, on):
        self.ask(f"capture {port} {'on' if on else 'off'}")

    def stop(self, port):
        self.ask(f"stop {port}")

    def go(self, port):
        self.ask(f"go {port}")

    def queues(self, port, count):
        self.ask(f"queues {port} {count}")

    def link(self, port):
        return self.ask(f"link {port}")


class Driver(Program):
    """A driver with packed rings that live on while the back-end is away (tests/tools/vdriver.c)."""

    def __init__(self, path, **options):
        super().__init__("vdriver", eal=False, arguments=[path, *(f"{k}={v}" for k, v in options.items())])

    def count(self):
        return json.loads(self.ask("count"))


class Backend(Program):
    """vhost/ with one worker that echoes."""

    def __init__(self, **options):
        super().__init__("vhost-echo", prefix="ve", **options)

    def open(self, name, path, *options, verb="open"):
        self.ask(" ".join([verb, name, str(path), *options]))

    def close(self, name):
        self.ask(f"close {name}")

    def status(self, name):
        return json.loads(self.ask(f"status {name}"))

    def problem(self, name):
        return self.status(name)["problem"]

    def problem_with(self, name, part):
        """The problem if the part is in it, else "": for wait_for(), as a second look may see another one."""
        problem = self.problem(name)
        return problem if part in problem else ""

    def worker(self):
        return json.loads(self.ask("worker"))

    def wait(self, name, limit=10.0, **wanted):
        """Waits until the status has these values, and returns it."""
        def check():
            status = self.status(name)
            return status if all(status[key] == value for key, value in wanted.items()) else None
        return wait_for(check, limit, f"{wanted} of {name}: {self.status(name)}")
