"""Each public name has an example in its docstring, which runs as it stands after ``import garnish as gn``."""

from __future__ import annotations

import doctest
import inspect

import pytest

import garnish as gn
from garnish import registry

KINDS = ("adapters", "heads", "tasks", "balancing")
OURS = {name: cls for kind in KINDS for name, cls in registry.classes(kind).items()}
NAMES = [
    *(name for name in gn.__all__ if name != "__version__"),
    *(name for name, cls in OURS.items() if cls.__module__.startswith("garnish.")),
]
#: an export is checked against the model on pictures of many sizes, which takes long on few cores
SLOW = {"export"}


def examples(name: str) -> list[doctest.Example]:
    """Those of the docstring itself; a module may be a public name too."""
    return doctest.DocTestParser().get_examples(inspect.getdoc(getattr(gn, name)) or "")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
def test_an_example_runs_as_it_stands(name, tmp_path, monkeypatch):
    found = examples(name)
    run = [one for one in found if not one.options.get(doctest.SKIP)]
    assert run, f"garnish.{name}: its docstring has no example; add one to three lines of >>> behind 'Example:'"
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTest(run, {"gn": gn}, f"garnish.{name}", None, None, None)
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)


def test_examples_are_short():
    for name in NAMES:
        lines = sum(len(one.source.splitlines()) for one in examples(name))
        assert lines <= 9, f"garnish.{name}: {lines} lines"


def test_a_wrong_example_is_caught(tmp_path, monkeypatch):
    def wrong() -> None:
        """>>> gn.LoRA(rank=2).rank
        3
        """

    monkeypatch.setattr(gn, "wrong", wrong, raising=False)
    with pytest.raises(AssertionError, match="Expected"):
        test_an_example_runs_as_it_stands("wrong", tmp_path, monkeypatch)
