#!/usr/bin/python3
"""Runs the parts of the test suite, and counts what passed and what failed.

One after the other, but for builds that aren't needed yet: these go on beside the tests, which wait most of the time, with what processors these
leave. A check or a build counts as one. The last line is the total: "N passed, N failed".
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build-logs"


MANY = 10       # failures beyond which another attempt would only take time
unsteady = []   # what passed at the second attempt only


class Result:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.seconds, self.shown = 0, False  # shown: its output has been on the terminal


def log_of(name):
    return LOGS / (re.sub(r"\W+", "-", name) + ".log")


running = set()
# What is in sessions of its own is scheduled by session where the kernel does that (autogroup), and nice counts within one only.
STEP_BACK = ["sh", "-c", '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"', "sh"]


def step_forward(process):
    try:
        os.setpriority(os.PRIO_PGRP, process.pid, 0)
        Path(f"/proc/{process.pid}/autogroup").write_text("0")
    except OSError:
        pass  # it has just ended, or there are no such sessions, or we aren't root


def end(process, number=signal.SIGKILL):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass  # it has just ended


def run(name, command, limit, live=False, env=None, beside=False):
    """Exit code of a command; its output goes to a log, and to the terminal when it is `live`. `beside`: others go first."""
    process = subprocess.Popen([*(STEP_BACK if beside else []), *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, start_new_session=True)
    running.add(process)
    # What a test leaves running would hold the pipe open, and a test that hangs would hold up everything.
    timer = threading.Timer(limit, end, [process])
    timer.daemon = True
    timer.start()
    try:
        with open(log_of(name), "wb") as out:
            while data := os.read(process.stdout.fileno(), 65536):
                out.write(data)
                out.flush()
                if live:
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
            status = process.wait()
            if status == -signal.SIGKILL:
                out.write(f"{name}: killed; the limit is {limit} s\n".encode())
    finally:
        timer.cancel()
    running.discard(process)
    return status


def show_end(name):
    """The end of a part's log."""
    if log_of(name).exists():
        print("\n".join([f"--- the last lines, all is in {log_of(name).relative_to(ROOT)}"] + log_of(name).read_text(errors="replace").splitlines()[-200:]))


def check(name, *command, limit=900, env=None, beside=False):
    failed = run(name, [str(c) for c in command], limit, env=env, beside=beside) != 0
    return Result(failed=1) if failed else Result(passed=1)


def meson_test(name, folder, limit=900, arguments=()):
    """The programs of meson's tests. A cmocka program counts with each of its tests."""
    testlog = ROOT / folder / "meson-logs/testlog.json"
    testlog.unlink(missing_ok=True)
    status = run(name, ["meson", "test", "-C", folder, "--print-errorlogs", *arguments], limit)
    result = Result()
    if testlog.exists():
        for line in testlog.read_text().splitlines():
            test = json.loads(line)
            text = test.get("stdout", "") + test.get("stderr", "")
            passed = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", text))
            failed = sum(int(n) for n in re.findall(r"\[  FAILED  \] (\d+) test", text))
            skipped = sum(int(n) for n in re.findall(r"\[  SKIPPED \] (\d+) test", text))
            if test["result"] == "SKIP":
                result.skipped += skipped or 1
                continue
            ok = test["result"] in ("OK", "EXPECTEDFAIL")
            result.passed += passed or (1 if ok else 0)
            result.failed += failed or (0 if ok else 1)
            result.skipped += skipped
    if status and not result.failed:
        result.failed = 1
    return result


def pytest_once(name, folder, build, limit, arguments=()):
    """One run of pytest: its counts."""
    junit = LOGS / (re.sub(r"\W+", "-", name) + ".xml")
    junit.unlink(missing_ok=True)
    status = run(name, ["/usr/bin/python3", "-m", "pytest", "-q", "-o", f"cache_dir={LOGS / ('cache-' + build + '-' + Path(folder).name)}",
                        "-o", "faulthandler_timeout=300", "--durations=5", f"--junitxml={junit}", *arguments, folder], limit, live=True,
                 # A command that ends leaves its memory to the kernel; unit tests look for leaks.
                 env={"WEIR_BUILD": str(ROOT / build), "ASAN_OPTIONS": "detect_leaks=0"})
    result = Result()
    result.shown = True
    if junit.exists():
        for suite in xml.etree.ElementTree.parse(junit).getroot().iter("testsuite"):
            n = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
            result.failed += n["failures"] + n["errors"]
            result.skipped += n["skipped"]
            result.passed += max(0, n["tests"] - n["failures"] - n["errors"] - n["skipped"])
    if status and not result.failed:
        result.failed = 1
    return result


def pytest(name, folder, build, limit=2400, at_once=1):
    """The tests in a folder, on what is in a build folder, so many files at once.

    Emulated guests on a busy machine starve now and then. The few tests that fail are run once more, by themselves; one that passes then is counted as
    passed and named as unsteady at the end.
    """
    # Functional tests wait most of the time. Those of a file share a switch, and stay together.
    result = pytest_once(name, folder, build, limit, ["-n", str(at_once), "--dist", "loadfile"] if at_once > 1 else [])
    if 0 < result.failed <= MANY:
        print(f"=== {name}: what failed, once more", flush=True)
        again = pytest_once(name + "-again", folder, build, limit, ["--last-failed"])
        if again.failed < result.failed:
            unsteady.append(f"{name}: {result.failed - again.failed} passed at the second attempt, see build-logs/{name}.log")
            result.passed += result.failed - again.failed
            result.failed = again.failed
    return result


SANITIZE = ["--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"]

# name, what it is, function. The order is that of a first look: what is quick and fails often comes first.
PARTS = [
    ("includes", "direction of includes", lambda n: check(n, "scripts/check-includes")),
    ("shell", "shellcheck of the scripts", lambda n: check(n, "scripts/check-shell")),
    ("build", "gcc, as a release", lambda n: check(n, "scripts/build", "build", limit=1800)),
    ("unit", "unit tests", lambda n: meson_test(n, "build")),
    ("functional", "functional tests", lambda n: pytest(n, "tests/functional", "build", at_once=2)),
    ("guests", "end to end, with guests on QEMU", lambda n: pytest(n, "integration", "build", at_once=2)),
    ("build-asan", "gcc, address and undefined sanitizers", lambda n: check(n, "scripts/build", "build-asan", *SANITIZE, limit=2400, beside=True)),
    ("unit-asan", "unit tests under sanitizers", lambda n: meson_test(n, "build-asan", limit=1800, arguments=["--timeout-multiplier=5"])),
    ("functional-asan", "functional tests under sanitizers", lambda n: pytest(n, "tests/functional", "build-asan", at_once=2)),
    ("build-clang", "clang, warnings", lambda n: check(n, "scripts/build", "build-clang", "--buildtype=debugoptimized", limit=2400, env={"CC": "clang"},
                                                       beside=True)),
    ("fuzz", "fuzzing for a minute: packets, descriptions of packets", lambda n: check(n, "tests/fuzz/run", "build-fuzz", limit=2400, beside=True)),
]
# A part that makes no sense when another one has failed.
NEEDS = {"unit": "build", "functional": "build", "guests": "build", "unit-asan": "build-asan", "functional-asan": "build-asan"}
QUICK = ["includes", "shell", "build", "unit", "functional"]
# What goes on beside the tests from the first ones of these on, in this order.
BESIDE = ["build-asan", "build-clang", "fuzz"]
WAITING = ["functional", "guests"]


def timed(function, name):
    began = time.monotonic()
    result = function(name)
    result.seconds = time.monotonic() - began
    return result


class Beside(threading.Thread):
    """The parts that go on beside others, one after the other."""

    def __init__(self, names):
        super().__init__(daemon=True)
        self.names, self.results = names, {name: None for name in names}
        self.ready = threading.Condition()

    def run(self):
        functions = {name: function for name, _, function in PARTS}
        for name in self.names:
            try:
                result = timed(functions[name], name)
            except Exception as e:  # it counts as failed, or who waits for it would wait forever
                print(f"{name}: {e}", flush=True)
                result = Result(failed=1)
            with self.ready:
                self.results[name] = result
                self.ready.notify_all()

    def result(self, name):
        """Waits for it; from then on nobody goes first."""
        with self.ready:
            while not self.ready.wait_for(lambda: self.results[name], 1):
                for process in list(running):
                    step_forward(process)
        return self.results[name]


def main(arguments):
    names = [name for name, _, _ in PARTS]
    if arguments == ["list"]:
        for name, what, _ in PARTS:
            print(f"{name:16} {what}")
        return 0
    wanted = QUICK if arguments == ["quick"] else arguments or names
    unknown = [a for a in wanted if a not in names]
    if unknown:
        print(f"no part {' '.join(unknown)}; scripts/test list shows them", file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    start, rows, broken = time.monotonic(), [], set()
    beside = Beside([name for name in BESIDE if name in wanted])
    for name, what, function in PARTS:
        if name not in wanted:
            continue
        if name in WAITING + BESIDE and not beside.ident:
            beside.start()
        print(f"=== {name}: {what}", flush=True)
        if NEEDS.get(name) in broken:
            print(f"not run: {NEEDS[name]} has failed")
            result = Result(failed=1)
        else:
            result = beside.result(name) if name in beside.names else timed(function, name)
            if result.failed and not result.shown:
                show_end(name)
        if result.failed:
            broken.add(name)
        rows.append((name, result))
        print(f"--- {name}: {result.passed} passed, {result.failed} failed, {result.seconds:.0f} s", flush=True)
    print(f"\n{'part':16} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for name, result in rows:
        print(f"{name:16} {result.passed:7} {result.failed:7} {result.skipped:8} {result.seconds:8.0f}{'  beside others' if name in BESIDE else ''}")
    failed = sum(result.failed for _, result in rows)
    for line in unsteady:
        print(f"unsteady: {line}")
    print(f"{time.monotonic() - start:.0f} s in all; logs: build-logs\n")
    print(f"{sum(result.passed for _, result in rows)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        for process in list(running):
            end(process, signal.SIGINT)
        for process in list(running):
            process.wait()
        sys.exit(130)
