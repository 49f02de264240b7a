"""What docs/images/memory.svg shows is what a block keeps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from garnish.engine.memory import LEVELS

TOOL = Path(__file__).parents[1] / "tools" / "draw_memory.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("draw_memory", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_memory"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counted(tool):
    return {level: tool.count(level) for level in LEVELS}


# by hand: stream, norm, q k v, attention, stream, norm, four widths of the MLP before and after GELU
PLAIN = [1, 1, 3, 1, 1, 1, 4, 4]


@pytest.mark.parametrize(
    ("level", "units"),
    [("fast", PLAIN), ("lean", [u for i, u in enumerate(PLAIN) if i not in (1, 5, 7)]), ("least", [1])],
)
def test_a_block_keeps_what_arithmetic_says(counted, level, units):
    assert list(counted[level].parts.values()) == units
    assert counted[level].small < 0.25


def test_the_drawing_is_up_to_date(tool, counted):
    assert tool.DRAWING.read_text("utf-8") == tool.draw(counted), "run python tools/draw_memory.py"
