"""An ovsdb-server with a Weir database, and dbdump: the switch's database client without a switch."""

import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("WEIR_BUILD", ROOT / "build")).absolute()
SCHEMA = ROOT / "vswitch/weir.ovsschema"
LIMIT = 20


def wait_for(condition, what, limit=LIMIT):
    """Calls condition() until it returns something true, and returns that."""
    end = time.monotonic() + limit
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"waited {limit} s for {what() if callable(what) else what}"
        time.sleep(0.01)


def kill(process):
    if process and process.poll() is None:
        process.kill()
    if process:
        process.wait()


class Server:
    """A database server. The files are in `folder`; create=False starts it on the file that is there."""

    def __init__(self, folder, name="db", schema=SCHEMA, create=True, options=()):
        self.options = options
        self.folder, self.file = Path(folder), Path(folder) / f"{name}.db"
        self.socket = Path(folder) / f"{name}.sock"
        self.remote = f"unix:{self.socket}"
        self.process = None
        if create:
            self.create(schema)
            self.start()

    def create(self, schema=SCHEMA):
        self.file.unlink(missing_ok=True)
        subprocess.run(["ovsdb-tool", "create", self.file, schema], check=True)

    def start(self):
        ctl = f"{self.socket}.ctl"
        self.process = subprocess.Popen(
            ["ovsdb-server", self.file, *self.options, f"--remote=punix:{self.socket}", f"--unixctl={ctl}", "-vconsole:off", "-vsyslog:off"])
        wait_for(lambda: self.answers(), f"{self.socket} to answer")

    def answers(self):
        return subprocess.run(["ovsdb-client", "-t", "5", "list-dbs", self.remote], capture_output=True).returncode == 0

    def stop(self, hard=False):
        if self.process:
            if not hard:
                self.process.terminate()
                self.process.wait(LIMIT)
            kill(self.process)
        self.process = None
        self.socket.unlink(missing_ok=True)

    def call(self, method, params):
        """One JSON-RPC request (RFC 7047) on a connection of its own; the result."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(LIMIT)
            s.connect(str(self.socket))
            s.sendall(json.dumps({"id": 0, "method": method, "params": params}).encode())
            decoder, text = json.JSONDecoder(), b""
            while True:
                data = s.recv(1 << 20)
                assert data, f"{self.socket} closed the connection: {text[:500]}"
                text += data
                try:
                    reply, _ = decoder.raw_decode(text.decode())
                except ValueError:
                    continue  # more is to come
                assert reply["error"] is None, reply["error"]
                return reply["result"]

    def transact(self, *operations):
        """Results of the operations; each must succeed."""
        results = self.call("transact", ["Weir", *operations])
        for result in results:
            assert result is None or "error" not in result, result
        return results

    def refuses(self, *operations):
        """The error of a transaction that must fail."""
        results = self.call("transact", ["Weir", *operations])
        errors = [r for r in results if r and "error" in r]
        assert errors, f"the transaction was accepted: {results}"
        return errors[0]["error"]

    def rows(self, table, *where):
        """Rows as dictionaries: sets as lists, maps as dictionaries, an optional value as itself or None."""
        types = json.loads(SCHEMA.read_text())["tables"][table]["columns"]
        (result,) = self.transact({"op": "select", "table": table, "where": list(where)})
        return [{c: plain(v, types.get(c, {}).get("type")) for c, v in row.items()} for row in result["rows"]]

    def row(self, table, name):
        found = self.rows(table, ["name", "==", name])
        assert len(found) <= 1
        return found[0] if found else None

    def insert(self, table, /, **columns):
        (result,) = self.transact({"op": "insert", "table": table, "row": columns})
        return result["uuid"][1]

    def update(self, table, name, **columns):
        (result,) = self.transact({"op": "update", "table": table, "where": [["name", "==", name]], "row": columns})
        assert result["count"] == 1

    def delete(self, table, *where):
        self.transact({"op": "delete", "table": table, "where": list(where)})

    def commit(self, *operations):
        """The operations and the next generation, as a client does that waits. Returns the generation."""
        *_, row = self.transact(*operations, {"op": "mutate", "table": "Weir", "where": [], "mutations": [["next_cfg", "+=", 1]]},
                                {"op": "select", "table": "Weir", "where": [], "columns": ["next_cfg"]})
        return row["rows"][0]["next_cfg"]


def plain(value, type_):
    is_list = isinstance(value, list)
    if is_list and value[0] == "map":
        return dict(value[1])
    if is_list and value[0] == "uuid":
        return value[1]
    optional = isinstance(type_, dict) and type_.get("min") == 0 and type_.get("max") == 1
    if is_list and value[0] == "set":
        values = [plain(v, None) for v in value[1]]
        return (values[0] if values else None) if optional else values
    if isinstance(type_, dict) and type_.get("min") == 0 and not optional:
        return [value]
    return value


def ref(uuid):
    return ["uuid", uuid]


def a_set(*values):
    return ["set", list(values)]


def a_map(**pairs):
    return ["map", [[k.replace("_", "-"), v] for k, v in pairs.items()]]


class Dump:
    """dbdump at work. It keeps the last config and problem; poll() reads what it has printed meanwhile."""

    def __init__(self, remote, host="h1", control=None, folder="/tmp", env=None):
        self.config, self.problem, self.events, self.configs = None, "not started", [], 0
        self.rest = b""
        self.stderr_path = Path(folder) / f"dbdump-{host}.log"
        arguments = [BUILD / "tests/tools/dbdump", remote, host] + ([control] if control else [])
        with open(self.stderr_path, "ab") as log:
            self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0,
                                            env={**os.environ, **(env or {})})
        os.set_blocking(self.process.stdout.fileno(), False)

    def poll(self):
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], 0)
            data = self.process.stdout.read(1 << 20) if ready else None
            if not data:
                return self
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                self.events.append(event)
                if "config" in event:
                    self.config = event["config"]
                    self.configs += 1
                if "problem" in event:
                    self.problem = event["problem"]

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def log(self):
        return self.stderr_path.read_text(errors="replace")

    def until(self, condition, what, limit=LIMIT):
        """Waits until condition(self) holds."""
        return wait_for(lambda: condition(self.poll()),
                        lambda: f"{what}; problem: {self.problem!r}, config: {self.config}, log:\n{self.log()[-4000:]}", limit)

    def in_order(self):
        return self.until(lambda d: d.problem is None and d.config, "a config")

    def port(self, name):
        return self.named("ports", name)

    def network(self, name):
        return self.named("networks", name)

    def named(self, kind, name):
        found = [x for x in (self.config or {}).get(kind, []) if x["name"] == name]
        assert len(found) <= 1
        return found[0] if found else None

    def stop(self):
        """Ends it in order; it must not have crashed."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGABRT)
                self.process.wait()
        assert self.process.returncode in (0, -signal.SIGKILL), f"dbdump ended with {self.process.returncode}:\n{self.log()[-8000:]}"
        self.poll()
