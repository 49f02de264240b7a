"""Old names warn where they are used, say what to write, and are gone when they said."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import garnish as gn
from garnish import moved
from garnish.checking import deprecated as old
from garnish.training.train_options import TrainOptions

CHECKPOINTING = (
    r'^garnish: TrainOptions: checkpointing is an old name; write memory="least" \(since 0\.1, gone in 0\.3\)$'
)


def number(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


@pytest.fixture
def kept(monkeypatch):
    """A list of its own for old names that a test makes."""
    monkeypatch.setattr(old, "KEPT", [])
    return old.KEPT


def test_nothing_is_kept_in_the_release_in_which_it_is_to_be_gone():
    for info in pkgutil.walk_packages(gn.__path__, "garnish."):
        if not info.name.endswith(".__main__"):
            importlib.import_module(info.name)
    named = {one.name: one for one in old.KEPT}
    assert {"TrainOptions: checkpointing", "Trunk.checkpointing"} <= set(named)
    for one in named.values():
        assert number(gn.__version__) < number(one.gone), f"{one.name} was to be gone in {one.gone}; take it away"
        assert number(one.since) < number(one.gone)
    assert number(gn.__version__) < number(moved.GONE), "take garnish/moved.py and assets/moved.txt away"


def test_an_option_warns_if_it_is_set_and_points_to_the_line():
    with pytest.warns(FutureWarning, match=CHECKPOINTING) as told:
        assert TrainOptions(steps=1, checkpointing=True).level == "least"
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TrainOptions(steps=1, checkpointing=False).level == "lean"


def test_an_attribute_warns_when_it_is_read_and_set():
    trunk = gn.backbone("garnish_b0")
    with pytest.warns(FutureWarning, match=r"Trunk\.checkpointing is an old name; write memory == ") as told:
        assert not trunk.checkpointing
    assert told[0].filename == __file__
    with pytest.warns(FutureWarning, match='write memory = "least"'):
        trunk.checkpointing = True
    assert trunk.memory == "least"


def test_functions_classes_and_parameters(kept):
    @old.deprecated("write new(); since 0.1, gone in 0.2")
    def before(number: int) -> int:
        """Doc."""
        return number + 1

    @old.deprecated("write New; since 0.1, gone in 0.2")
    class Before:
        def __init__(self, number: int = 1) -> None:
            self.number = number

    @old.deprecated_option("colour", "write shade; since 0.1, gone in 0.2")
    def paint(shade: str = "red", *, colour: str | None = None) -> str:
        return colour or shade

    with pytest.warns(FutureWarning, match=r"before is an old name; write new\(\) \(since 0.1, gone in 0.2\)"):
        assert before(1) == 2
    with pytest.warns(FutureWarning, match="Before is an old name; write New "):
        assert Before(3).number == 3
    with pytest.warns(FutureWarning, match="paint: colour is an old name; write shade "):
        assert paint(colour="blue") == "blue"
    assert paint("green", colour=None) == "green" and before.__doc__ == "Doc."
    assert [one.new for one in kept] == ["new()", "New", "shade"]


def test_what_is_told_has_one_form(kept):
    with pytest.raises(ValueError, match="is not of the form"):
        old.deprecated("use something else")(lambda: None)


def test_python_shows_it_to_everyone_once_a_line():
    code = (
        "import garnish as gn\ntrunk = gn.backbone('garnish_b0')\nfor _ in range(3):\n    trunk.checkpointing = True\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert told.count("FutureWarning: garnish: Trunk.checkpointing is an old name") == 1


def test_type_checkers_see_it(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text("[mypy]\nenable_error_code = deprecated\n", "utf-8")
    source = Path(old.__file__).read_text("utf-8").replace("from garnish.errors import showable", "showable = str")
    (tmp_path / "kept.py").write_text(source, "utf-8")  # by itself: the package takes minutes
    text = "from kept import deprecated\n@deprecated('write g; since 0.1, gone in 0.3')\ndef f() -> None: ...\nf()\n"
    (tmp_path / "mine.py").write_text(text, "utf-8")
    told = subprocess.run(
        [sys.executable, "-m", "mypy", "mine.py"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert "mine.py:4: error: function mine.f is deprecated: write g; since 0.1, gone in 0.3" in told
