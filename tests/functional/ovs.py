"""Open vSwitch with its user-space datapath, as somebody else's switch at the other end of a cable."""

import fcntl
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from net import OUTSIDE, SLOW, run, wait_for

ROOT = Path(__file__).resolve().parents[2]


def unpacked():
    """The folder of Debian's package, taken apart: installed, it would start services of its own. The same as that of the bench's peers."""
    loader = importlib.machinery.SourceFileLoader("image_build", str(ROOT / "integration/image/build"))
    image = importlib.util.module_from_spec(importlib.util.spec_from_loader("image_build", loader))
    loader.exec_module(image)
    cache = image.cache_folder()
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for tree in (cache / "openvswitch", cache / "openvswitch-switch"):
            if (tree / "usr/lib/openvswitch-switch/ovs-vswitchd").exists():
                return tree
        with OUTSIDE, tempfile.TemporaryDirectory(dir=cache) as tmp:
            subprocess.run(["dpkg", "-x", str(image.apt_download("openvswitch-switch", tmp)), tmp + "/tree"], check=True)
            Path(tmp + "/tree").rename(tree)
    return tree


class Ovs:
    """In the network namespace that the program is in."""

    def __init__(self):
        self.tree, self.dir, self.processes = unpacked(), Path(tempfile.mkdtemp(prefix="ovs-")), []
        self.db, self.ctl = f"unix:{self.dir}/db.sock", f"{self.dir}/vswitchd.ctl"
        self.env = {**os.environ, "OVS_RUNDIR": str(self.dir), "OVS_LOGDIR": str(self.dir), "OVS_DBDIR": str(self.dir)}
        run("ovsdb-tool", "create", self.dir / "conf.db", self.tree / "usr/share/openvswitch/vswitch.ovsschema")
        self.start("ovsdb-server", self.dir / "conf.db", f"--remote=p{self.db}")
        wait_for(lambda: (self.dir / "db.sock").exists(), 10 * SLOW, "ovsdb-server")
        self.vsctl("--no-wait", "init")
        self.start(self.tree / "usr/lib/openvswitch-switch/ovs-vswitchd", self.db, f"--unixctl={self.ctl}", "-vconsole:off",
                   f"--log-file={self.dir}/ovs-vswitchd.log", "--disable-system")
        wait_for(lambda: Path(self.ctl).exists(), 10 * SLOW, "ovs-vswitchd")

    def start(self, *command):
        self.processes.append(subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=open(self.dir / "out", "a"),
                                               stderr=subprocess.STDOUT, env=self.env))

    def vsctl(self, *words):
        done = subprocess.run([str(self.tree / "usr/bin/ovs-vsctl"), f"--db={self.db}", "--timeout=20", *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)
        assert done.returncode == 0, done.stdout + self.log()
        return done.stdout

    def appctl(self, *words):
        return run("ovs-appctl", "-t", self.ctl, *words)

    def log(self):
        path = self.dir / "ovs-vswitchd.log"
        return path.read_text()[-4000:] if path.exists() else ""

    def rows(self, table, *columns):
        text = json.loads(self.vsctl("--format=json", f"--columns={','.join(columns)}", "list", table))
        return [dict(zip(text["headings"], row)) for row in text["data"]]

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
