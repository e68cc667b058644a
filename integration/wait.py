"""Waiting for a condition, always with a limit."""

import time


class Timeout(Exception):
    pass


def wait_for(condition, limit, what, interval=0.05):
    """Calls condition() until it returns something true, and returns that. Raises Timeout after `limit` seconds.

    `what` says what was waited for; a callable makes the text at the end, when more is known.
    """
    end = time.monotonic() + limit
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise Timeout(f"waited {limit:g} s for {what() if callable(what) else what}")
        time.sleep(interval)
