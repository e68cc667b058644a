"""Memory without ports and for each port, idle or connected. The processor's time: tests/bench/footprint.py, as it depends on the machine."""

import sys
from pathlib import Path

import pytest

from net import Lab, sanitized

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import footprint  # noqa: E402


@pytest.mark.skipif(sanitized(), reason="sanitizers need memory of their own")
def test_memory():
    figures = footprint.memory(huge=False, ports=32)
    assert figures["pss_no_ports_mb"] < 200, figures
    assert figures["pss_per_vhost-user_port_kb"] < 1024 and figures["pss_per_tap_port_kb"] < 1024, figures


@pytest.mark.skipif(sanitized(), reason="sanitizers need memory of their own")
def test_memory_of_connected_ports():
    with Lab() as lab:
        before, _ = footprint.pss(lab.daemon.pid)
        guests = footprint.connected(lab)
        try:
            after, _ = footprint.pss(lab.daemon.pid)
            assert (after - before) / len(guests) < 1024
            # Nobody is woken for nothing: the worker sleeps, until a guest or the main thread rings.
            (worker,) = lab.ask("worker/list")
            footprint.wait_for(lambda: lab.ask("worker/list")[0]["blocks"] > worker["blocks"], 10, "the worker to sleep")
        finally:
            for guest in guests:
                guest.quit()
