"""Worker processes, each with one source tree of the package, spoken to over pipes; only one of them works at a time.

A script that measures starts itself again as a worker, with the ``src`` of some tree on the path, so that trees that
cannot be imported into one process are measured in turn by the same code.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def answer(makers: Mapping[str, Callable[..., Any]]) -> None:
    """In a worker: do what is asked, line by line, until there is no more.

    A question is ``[name, arguments …]``: the name of a maker puts what it makes in the place of what was there, any
    other name calls a method of what is there. torch has one thread.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import torch

    import garnish as gn

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    there: Any = None
    facts = {"tree": str(Path(gn.__file__).resolve().parents[2]), "torch": str(torch.__version__)}
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        what, *given = json.loads(line)
        found = None
        if what in makers:
            there = None
            gc.collect()
            there = makers[what](*given)
        else:
            found = getattr(there, what)(*given)
        print(json.dumps(found), file=answers, flush=True)


class Worker:
    """A process that runs ``script --worker`` with one tree.

    Args:
        tree: holds ``src/garnish``.
        script: calls :func:`answer` when it is given ``--worker``.
    """

    def __init__(self, tree: Path, script: str | Path) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **threads,
                "HF_HUB_OFFLINE": "1",
                "KINETO_LOG_LEVEL": "99",
                "PYTHONPATH": str(tree / "src"),
            },
        )
        self.facts = self._answer()
        if Path(self.facts["tree"]) != tree:
            sys.exit(f"{tree}: garnish was imported from {self.facts['tree']}; give a tree that holds src/garnish")

    def ask(self, *what: Any) -> Any:
        """Name of a method, and its arguments → what it returns."""
        assert self.process.stdin is not None
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("a worker ended early; its last words stand above")
        return json.loads(line)

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
