"""Prometheus' promtool: the host's, or Debian's, unpacked into the cache: installed, the package would start a service."""

import importlib.machinery
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from net import OUTSIDE

ROOT = Path(__file__).resolve().parents[2]


def program():
    found = shutil.which("promtool")
    if found:
        return found
    loader = importlib.machinery.SourceFileLoader("image_build", str(ROOT / "integration/image/build"))
    image = importlib.util.module_from_spec(importlib.util.spec_from_loader("image_build", loader))
    loader.exec_module(image)
    path = image.cache_folder() / "promtool"
    if not path.exists():
        with OUTSIDE, tempfile.TemporaryDirectory(dir=path.parent) as tmp:
            subprocess.run(["dpkg", "-x", str(image.apt_download("prometheus", tmp)), tmp + "/tree"], check=True)
            Path(tmp + "/tree/usr/bin/promtool").rename(path)
    return str(path)


def promtool(*arguments, text=None, cwd=None):
    """What it prints. Any complaint of its is an error."""
    done = subprocess.run([program(), *map(str, arguments)], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                          cwd=cwd, stdin=subprocess.DEVNULL if text is None else None)
    assert done.returncode == 0, done.stdout
    return done.stdout
