"""vhost/: packed rings go on after the process that served them was killed."""
import os
import random as dice
import time

import pytest

from vguest import Backend, Driver, wait_for

LONG = bool(os.environ.get("WEIR_LONG"))
SEED = int(os.environ.get("WEIR_SEED", time.time_ns() % 1000000))
BURST = 32

SHAPES = {
    "chains": dict(size=64, rxsize=256, chain=3),
    "busy": dict(size=1024, rxsize=4096, chain=3, window=600),
    "single": dict(size=64, rxsize=128, chain=1, packet=160),
    "odd-size": dict(size=61, rxsize=251, chain=5),
    "in-order": dict(size=64, rxsize=256, chain=3, in_order=1),
    "not-mergeable": dict(size=64, rxsize=256, chain=2, mrg=0),
}


def start(sock, rings):
    backend = Backend().ready()
    backend.open("vm1", sock, "packed", f"rings={rings}")
    return backend


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_at_random_moments(tmp_path, shape):
    """kill -9 while traffic flows: every time it goes on, and at most one burst of each queue is lost or doubled."""
    kills = 100 if LONG else 10 if shape == "busy" else 4
    sock, rings = tmp_path / "vm1.sock", tmp_path / "vm1.rings"
    print("seed", SEED)
    dice.seed(SEED)
    with Driver(sock, **SHAPES[shape]) as driver:
        driver.ready()
        backend = start(sock, rings)
        worst = {"lost": 0, "doubled": 0, "damaged": 0}
        try:
            for i in range(kills + 1):
                before = driver.count()

                def moved():
                    now = driver.count()
                    return now if now["received"] > before["received"] + 5000 else None
                after = wait_for(moved, 20, f"traffic after kill {i}: {driver.count()} {backend.problem('vm1')}")
                for key in worst:
                    worst[key] = max(worst[key], after[key] - before[key])
                if i == kills:
                    break
                time.sleep(dice.random() / 50)
                backend.kill()
                backend = start(sock, rings)
            assert backend.problem("vm1") == ""
        finally:
            backend.quit()
        total = driver.count()
        print(f"{shape}: {kills} kills, worst of one kill {worst}, in all {total}")
        assert total["bad"] == 0
        assert worst["lost"] <= 2 * BURST and worst["doubled"] <= 2 * BURST and worst["damaged"] <= 1
        assert total["laps"] > kills


def received(driver, more=2000):
    start = driver.count()["received"]
    return wait_for(lambda: driver.count()["received"] > start + more, what=f"{more} packets: {driver.count()}")


def test_guest_is_reset_meanwhile(tmp_path):
    """The places that were kept don't fit the rings any more: the driver's new start counts."""
    sock, rings = tmp_path / "vm1.sock", tmp_path / "vm1.rings"
    with Driver(sock, size=64, rxsize=256, chain=3) as driver:
        for _ in range(5):
            backend = start(sock, rings)
            try:
                received(driver.ready())
                backend.kill()
                driver.ask("reset")
                time.sleep(dice.random() / 100)
                backend = start(sock, rings)
                received(driver)
                assert backend.problem("vm1") == ""
                backend.close("vm1")
            finally:
                backend.quit()
        assert driver.count()["bad"] == 0


def test_ended_in_order(tmp_path):
    """Nothing is lost when the process closes the port and ends, and another guest on the same socket starts afresh."""
    sock, rings = tmp_path / "vm1.sock", tmp_path / "vm1.rings"
    for _ in range(2):
        with Driver(sock, size=64, rxsize=256, chain=3) as driver:
            driver.ready()
            for _ in range(2):
                backend = start(sock, rings)
                received(driver)
                assert backend.quit() == 0, backend.log_text()
            count = driver.count()
            assert count["lost"] <= BURST and count["doubled"] == count["damaged"] == count["bad"] == 0


def test_place_that_can_not_be_told(tmp_path):
    """The file is gone, and the descriptors alone leave more than one answer: the ring is named, and nothing is done to it."""
    sock, rings = tmp_path / "vm1.sock", tmp_path / "vm1.rings"
    with Driver(sock, size=64, rxsize=256, chain=3, in_order=1) as driver:
        backend = start(sock, rings)
        try:
            received(driver.ready())
            driver.ask("pause")
            backend.kill()
            os.unlink(rings)
            backend = start(sock, rings)
            problem = wait_for(lambda: backend.problem_with("vm1", "packed ring"))
            assert problem.startswith("place in a packed ring lost: where the ")
            backend.kill()
            driver.ask("reset")
            driver.ask("go")
            backend = start(sock, rings)
            received(driver)
            assert backend.problem("vm1") == ""
        finally:
            backend.quit()


@pytest.mark.parametrize("broken", [b"", b"weirring", b"\xff" * 100000], ids=["empty", "short", "other"])
def test_file_that_is_no_record(tmp_path, broken):
    sock, rings = tmp_path / "vm1.sock", tmp_path / "vm1.rings"
    rings.write_bytes(broken)
    with Driver(sock) as driver:
        backend = start(sock, rings)
        received(driver.ready())
        assert backend.quit() == 0
