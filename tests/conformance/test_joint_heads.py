"""What every decoder that several tasks share must do, on every family, with adapters below it."""

from __future__ import annotations

import pytest
import torch

import garnish as gn
import joint_cases
import tiny
from conformance.cases import FAMILIES, FAST
from garnish.engine.adapter import Method
from garnish.model.report import count_macs

#: what the tasks' maps come from: one for all; one each by owners, side networks or streams; by tuned copies
METHODS: dict[str, Method] = {
    "shared": gn.LoRA(rank=2),
    "per_task": gn.LoRA(rank=2, per_task=True),
    "VMTAdapter": gn.VMTAdapter(),
    "MTLoRA": gn.MTLoRA(rank=4, task_rank=4),
    "side": gn.SideTuning(per_task=True),
    "tuned": gn.FullFineTuning(per_task=True),
}
HEADS = joint_cases.joint_heads()
NAMES = tuple(tiny.TASKS)
MIXES = [
    [["seg"], ["depth"], ["seg", "depth"]],
    [["normals"], ["seg", "depth"], ["depth"]],
    [[], ["normals"], ["depth", "normals", "seg"]],
    ["depth"],
]


def cases() -> list:
    """Every triple; fast are owners for each task on every family, and every method on one."""
    found = []
    for number, head in enumerate(HEADS):
        for short in FAMILIES:
            for method in METHODS:
                if METHODS[method].fits(tiny.bare_trunk(short)) is not None:
                    continue
                fast = method == "per_task" or short == FAST[::-1][number % 2]
                marks = [] if fast else [pytest.mark.slow]
                found.append(pytest.param(head, short, method, id=f"{head}-{short}-{method}", marks=marks))
    return found


every = pytest.mark.parametrize(("head", "short", "method"), cases())
each_head = pytest.mark.parametrize("head", list(HEADS))


@every
@torch.no_grad()
def test_rows_are_what_they_are_alone_and_tasks_what_they_are_among_all(head, short, method):
    """Pictures of an odd size, in mixes in which pictures want different tasks."""
    model = joint_cases.model(short, METHODS[method], HEADS[head])
    x = tiny.pictures(3, 97, 131).double()
    whole = model(x)
    assert list(whole) == list(NAMES)
    for task, out in whole.items():
        assert out.shape == (3, model.tasks[task].channels, 97, 131) and out.isfinite().all() and out.std() > 1e-3
    alone = [model(x[i : i + 1]) for i in range(3)]
    for task in NAMES:
        assert tiny.far(torch.cat([one[task] for one in alone]), whole[task]) < 1e-10, task
    for mix in MIXES:
        wanted = [mix] * 3 if isinstance(mix[0], str) else mix
        mixed = model(x, mix)
        assert list(mixed) == [task for task in NAMES if any(task in names for names in wanted)]
        for task, out in mixed.items():
            rows = [i for i, names in enumerate(wanted) if task in names]
            assert tiny.far(out, whole[task][rows]) < 1e-10, (mix, task)


@each_head
@torch.no_grad()
def test_whether_tasks_see_each_others_maps_is_as_the_options_say(head):
    model = joint_cases.model("swin", METHODS["per_task"], HEADS[head])
    x = tiny.pictures(2).double()
    before = model(x, ["seg"])["seg"]
    for name, tensor in model.owners[1].tensors().items():
        if name.endswith("lora_b"):
            tensor.mul_(-1)
    assert model.owners[1].tasks == ("depth",)
    assert (tiny.far(model(x, ["seg"])["seg"], before) > 1e-4) == HEADS[head].interacts
    assert tiny.far(model(x, ["seg"])["seg"], model(x)["seg"]) < 1e-10


@each_head
@torch.no_grad()
def test_a_shared_part_is_run_once_for_shared_maps_and_for_each_of_own_ones(head):
    """MACs: the decoder alone is counted from its own maps, which each task has or all share."""

    def decoder(method: str, tasks: tuple[str, ...]) -> int:
        model = joint_cases.model("swin", METHODS[method], HEADS[head], tasks=tasks, double=False)
        both, encoder = count_macs(model, (64, 64))
        report = model.report((64, 64))
        assert (report["macs"], report["macs_encoder"]) == (both, encoder)
        return both - encoder

    one = {tasks: decoder("shared", tasks) for tasks in ((n,) for n in NAMES)}
    # of three tasks that read the same maps the base counts once, of three with own maps three times
    shared, own = decoder("shared", NAMES), decoder("per_task", NAMES)
    assert decoder("VMTAdapter", NAMES) == own, "tasks' own parts of a shared adapter have own maps, too"
    base = (own - shared) / 2
    assert base > 0 and base == int(base)
    if not HEADS[head].interacts:
        assert own == sum(one.values()) and shared == own - 2 * base


@each_head
def test_all_tensors_learn_shared_and_for_each_task(head):
    for method in ("shared", "per_task"):
        model = joint_cases.model("swin", METHODS[method], HEADS[head], double=False)
        assert tiny.dead_tensors(model) == []


@each_head
@pytest.mark.parametrize(("short", "method"), [("swin", "per_task"), ("swin", "MTLoRA"), ("cnn", "shared")])
def test_gradients_of_a_mixed_batch_are_those_of_its_rows(head, short, method):
    """In evaluation mode: batch norms take their statistics over whatever is in a batch.

    One picture is a case of its own: there torch's batch norm can mistake a gradient's layout.
    """
    model = joint_cases.model(short, METHODS[method], HEADS[head])
    x, wanted = tiny.pictures(3).double(), MIXES[0]

    def grads(parts: list[tuple[torch.Tensor, list]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for pictures, mix in parts:
            torch.stack([(out**2).sum() for out in model(pictures, mix).values()]).sum().backward()
        return {n: p.grad.clone() for n, p in model.trained_parameters().items() if p.grad is not None}

    together = grads([(x, wanted)])
    apart = grads([(x[i : i + 1], [names]) for i, names in enumerate(wanted)])
    assert together.keys() == apart.keys()
    assert any(grad.any() for grad in together.values())
    for name, grad in apart.items():
        if grad.abs().max() > 1e-9:
            assert tiny.far(together[name], grad) < 1e-9, name


@pytest.mark.export
@each_head
def test_a_decoder_exports(head):
    """With maps that all tasks share, and with maps of their own."""
    model = joint_cases.model("swin", METHODS["shared"], HEADS[head])
    generator = torch.Generator().manual_seed(0)
    sizes = [(16, 12), (8, 6), (4, 3), (2, 2)]
    maps = [
        torch.randn(2, f.channels, *size, generator=generator).double()
        for f, size in zip(model.backbone.features, sizes, strict=True)
    ]
    for given in (dict.fromkeys(NAMES, maps), {n: [x + k for x in maps] for k, n in enumerate(NAMES)}):
        with torch.no_grad():
            program = torch.export.export(model.head("seg"), (given,), strict=False)
            moved = {n: [2 * x for x in own] for n, own in given.items()}
            if given["seg"] is given["depth"]:
                moved = dict.fromkeys(NAMES, moved["seg"])
            got, want = program.module()(moved), model.head("seg")(moved)
        assert list(got) == list(want)
        for name, out in want.items():
            assert tiny.far(got[name], out) < 1e-10, name
