"""A switch of one's own: a database, a daemon, and the command line for it, all in one folder. Side by side with others.

    with Switch() as switch:
        switch.weirctl("network", "add", "blue")
        print(switch.weirctl("port", "list", json=True))

On leaving, the ledger of packets must balance and the daemon must end in order. The environment variable WEIR_BUILD
names another build folder than ./build. Standard library only.
"""

import glob
import json as json_module
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from guest import die_with_parent, tail
from wait import wait_for

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "vswitch/weir.ovsschema"


class SwitchError(Exception):
    pass


def default_build():
    return Path(os.environ.get("WEIR_BUILD", ROOT / "build")).absolute()


def unixctl(path, method, *params, limit=10):
    """Calls a command on a control socket (the JSON-RPC of Open vSwitch's unixctl); its text."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(limit)
        s.connect(str(path))
        s.sendall(json_module.dumps({"id": 0, "method": method, "params": [str(p) for p in params]}).encode())
        text = ""
        while True:
            data = s.recv(1 << 20)
            if not data:
                raise SwitchError(f"{method}: the control socket was closed: {text[:200]}")
            text += data.decode()
            try:
                reply = json_module.loads(text)
            except ValueError:
                continue  # more is to come
            if reply.get("error") is not None:
                raise SwitchError(f"{method}: {reply['error']}")
            return reply["result"]


class Switch:
    def __init__(self, rundir=None, build=None, host=None, huge=False, options=(), env=None, die_with_parent=True):
        """Nothing is started yet. rundir: all its files; None makes a temporary folder, removed by stop().

        options: more arguments of weir-vswitchd. env: more environment of it. die_with_parent: the kernel ends database
        and daemon when this program ends in whatever way.
        """
        self.temporary = rundir is None
        # A short path: the name of a UNIX socket has 107 characters at most.
        self.rundir = Path(rundir or tempfile.mkdtemp(prefix="weir-", dir="/tmp"))
        self.rundir.mkdir(parents=True, exist_ok=True)
        self.build = Path(build or default_build())
        self.host, self.huge, self.options, self.env = host, huge, list(options), dict(env or {})
        self.die_with_parent = die_with_parent
        self.database = self.daemon = None
        self.problems = []

    # --- paths

    def path(self, name):
        return str(self.rundir / name)

    @property
    def db(self):
        return "unix:" + self.path("db.sock")

    @property
    def ctl(self):
        return self.path("weir-vswitchd.ctl")

    # --- processes

    def _spawn(self, command, log, env=None):
        with open(self.path(log), "a") as out:
            return subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    env={**os.environ, **(env or {})}, cwd="/", start_new_session=True,
                                    preexec_fn=die_with_parent if self.die_with_parent else None)

    def _alive(self, process, log):
        if process.poll() is not None:
            raise SwitchError(f"{process.args[0]} has ended with {process.returncode}:\n{tail(self.path(log))}")

    def start_database(self):
        """Starts ovsdb-server on weir.db, which is made from the schema when it isn't there."""
        database = self.path("weir.db")
        if not os.path.exists(database):
            subprocess.run(["ovsdb-tool", "create", database, str(SCHEMA)], check=True)
        Path(self.path("db.sock")).unlink(missing_ok=True)
        self.database = self._spawn(
            ["ovsdb-server", database, "--remote=punix:" + self.path("db.sock"), "--unixctl=" + self.path("db.ctl"),
             "--log-file=" + self.path("ovsdb-server.log"), "-vconsole:off"], "ovsdb-server.out")

        def answers():
            self._alive(self.database, "ovsdb-server.out")
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(self.path("db.sock"))
                return True
            except OSError:
                return False

        wait_for(answers, 20, "ovsdb-server's socket", 0.01)

    def start_daemon(self, limit=60):
        """Starts weir-vswitchd and waits until its control socket answers."""
        program = self.build / "vswitch/weir-vswitchd"
        if not program.exists():
            raise SwitchError(f"there is no {program}: scripts/build {self.build}")
        command = [program, "--db", self.db, "--rundir", self.rundir, "--logdir", self.rundir,
                   "--huge" if self.huge else "--no-huge", "--no-pci"]
        if self.host:
            command += ["--host", self.host]
        # The options of the sanitizers mean nothing to a build without them.
        env = {"ASAN_OPTIONS": "abort_on_error=0:exitcode=99:detect_leaks=0:log_path=" + self.path("asan"),
               "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99:log_path=" + self.path("ubsan"), **self.env}
        self.daemon = self._spawn(command + self.options, "weir-vswitchd.out", env)

        def answers():
            self._alive(self.daemon, "weir-vswitchd.out")
            try:
                unixctl(self.ctl, "version", limit=limit)
                return True
            except OSError:
                return False

        wait_for(answers, limit, lambda: "weir-vswitchd's control socket:\n" + self.logs(), 0.02)

    def start(self):
        self.start_database()
        self.start_daemon()
        self.weirctl("init")
        return self

    def _reap(self, process, signal_number, limit):
        if process.poll() is None:
            process.send_signal(signal_number)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.problems.append(f"{process.args[0]} didn't end within {limit} s of signal {signal_number}")
            return process.returncode

    def stop_daemon(self, limit=20):
        """Ends weir-vswitchd in order; what goes wrong is kept for stop()."""
        if not self.daemon:
            return
        died = self.daemon.poll() is not None
        status = self._reap(self.daemon, signal.SIGTERM, limit)
        if died:
            self.problems.append(f"weir-vswitchd had ended by itself with {status}:\n{tail(self.path('weir-vswitchd.out'))}")
        elif status not in (0, -signal.SIGKILL):
            self.problems.append(f"weir-vswitchd ended with {status}:\n{tail(self.path('weir-vswitchd.out'))}")
        self.daemon = None

    def kill_daemon(self):
        """kill -9."""
        self._alive(self.daemon, "weir-vswitchd.out")
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None

    def restart_daemon(self, kill=False):
        self.kill_daemon() if kill else self.stop_daemon()
        self.start_daemon()

    def stop_database(self):
        if self.database:
            self._reap(self.database, signal.SIGTERM, 10)
            self.database = None

    def sanitizer_reports(self):
        return "".join(Path(f).read_text(errors="replace") for f in glob.glob(self.path("asan.*")) + glob.glob(self.path("ubsan.*")))

    def stop(self, check=True):
        """Checks the ledger (unless told otherwise), ends all, and raises SwitchError with what went wrong."""
        if check and self.daemon and self.daemon.poll() is None:
            try:
                self.check_conservation()
            except Exception as e:  # whatever it is, all must be ended first
                self.problems.append(str(e))
        self.stop_daemon()
        self.stop_database()
        reports = self.sanitizer_reports()
        if reports:
            self.problems.append(reports)
        problems, self.problems = self.problems, []
        if self.temporary and not problems:
            shutil.rmtree(self.rundir, ignore_errors=True)
        if problems:
            raise SwitchError("\n".join(problems) + f"\nThe logs are in {self.rundir}")

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        # An error of the test itself says more than what follows from it.
        try:
            self.stop(check=kind is None)
        except SwitchError:
            if kind is None:
                raise

    def logs(self, lines=30):
        """The ends of the logs, for a failing test."""
        text = ""
        for name in ("weir-vswitchd.out", "weir-vswitchd.log", "ovsdb-server.log"):
            if os.path.exists(self.path(name)):
                text += f"--- {self.path(name)}\n{tail(self.path(name), lines)}"
        return text + self.sanitizer_reports()

    # --- asking and telling

    def weirctl(self, *args, json=False, check=True, limit=30):
        """Runs weirctl. The text, or with json=True the data. check=False: the finished process instead, whatever it says."""
        command = [str(self.build / "ctl/weirctl"), "--db", self.db, "--ctl", self.ctl] + (["-f", "json"] if json else [])
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run(command + [str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=limit, env=env)
        if not check:
            return done
        if done.returncode:
            raise SwitchError(f"weirctl {' '.join(str(a) for a in args)}: exit code {done.returncode}\n{done.stderr}{done.stdout}")
        return json_module.loads(done.stdout) if json else done.stdout

    def unixctl(self, method, *params):
        return unixctl(self.ctl, method, *params)

    def row(self, table, name):
        """A row of the database as it is, without weirctl: {column: value}. An optional column is None or its value."""
        select = {"op": "select", "table": table, "where": [["name", "==", name]]}
        done = subprocess.run(["ovsdb-client", "transact", self.db, json_module.dumps(["Weir", select])], check=True,
                              stdout=subprocess.PIPE, text=True, timeout=20)
        rows = json_module.loads(done.stdout)[0]["rows"]
        if len(rows) != 1:
            raise SwitchError(f"{len(rows)} rows of {table} have the name {name}")

        def plain(value):
            # RFC 7047, section 5.1
            if isinstance(value, list) and value[0] == "map":
                return dict(value[1])
            if isinstance(value, list) and value[0] == "set":
                return [plain(v) for v in value[1]] or None
            return value[1] if isinstance(value, list) else value

        return {column: plain(value) for column, value in rows[0].items()}

    def port(self, name):
        """The port's row, with the sentence that says why it passes no traffic as "problem"; "" if it does."""
        row = self.row("Port", name)
        row["problem"] = row["status"].get("problem", "")
        return row

    def _dropped(self, *command):
        """{reason: packets} of health, or of the rows of drops."""
        answer, sums = self.weirctl(*command, json=True), {}
        for row in answer if isinstance(answer, list) else answer["drops"]:
            sums[row["reason"]] = sums.get(row["reason"], 0) + row["packets"]
        return sums

    def check_conservation(self, limit=10):
        """Every packet that came in must be accounted for, and every drop by port, reason and row. Packets on their way settle within the limit."""
        last = None

        def balanced():
            nonlocal last
            last = self.weirctl("health", check=False)
            if last.returncode:
                return False
            # More may be dropped in between.
            least, rows, most = self._dropped("health"), self._dropped("drops", "--sums"), self._dropped("health")
            last.stderr += f"rows of drops: {rows}"
            return all(least.get(r, 0) <= rows.get(r, 0) <= most.get(r, 0) for r in {*least, *rows, *most})

        wait_for(balanced, limit, lambda: f"the ledger to balance:\n{last.stdout}{last.stderr}")
