"""How many graphs Dynamo makes of an adapted trunk, over mixes of tasks.

Graphs run eagerly here: whether there is one does not depend on what runs it.
"""

from __future__ import annotations

import itertools

import torch

import tiny
from garnish.model.model import Model

NAMES = tuple(tiny.TASKS)
#: what a batch of two pictures may want: every non-empty set of three tasks for both, and other sets for each
SAME = [list(c) for n in (1, 2, 3) for c in itertools.combinations(NAMES, n)]
EACH = [
    [["seg"], ["depth"]],
    [["seg"], ["depth", "normals"]],
    [["seg", "depth", "normals"], ["normals"]],
    [["normals"], ["seg", "depth"]],
    [["depth"], ["depth", "normals", "seg"]],
]
ALL_MIXES = [[list(m)] * 2 for m in SAME] + EACH


class Counting:
    """A backend that runs graphs eagerly and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        self.graphs += 1
        return graph.forward


def trunk_graphs(model: Model, mixes: list) -> int:
    """Graphs of the compiled trunk over these mixes; outputs must equal those without compiling."""
    torch._dynamo.reset()
    model.double()  # random trunks can make rounding of float32 as large as 1e-4
    x = tiny.pictures(2).double()
    with torch.no_grad():
        expected = [model(x, mix) for mix in mixes]
    counting = Counting()
    # heads are left as they are here, so that the trunk's graphs are all there is to count
    model.compile(backend=counting)
    for name in model.tasks:
        model.head(name)._compiled_call_impl = None
    with torch.no_grad():
        for mix, want in zip(mixes, expected, strict=True):
            got = model(x, mix)
            assert list(got) == list(want)
            for task in want:
                assert tiny.far(got[task], want[task]) < 1e-10
    torch._dynamo.reset()
    return counting.graphs
