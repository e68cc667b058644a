"""pytest: what the tests with guests share."""

import pytest

from lab import Switch


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows the ends of the switch's logs and of the guests' consoles."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for thing in value if isinstance(value, (list, tuple)) else [value]:
                if hasattr(thing, "logs"):
                    report.sections.append((f"logs of {type(thing).__name__}", thing.logs()))


@pytest.fixture(scope="module")
def switch():
    """A switch for the tests of a module. Its ledger must balance when they are done."""
    with Switch() as s:
        yield s
