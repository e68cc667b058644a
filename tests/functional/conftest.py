"""pytest: what the functional tests share."""

import pytest

from net import Lab


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows the ends of the switch's logs."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if hasattr(value, "logs"):
                report.sections.append((f"logs of {type(value).__name__}", value.logs()))


@pytest.fixture(scope="module")
def lab():
    """A switch for the tests of a module. Its ledger must balance when they are done."""
    with Lab() as it:
        yield it


@pytest.fixture
def clean(lab):
    """The module's switch, without ports and networks again after the test."""
    yield lab
    lab.check_conservation()
    lab.clear()
