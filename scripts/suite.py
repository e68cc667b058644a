#!/usr/bin/python3
"""Runs the parts of the test suite, one after the other, and counts what passed and what failed.

A check or a build counts as one. The last line is the total: "N passed, N failed".
"""

import json
import os
import re
import signal
import subprocess
import sys
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


def run(name, command, limit, live=False, env=None):
    """Exit code of a command; its output goes to a log, and to the terminal when it is `live` or has failed."""
    log = LOGS / (re.sub(r"\W+", "-", name) + ".log")
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, **(env or {})}, start_new_session=True)
    # What a test leaves running would hold the pipe open, and a test that hangs would hold up everything.
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.alarm(limit)
    text = b""
    try:
        with open(log, "wb") as out:
            while data := os.read(process.stdout.fileno(), 65536):
                out.write(data)
                out.flush()
                text += data
                if live:
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
        status = process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise
    finally:
        signal.alarm(0)
    if status == -signal.SIGKILL:
        print(f"--- {name}: killed; the limit is {limit} s")
    if status and not live:
        lines = text.decode(errors="replace").splitlines()
        print("\n".join(["--- the last lines, all is in " + str(log.relative_to(ROOT))] + lines[-200:]))
    return status


def check(name, *command, limit=900, env=None):
    failed = run(name, [str(c) for c in command], limit, env=env) != 0
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
    ("guests", "end to end, with guests on QEMU", lambda n: pytest(n, "integration", "build")),
    ("build-clang", "clang, warnings", lambda n: check(n, "scripts/build", "build-clang", "--buildtype=debugoptimized",
                                                       limit=1800, env={"CC": "clang"})),
    ("fuzz", "fuzzing for a minute: packets, descriptions of packets", lambda n: check(n, "tests/fuzz/run", "build-fuzz")),
    ("build-asan", "gcc, address and undefined sanitizers", lambda n: check(n, "scripts/build", "build-asan", *SANITIZE,
                                                                           limit=1800)),
    ("unit-asan", "unit tests under sanitizers", lambda n: meson_test(n, "build-asan", limit=1800,
                                                                      arguments=["--timeout-multiplier=5"])),
    ("functional-asan", "functional tests under sanitizers", lambda n: pytest(n, "tests/functional", "build-asan", at_once=2)),
]
# A part that makes no sense when another one has failed.
NEEDS = {"unit": "build", "functional": "build", "guests": "build", "unit-asan": "build-asan", "functional-asan": "build-asan"}
QUICK = ["includes", "shell", "build", "unit", "functional"]


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
    for name, what, function in PARTS:
        if name not in wanted:
            continue
        print(f"=== {name}: {what}", flush=True)
        began = time.monotonic()
        if NEEDS.get(name) in broken:
            print(f"not run: {NEEDS[name]} has failed")
            result = Result(failed=1)
        else:
            result = function(name)
        if result.failed:
            broken.add(name)
        rows.append((name, result, time.monotonic() - began))
        print(f"--- {name}: {result.passed} passed, {result.failed} failed, {rows[-1][2]:.0f} s", flush=True)
    print(f"\n{'part':16} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for name, result, seconds in rows:
        print(f"{name:16} {result.passed:7} {result.failed:7} {result.skipped:8} {seconds:8.0f}")
    failed = sum(result.failed for _, result, _ in rows)
    for line in unsteady:
        print(f"unsteady: {line}")
    print(f"{time.monotonic() - start:.0f} s in all; logs: build-logs\n")
    print(f"{sum(result.passed for _, result, _ in rows)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
