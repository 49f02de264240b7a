"""Decoders that several tasks share, in a model: saved, joined, merged, frozen, trained, compiled and counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch import nn

import garnish as gn
import joint_cases
import tiny
import training_cases
from compiling import ALL_MIXES, Counting, trunk_graphs
from garnish import registry
from garnish.bundles.bundle_json import DESCRIPTION
from garnish.cli import main
from garnish.errors import BundleError, OptionError
from garnish.heads.demt import DeMT
from garnish.model.decoders import make_decoders, needed
from garnish.model.report import count_macs
from garnish.training.gradients import JUDGED_AFTER, GradientWatch, trained_for
from joint_cases import Plain

HEADS = joint_cases.joint_heads()
NAMES = tuple(tiny.TASKS)
each_head = pytest.mark.parametrize("head", list(HEADS))
both_ownerships = pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per_task"])


@pytest.fixture(autouse=True)
def _plain_can_be_named(monkeypatch):
    monkeypatch.setitem(registry.classes("heads"), "Plain", Plain)


def tasks(*names: str) -> dict:
    """Tasks of ``tiny`` by name; what follows a dash is left out when it is looked up."""
    return {name: registry.build("tasks", *tiny.TASKS[name.split("-")[0]]) for name in names}


def made(head, method=None, *, names=NAMES, short: str = "swin"):
    return joint_cases.model(short, method or gn.LoRA(rank=2), head, tasks=names, double=False)


def same_outputs(one, other, names=None) -> bool:
    x = tiny.pictures(2, 97, 131)
    with torch.no_grad():
        a, b = one(x, names), other(x, names)
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


def trunk(short: str = "swin"):
    return tiny.backbone(short)


def refused(error: type[Exception], words: list[str], call) -> None:
    """One line that holds all words."""
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


# ---- groups -----------------------------------------------------------------------------------------------------


def test_tasks_of_equal_options_share_and_others_do_not():
    heads = {"seg": DeMT(channels=16), "depth": gn.LinearHead(), "normals": DeMT(channels=16)}
    model = made(heads)
    assert model.decoders.groups == {
        "seg": ("seg", "normals"),
        "depth": ("depth",),
        "normals": ("seg", "normals"),
    }
    assert list(model.decoders.groups) == list(model.tasks)  # the order of the model, also for what follows from it
    assert model.head("seg") is model.head("normals") is not model.head("depth")
    assert needed(model.decoders.by_task, ["normals"]) == ("seg", "normals")
    assert needed(model.decoders.by_task, ["depth"]) == ("depth",)
    assert {n.split(".")[1] for n in model.head_tensors("seg")} == {"seg+normals"}


@torch.no_grad()
def test_two_groups_with_other_options_in_one_model():
    names = ("seg", "depth", "seg-b", "depth-b", "normals")
    wide, narrow = DeMT(channels=16), Plain(channels=4)
    heads = {"seg": wide, "depth": wide, "seg-b": narrow, "depth-b": narrow, "normals": gn.LinearHead()}
    for per_task in (False, True):
        model = gn.adapt(trunk(), gn.LoRA(rank=2, per_task=per_task), tasks(*names), heads)
        joint_cases.randomise(model)
        model.double().eval()
        x = tiny.pictures(3, 97, 131).double()
        whole = model(x)
        mix = [["seg", "depth-b"], ["normals", "depth"], ["seg-b", "seg"]]
        mixed = model(x, mix)
        assert list(mixed) == list(names)
        for task, out in mixed.items():
            rows = [i for i, wanted in enumerate(mix) if task in wanted]
            assert tiny.far(out, whole[task][rows]) < 1e-10, task
            assert tiny.far(model(x[rows[:1]], [task])[task], out[:1]) < 1e-10, task


@torch.no_grad()
def test_decoders_that_do_not_interact_run_only_what_was_asked_for():
    model = made(Plain())
    calls = model.head("seg").calls
    model(tiny.pictures(3), [["seg"], ["seg", "depth"], []])
    assert calls == [("seg", "depth")]
    calls.clear()
    model(tiny.pictures(2), ["normals"])
    assert calls == [("normals",)]


@each_head
def test_a_task_added_later_has_a_decoder_of_its_own_and_the_first_ones_stay(head):
    model = made(HEADS[head], names=("seg", "depth"))
    x = tiny.pictures(2)
    with torch.no_grad():
        before = model(x)
    model.add(gn.LoRA(rank=2), tasks("normals"), HEADS[head], freeze_others=True)
    assert model.decoders.groups["normals"] == ("normals",)
    model.train()
    assert not any(m.training for m in model.head("seg").modules()), "frozen: statistics stay as they are"
    tiny.one_loss(model(x)).backward()
    optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=1.0)
    optimizer.step()
    with torch.no_grad():
        after = model(x, ["seg", "depth"])
    assert all(torch.equal(after[n], before[n]) for n in before)


def test_a_group_of_heads_that_cannot_share_is_refused():
    named = tasks("seg", "depth")
    for words, first, second in (
        (["seg, depth", "LinearHead"], gn.LinearHead(), gn.LinearHead()),
        (["seg, depth", "same options"], DeMT(channels=16), DeMT(channels=8)),
    ):
        options = {"seg": first, "depth": second}
        refused(OptionError, words, lambda o=options: make_decoders(trunk(), named, o, [["seg", "depth"]]))


# ---- bundles ----------------------------------------------------------------------------------------------------


@each_head
@both_ownerships
def test_a_bundle_gives_every_bit_back(head, per_task, tmp_path):
    heads = {"seg": HEADS[head], "depth": gn.LinearHead(), "normals": HEADS[head]}
    model = made(heads, gn.LoRA(rank=2, per_task=per_task))
    model.save(tmp_path / "a", dtype="float32")
    told = json.loads((tmp_path / "a" / DESCRIPTION).read_text())
    assert told["decoders"] == [["seg", "normals"]]
    counted = sum(p.numel() for n in ("seg", "depth") for p in model.head(n).parameters())
    assert told["sizes"]["decoder_parameters"] == counted
    back = gn.load(tmp_path / "a", backbone=trunk())
    assert back.decoders.groups == model.decoders.groups and list(back.tasks) == list(model.tasks)
    assert same_outputs(model, back) and same_outputs(model, back, ["normals"])
    own, other = model.own_tensors(), back.own_tensors()
    assert list(own) == list(other) and all(torch.equal(own[n], other[n]) for n in own)


@each_head
@both_ownerships
def test_joined_bundles_of_equal_options_stay_apart(head, per_task, tmp_path):
    first = made(HEADS[head], gn.LoRA(rank=2, per_task=per_task), names=("seg", "depth"))
    torch.manual_seed(7)
    second = gn.adapt(trunk(), gn.LoRA(rank=2, per_task=per_task), tasks("normals", "depth-b"), HEADS[head])
    joint_cases.randomise(second)
    second.eval()
    for name, model in (("a", first), ("b", second)):
        model.save(tmp_path / name, dtype="float32")
    joined = gn.load([tmp_path / "a", tmp_path / "b"], backbone=trunk())
    assert set(joined.decoders.groups.values()) == {("seg", "depth"), ("normals", "depth-b")}
    x = tiny.pictures(2, 97, 131)
    with torch.no_grad():
        both, apart = joined(x), first(x) | second(x)
    assert list(both) == list(apart)
    # rows of several owners of one pass are summed in another order than those of one
    for name, out in apart.items():
        assert tiny.far(both[name], out) < 1e-5
    # and saved again as one, or some of it
    joined.save(tmp_path / "both", dtype="float32")
    again = gn.load(tmp_path / "both", backbone=trunk())
    assert again.decoders.groups == joined.decoders.groups and same_outputs(joined, again)
    joined.save(tmp_path / "second", dtype="float32", tasks=["normals", "depth-b"])
    kept = gn.load(tmp_path / "second", backbone=trunk())
    assert same_outputs(second, kept)


@each_head
def test_some_tasks_of_a_group_are_not_saved_merged_or_exported(head, tmp_path):
    model = made(HEADS[head], gn.LoRA(rank=2, per_task=True), short="vit")
    words = ["seg shares a decoder with depth, normals"]
    refused(OptionError, words, lambda: model.save(tmp_path / "a", tasks=["seg"]))
    refused(OptionError, words, lambda: gn.merge(model, tmp_path / "b", task="seg"))
    refused(OptionError, words, lambda: gn.export_peft(model, tmp_path / "c", task="seg"))
    assert not list(tmp_path.iterdir())


@each_head
def test_a_whole_group_merges_and_goes_to_peft_and_back(head, tmp_path):
    heads = {"seg": HEADS[head], "depth": gn.LinearHead(), "normals": HEADS[head]}
    model = made(heads, short="vit")
    gn.merge(model, tmp_path / "merged")
    x = tiny.pictures(2)
    merged = gn.load(tmp_path / "merged")
    assert merged.decoders.groups == model.decoders.groups
    gn.export_peft(model, tmp_path / "peft")
    imported = gn.import_peft(tmp_path / "peft", backbone=trunk("vit")).eval()
    assert imported.decoders.groups == model.decoders.groups
    with torch.no_grad():
        want, folded, read = model(x), merged(x), imported(x)
    for name, out in want.items():
        assert tiny.far(folded[name], out) < 1e-4 and tiny.far(read[name], out) < 1e-5


def test_a_damaged_list_of_decoders_is_told(tmp_path):
    made({"seg": DeMT(channels=16), "depth": DeMT(channels=16), "normals": gn.LinearHead()}).save(tmp_path / "a")
    file = tmp_path / "a" / DESCRIPTION
    told = json.loads(file.read_text())
    for odd in ([["seg", "no"]], [["seg"], ["seg"]], [[]], [["seg", "normals"]], "seg", [["seg", 1]], [["seg"]]):
        file.write_text(json.dumps({**told, "decoders": odd}))
        refused(BundleError, [], lambda: gn.load(tmp_path / "a", backbone=trunk()))


# ---- freezing and gradients -------------------------------------------------------------------------------------


@each_head
def test_freezing_part_of_a_group_warns_and_all_of_it_keeps_every_bit(head):
    model = made({"seg": HEADS[head], "depth": HEADS[head], "normals": gn.LinearHead()}, gn.LoRA(rank=2, per_task=True))
    x = tiny.pictures(2)
    with torch.no_grad():
        before = model(x)
    with pytest.warns(UserWarning, match="decoder that seg shares with depth") as caught:
        model.freeze(["seg"])
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    model.train()
    norms = [m for m in model.head("seg").modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.training for m in norms)
    model.freeze(["depth"])  # no warning: the group is whole
    model.train()
    assert not any(m.training for m in norms)
    assert not any(p.requires_grad for p in model.head("seg").parameters())
    optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        tiny.one_loss(model(x)).backward()
        optimizer.step()
    with torch.no_grad():
        after = model.eval()(x)
    assert torch.equal(after["seg"], before["seg"]) and torch.equal(after["depth"], before["depth"])
    assert not torch.equal(after["normals"], before["normals"])


@pytest.mark.parametrize("method", [gn.LoRA(rank=2), gn.LoRA(rank=2, per_task=True), gn.VMTAdapter()], ids=str)
@each_head
def test_the_watch_finds_nothing_in_sound_decoders_and_a_part_that_is_dead(head, method):
    def watched(kill: bool) -> tuple[GradientWatch, list[str]]:
        model = made(HEADS[head], method, names=("seg", "depth")).train()
        if kill:
            dead = next(m for n, m in model.head("seg").named_modules() if n.endswith("task_depth"))
            dead.register_forward_hook(lambda module, given, out: out * 0)
        watch = GradientWatch(model, list(model.tasks), Fabric(accelerator="cpu", devices=1))
        optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=0.05)
        found = []
        for _ in range(JUDGED_AFTER):
            optimizer.zero_grad()
            outputs = model(tiny.pictures(2))
            losses = {name: tiny.one_loss({name: out}) for name, out in outputs.items()}
            watch.observe(losses)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            found += watch.end_step()
        return watch, found

    assert watched(kill=False)[1] == []
    watch, told = watched(kill=True)
    assert len(told) == 1 and "only zero gradients of task 'depth'" in told[0]
    assert watch.silent("seg") == ([], [])
    own = [n for n in watch.expected["depth"] if "task_depth" in n and "mixer" not in n]
    assert own and set(own) <= set(watch.silent("depth")[1])


def test_a_loss_is_expected_to_reach_its_own_part_and_what_all_share():
    for head in HEADS.values():
        model = made(head, gn.LoRA(rank=2, per_task=True))
        mine = set(trained_for(model, "seg"))
        assert any("task_seg" in n for n in mine) and not any("task_depth" in n for n in mine)
        assert any(n.startswith("heads.") and "task_" not in n for n in mine)
        assert {n.split(".")[1] for n in mine if n.startswith("adapters.")} == {"seg"}


# ---- counting ---------------------------------------------------------------------------------------------------


@each_head
@both_ownerships
def test_reports_count_a_shared_decoder_once(head, per_task, tmp_path, capsys):
    model = made(HEADS[head], gn.LoRA(rank=2, per_task=per_task))
    count = sum(p.numel() for p in model.head("seg").parameters())
    report = model.report((64, 64))
    assert report["decoder_trainable"] == count and report["decoder_by_task"] == {"seg+depth+normals": count}
    assert repr(model).count(f"{count:,} parameters") == 1 and f"heads {count:,};" in repr(model)
    model.save(tmp_path / "a")
    assert report["bundle_bytes"] == (tmp_path / "a" / "weights.safetensors").stat().st_size
    assert main(["info", str(tmp_path / "a"), "--json", "--size", "64,64"]) == 0
    told = json.loads(capsys.readouterr().out)
    for key in ("decoder_trainable", "decoder_by_task", "macs", "macs_encoder", "encoder_trainable"):
        assert told[key] == report[key], key


def test_the_macs_of_a_shared_base_by_hand():
    """64×64 pictures: maps of 16², 8², 4² and 2² places; outputs of 5, 1 and 3."""
    widths = (24, 48, 96, 192)
    base = sum(8 * c * side**2 for c, side in zip(widths, (16, 8, 4, 2), strict=True))
    outputs = 16**2 * 8 * (5 + 1 + 3)
    for per_task, bases in ((False, 1), (True, 3)):
        model = made(Plain(), gn.LoRA(rank=2, per_task=per_task))
        both, encoder = count_macs(model, (64, 64))
        assert both - encoder == bases * base + outputs


def test_attention_counts_on_a_cpu_too():
    """A plain ViT, by hand: 16 patches of 16² pixels and the class token, width 48, four blocks, MLP of four widths."""
    model = made(gn.LinearHead(), gn.Frozen(), names=("seg",), short="vit")
    tokens, width, blocks = 17, 48, 4
    a_block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert count_macs(model, (64, 64))[1] == 16 * 3 * 16**2 * width + blocks * a_block


# ---- training ---------------------------------------------------------------------------------------------------

RECIPE = """
backbone: garnish_b0
adapter: {name: LoRA, rank: 2}
head: {name: DeMT, channels: 16}
data: {name: scenes, train: 4, val: 2, test: 2, size: 32}
train: {steps: 3, batch_size: 2, lr: 1e-3, eval_every: 3, log: []}
"""


@pytest.mark.slow
def test_a_run_on_the_command_line(tmp_path, capsys):
    recipe = tmp_path / "scenes.yaml"
    recipe.write_text(RECIPE + f"tasks: [seg, depth]\nout: {tmp_path}/first\n")
    assert main(["train", "--config", str(recipe), "--json", "--quiet"]) == 0
    reached = json.loads(capsys.readouterr().out)
    best = tmp_path / "first" / "best"
    assert reached["steps"] == 3 and not any("gradient" in line for line in reached["warnings"])
    assert json.loads((best / DESCRIPTION).read_text())["decoders"] == [["seg", "depth"]]

    data = ["--data", "scenes", "--data.test", "2", "--data.size", "32"]
    assert main(["eval", str(best), *data, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert set(whole) >= {"seg", "depth"}
    assert main(["train", "--resume", str(tmp_path / "first"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == reached["metrics"]

    second = tmp_path / "second.yaml"
    second.write_text(
        RECIPE.replace("backbone: garnish_b0\n", "")
        + f"onto: {best}\ntasks: [normals, edges]\nout: {tmp_path}/second\n"
    )
    assert main(["train", "--config", str(second), "--json", "--quiet"]) == 0
    assert not any("gradient" in line for line in json.loads(capsys.readouterr().out)["warnings"])
    both = tmp_path / "second" / "best"
    assert json.loads((both / DESCRIPTION).read_text())["decoders"] == [["seg", "depth"], ["normals", "edges"]]
    assert main(["eval", str(both), *data, "--json"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert set(after) >= {"seg", "depth", "normals", "edges"}
    assert {task: after[task] for task in ("seg", "depth")} == {task: whole[task] for task in ("seg", "depth")}

    picture = tmp_path / "picture.png"
    from torchvision.io import write_png

    write_png((tiny.pictures(1, 40, 48)[0] * 255).to(torch.uint8), str(picture))
    assert main(["predict", str(both), str(picture), "--out", str(tmp_path / "maps"), "--json"]) == 0
    files = [Path(f).name for f in json.loads(capsys.readouterr().out)[str(picture)]]
    assert {"picture_seg.png", "picture_edges.png", "picture_sheet.png"} <= set(files)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_equal_one(tmp_path):
    script = Path(joint_cases.__file__)
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "RANK")}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=env | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for label, head in HEADS.items():
        ranks = [load_file(tmp_path / f"{label}-rank{rank}.safetensors") for rank in (0, 1)]
        before = training_cases.tensors_of(training_cases.tiny(gn.LoRA(rank=2, per_task=True), head=head).double())
        model, result = joint_cases.ddp_run(head, 4, 1)
        assert not result.warnings
        moved = 0
        for name, tensor in training_cases.tensors_of(model).items():
            assert torch.equal(ranks[0][name], ranks[1][name]), (label, name)
            if tensor.is_floating_point():
                assert (ranks[0][name] - tensor).norm() <= 1e-6 * tensor.norm(), (label, name)
                moved += bool((tensor - before[name]).norm() > 1e-4 * tensor.norm())
        assert moved > 20


# ---- compiling --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.compile
@each_head
@both_ownerships
def test_the_trunk_is_one_graph_for_every_mix(head, per_task):
    """That is all that is promised: decoders compile apart, with one graph for each set of tasks they are asked for."""
    model = made(HEADS[head], gn.LoRA(rank=2, per_task=per_task))
    assert trunk_graphs(model, ALL_MIXES) == 1


# torch's own, while it traces a head's input
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.compile
@each_head
def test_a_compiled_model_gives_the_same_and_its_gradients(head):
    torch._dynamo.reset()
    counting = Counting()
    models = [made(HEADS[head], gn.LoRA(rank=2, per_task=True)).double() for _ in range(2)]
    models[1].compile(backend=counting)
    found = []
    for model in models:
        outputs = model(tiny.pictures(2).double(), [["seg"], ["seg", "normals"]])
        tiny.one_loss(outputs).backward()
        found.append((outputs, {n: p.grad for n, p in model.trained_parameters().items() if p.grad is not None}))
    (want, grads), (got, compiled) = found
    assert list(want) == list(got) and grads.keys() <= compiled.keys()
    # stacked adapters are gathered by row, so in a compiled pass those of the task nobody asked for get zeros
    assert not any(compiled[n].any() for n in compiled.keys() - grads.keys())
    assert all(tiny.far(got[n], out) < 1e-10 for n, out in want.items())
    assert all(tiny.far(compiled[n], grad) < 1e-8 for n, grad in grads.items() if grad.abs().max() > 1e-9)
    first = counting.graphs
    # an interacting decoder is one graph; others have one for each set of tasks of an owner that was asked for
    assert first == (2 if HEADS[head].interacts else 3)
    with torch.no_grad():
        models[1].eval()(tiny.pictures(2).double(), [["seg"], ["seg", "normals"]])
    torch._dynamo.reset()
