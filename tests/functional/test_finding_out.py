"""The page "Finding out why": its commands, on faults that are made, say what the page promises."""

import re
import shlex
from pathlib import Path

import pytest

from faults import FAULTS, World, answer, shown

PAGE = Path(__file__).resolve().parents[2] / "docs/finding-out-why.md"


@pytest.fixture(scope="module")
def world():
    with World() as w:
        yield w


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_fault(world, fault):
    page = PAGE.read_text()
    fault.make(world)
    for _, command, promised in fault.steps:
        said = answer(world, command)
        for expression in promised:
            assert re.search(expression, said), f"{command} does not say {expression}:\n{said}"
        assert "    $ " + shown(command) in page, f"{command} is not on the page: tests/functional/faults.py > {PAGE}"
    for command in fault.cure:
        world.weirctl(*shlex.split(command)[1:])
    if fault.healed:
        fault.healed(world)
    if fault.undo:
        fault.undo(world)
