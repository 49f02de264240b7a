"""Every decoder on every trunk family, above adapters: what a model with it must do.

The fast suite runs each decoder on one family whose maps are equal and one whose maps are a pyramid, the first with
shared adapters and the other with adapters a task; the full product is marked slow.
"""

from __future__ import annotations

import pytest
import torch

import garnish as gn
import tiny
from compiling import trunk_graphs
from conformance.cases import FAMILIES, FAST
from conformance.test_adapters_leaving import Fixed
from garnish import registry
from garnish.model.model import Model

#: a group of two (where the decoder is joint) and a mix in which pictures want parts of it
MIX = [["seg"], ["seg", "depth"], ["depth"]]


def cases(fast_on: tuple[str, ...] = FAST) -> list:
    """(decoder, family, adapters a task); slow but for two families, each once shared and once a task."""
    found = []
    for name in tiny.HEADS:
        for short in FAMILIES:
            for per_task in (False, True):
                fast = (short, per_task) in {(FAST[0], False), (FAST[1], True)} and short in fast_on
                label = f"{name}-{short}-{'per_task' if per_task else 'shared'}"
                found.append(pytest.param(name, short, per_task, id=label, marks=[] if fast else [pytest.mark.slow]))
    return found


NAMES = ("name", "short", "per_task")
every = pytest.mark.parametrize(NAMES, cases())
every_costly = pytest.mark.parametrize(NAMES, cases(FAST[:1]))
every_slow = pytest.mark.parametrize(NAMES, cases(()))


def made(name: str, short: str, per_task: bool) -> Model:
    """Two tasks with LoRA below the decoder; everything random."""
    torch.manual_seed(0)
    tasks = {task: registry.build("tasks", *tiny.TASKS[task]) for task in ("seg", "depth")}
    method = gn.LoRA(rank=2, per_task=per_task)
    model = gn.adapt(tiny.backbone(short), method, tasks, tiny.example("heads", name))
    tiny.randomise_own(model)
    return model.eval()


@every
def test_odd_sizes_come_back_at_their_own(name, short, per_task):
    model = made(name, short, per_task)
    with torch.no_grad():
        out = model(torch.rand(1, 3, 97, 131))
    assert {task: tuple(x.shape) for task, x in out.items()} == {"seg": (1, 5, 97, 131), "depth": (1, 1, 97, 131)}
    assert all(x.isfinite().all() and x.std() > 1e-4 for x in out.values())


@every
def test_rows_of_a_mixed_batch_are_those_alone(name, short, per_task):
    model = made(name, short, per_task).double()
    x = tiny.pictures().double()
    with torch.no_grad():
        mixed = model(x, MIX)
        for task in ("seg", "depth"):
            wanting = [i for i, names in enumerate(MIX) if task in names]
            alone = torch.cat([model(x[i : i + 1])[task] for i in wanting])
            assert mixed[task].shape == alone.shape and tiny.far(mixed[task], alone) < 1e-10


@every
def test_adapters_below_and_all_of_the_decoder_learn(name, short, per_task):
    model = made(name, short, per_task).train()
    tiny.one_loss(model(tiny.pictures())).backward()
    still = [n for n, p in model.trained_parameters().items() if p.grad is None or not p.grad.any()]
    assert still == []
    assert all(p.grad is None for p in model.backbone.frozen_tensors().values())


@every
def test_bundles_give_it_back(name, short, per_task, tmp_path):
    model = made(name, short, per_task)
    model.save(tmp_path / "bundle", dtype="float32")
    loaded = gn.load(tmp_path / "bundle", backbone=tiny.backbone(short))
    x = tiny.pictures()
    with torch.no_grad():
        want, got = model(x, MIX), loaded(x, MIX)
    assert list(want) == list(got) and all(torch.equal(got[task], want[task]) for task in want)
    assert loaded.decoders.groups == model.decoders.groups


@pytest.mark.compile
@every_slow
def test_compiles_above_one_graph_of_the_trunk(name, short, per_task):
    """Outputs are compared with those of the model before it was compiled, decoders included."""
    pairs = [[["seg"], ["seg", "depth"]], [["seg", "depth"], ["depth"]]]
    assert trunk_graphs(made(name, short, per_task), pairs) == 1


@pytest.mark.export
@every_costly
def test_exports(name, short, per_task):
    # in float64: a graph rounds low-rank updates otherwise than a pass without gradients, which random trunks magnify
    fixed = Fixed(made(name, short, per_task).double(), ["seg", "depth"])
    x = tiny.pictures(2).double()
    with torch.no_grad():
        program = torch.export.export(fixed, (x,)).module()
        for got, want in zip(program(x.flip(0)), fixed(x.flip(0)), strict=True):
            assert tiny.far(got, want) < 1e-5
