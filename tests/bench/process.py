"""What the bench needs of the machine: processes on their processors, hugepages, the distance of two processors. Linux only."""

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

from guest import die_with_parent, tail

PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


class BenchError(Exception):
    pass


def wait_until(condition, limit, what):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"{what() if callable(what) else what} within {limit} s")
        time.sleep(0.02)


class Hugepages:
    """Adds 2 MB pages until `wanted` are free, and gives back as many on leaving."""

    def __init__(self, wanted):
        self.wanted, self.added = wanted, 0

    def _number(self, name):
        return int((PAGES / name).read_text())

    def __enter__(self):
        missing = self.wanted - (self._number("free_hugepages") - self._number("resv_hugepages"))
        if missing > 0:
            before = self._number("nr_hugepages")
            (PAGES / "nr_hugepages").write_text(str(before + missing))
            self.added = self._number("nr_hugepages") - before
            if self.added < missing:
                self.__exit__()
                raise BenchError(f"the kernel has no memory for {missing} hugepages of 2 MB more")
        return self

    def __exit__(self, *_):
        if self.added > 0:
            (PAGES / "nr_hugepages").write_text(str(max(0, self._number("nr_hugepages") - self.added)))
            self.added = 0


def prefer(pid, tid, nice):
    """Gives a thread a priority; and its session, as Linux first divides a processor among sessions (sched(7), autogroup)."""
    os.setpriority(os.PRIO_PROCESS, tid, nice)
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
    except OSError:
        pass  # a kernel without them


def spawn(command, log, cpus=None, nice=0, **options):
    """A process that ends with this one, its output in a log."""
    def before():
        die_with_parent()
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        if nice:
            prefer("self", 0, nice)

    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
    with open(log, "a") as out:
        if options["stdout"] == subprocess.PIPE and options["stdin"] == subprocess.DEVNULL:
            options["stdout"] = out
        return subprocess.Popen([str(c) for c in command], stderr=out, start_new_session=True, preexec_fn=before, cwd="/", **options)


def end(process, limit=10):
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def threads(pid):
    """{thread id: name}"""
    found = {}
    for path in Path(f"/proc/{pid}/task").iterdir():
        try:
            found[int(path.name)] = (path / "comm").read_text().strip()
        except OSError:
            pass
    return found


def cpu_time(pid, tid):
    return int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0])


def busiest_on(pid, cpu, seconds=0.1):
    """The thread of the process that is pinned to the processor and uses it most."""
    def pinned():
        found = {}
        for tid in threads(pid):
            try:
                if os.sched_getaffinity(tid) == {cpu}:
                    found[tid] = cpu_time(pid, tid)
            except OSError:
                pass
        return found

    before = pinned()
    time.sleep(seconds)
    after = pinned()
    ran = {tid: after[tid] - before.get(tid, 0) for tid in after}
    return max(ran, key=ran.get) if ran else None


def confine(pid, worker, cpu, nice):
    """All threads but the worker go to the other processor; the worker comes before others on its own."""
    for tid in threads(pid):
        try:
            if tid != worker:
                os.sched_setaffinity(tid, {cpu})
            elif nice:
                prefer(pid, tid, nice)
        except OSError:
            pass  # it has ended


def pingpong(program, cpus, nice, milliseconds=20):
    """Nanoseconds of the round trip of a cache line."""
    def before():
        if nice:
            prefer("self", 0, nice)

    done = subprocess.run([str(program), *map(str, cpus), str(milliseconds)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=60,
                          check=True, start_new_session=True, preexec_fn=before)
    return json.loads(done.stdout)["ns"]


class Generator:
    """gen.c with its two listening sockets, paths[0] and paths[1]. probe: two more, of the quiet neighbours."""

    def __init__(self, program, rundir, cpu, nice=0, devargs=None, probe=()):
        self.rundir = Path(rundir)
        self.paths = [str(self.rundir / "a.sock"), str(self.rundir / "b.sock")]
        for path in [*self.paths, *probe]:
            Path(path).unlink(missing_ok=True)
        self.log = str(self.rundir / "gen.log")
        prefix = f"bench-gen-{os.getpid()}"
        self.process = spawn([program, "--lcores", f"0@{cpu}", "--in-memory", "--single-file-segments", "--no-pci", "--no-telemetry",
                              "--file-prefix", prefix, "--log-level", "lib.eal:error", "--", *self.paths, *([devargs] if devargs else []), *probe],
                             self.log, cpus={cpu}, nice=nice, stdin=subprocess.PIPE, bufsize=0,
                             env={**os.environ, "RUNTIME_DIRECTORY": str(self.rundir)})
        self.buffer = b""

    def listening(self):
        """Waits for the first socket; the second is there when the first has been connected to."""
        wait_until(lambda: os.path.exists(self.paths[0]) or self.process.poll() is not None, 20, lambda: "no socket: " + tail(self.log))
        return self

    def line(self, limit):
        until = time.monotonic() + limit
        while b"\n" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise BenchError(f"the generator says nothing within {limit} s:\n{tail(self.log)}")
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                raise BenchError(f"the generator has ended:\n{self.buffer.decode()}{tail(self.log)}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def answer(self, limit):
        text = self.line(limit)
        if text.startswith("error"):
            raise BenchError("generator: " + text)
        return text

    def ready(self, limit=30):
        while self.answer(limit) != "ready":
            pass

    def ask(self, command, limit=120):
        self.process.stdin.write(command.encode() + b"\n")
        return json.loads(self.answer(limit))

    def stop(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.write(b"quit\n")
                self.process.wait(3)
            except (OSError, subprocess.TimeoutExpired):
                pass
        end(self.process, 2)
