"""Decoders and other classes of one's own: what is refused, what is told, and where their bundles load."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import garnish as gn
import tiny as tiny_models
from garnish import registry
from garnish.adapters.lora import LoRA
from garnish.engine.adapter import Method
from garnish.errors import OptionError
from garnish.heads.head import Head
from garnish.tasks.depth import Depth
from memory_cases import Operations

TASKS = {"depth": gn.Depth(max_metres=10)}


class Finest(nn.Module):
    """A 1×1 convolution of the finest map."""

    def __init__(self, channels, outputs):
        super().__init__()
        self.classify = nn.Conv2d(channels, outputs, 1)

    def forward(self, maps):
        return self.classify(maps[0].contiguous())


@dataclass(frozen=True, kw_only=True)
class ScriptHead(Head):
    more: int = 0

    def build(self, features, out_channels):
        return Finest(features[0].channels, out_channels + self.more)


def adapted(head=None, method=None, tasks=None):
    return gn.adapt(tiny_models.backbone("mit"), method or gn.LoRA(rank=2), tasks or TASKS, head)


def refused(call):
    with pytest.raises(OptionError) as caught:
        call()
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_a_bundle_of_a_class_of_a_script(tmp_path):
    """It loads wherever the class is defined, and says so when it is written; elsewhere the error says what to do."""
    model = adapted(ScriptHead()).eval()
    with pytest.warns(UserWarning, match=r"loads only where your class is found: ScriptHead .*garnish\.heads") as told:
        model.save(tmp_path / "bundle", dtype="float32")
    assert len(told) == 1 and len(str(told[0].message)) < 500
    again = gn.load(tmp_path / "bundle", backbone=tiny_models.backbone("mit"))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x)["depth"], again(x)["depth"]) and "ScriptHead" not in registry.classes("heads")
    code = (
        "import garnish as gn, tiny\n"
        f"try: gn.load({str(tmp_path / 'bundle')!r}, backbone=tiny.backbone('mit'))\n"
        "except gn.errors.BundleError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="tests", capture_output=True, text=True, check=True)
    for part in ("unknown head 'ScriptHead'", "import its module first", "garnish.heads", "docs/add-a-head.md"):
        assert part in done.stdout


def test_all_kinds_are_told_in_one_line(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class ScriptMethod(LoRA): ...

    @dataclass(frozen=True, kw_only=True)
    class ScriptTask(Depth): ...

    model = adapted(ScriptHead(), ScriptMethod(rank=2), {"depth": ScriptTask(max_metres=10)})
    with pytest.warns(UserWarning, match="ScriptMethod .*, ScriptTask .*, ScriptHead"):
        model.save(tmp_path / "bundle")
    again = gn.load(tmp_path / "bundle", backbone=tiny_models.backbone("mit"))
    assert type(again.tasks["depth"]) is ScriptTask and again.owners[0].methods == (ScriptMethod(rank=2),)


def test_of_a_class_that_is_defined_again_the_last_is_found():
    def define(place):
        made = dataclass(frozen=True)(type("CellHead", (ScriptHead,), {"__module__": place}))
        return made

    first, second = define("cell"), define("cell")
    assert registry.find("heads", "CellHead") is second is not first
    kept = define("elsewhere")
    assert "several classes have it (cell.CellHead, elsewhere.CellHead)" in refused(
        lambda: registry.find("heads", kept.__name__)
    )


def test_classes_that_no_bundle_could_describe():
    class Plain(Head):
        def __init__(self, width=4):
            object.__setattr__(self, "width", width)

        def build(self, features, out_channels):
            return Finest(features[0].channels, out_channels)

    class PlainMethod(Method):
        def __init__(self):
            super().__init__(per_task=False)

        def plan(self, backbone):
            raise AssertionError("never asked")

    taken = dataclass(frozen=True, kw_only=True)(type("DPTHead", (ScriptHead,), {}))
    told = refused(lambda: adapted(Plain()))
    assert "Plain has an __init__ of its own" in told and "@dataclass(frozen=True" in told and "add-a-head" in told
    assert "PlainMethod has an __init__" in refused(lambda: adapted(method=PlainMethod()))
    assert "has the name of another" in refused(lambda: adapted(taken()))


def test_a_head_with_another_number_of_channels():
    """It is told by the first pass, not by the loss."""
    told = refused(lambda: adapted(ScriptHead(more=2))(torch.rand(1, 3, 64, 64)))
    assert "head of task 'depth': the module of ScriptHead gave 3 channels, the task has 1" in told


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: adapted(gn.NoHead), "the class NoHead itself; call it: NoHead()"),
        (lambda: adapted({"depth": gn.NoHead}), "dict with the class NoHead itself; call it: NoHead()"),
        (lambda: adapted(method=gn.LoRA), "the class LoRA itself; call it: LoRA()"),
        (lambda: adapted(method=[gn.LoRA]), "list with the class LoRA itself; call it: LoRA()"),
        (lambda: adapted(tasks={"depth": gn.Depth}), "call it: Depth()"),
        (
            lambda: adapted(nn.Conv2d(1, 1, 1)),
            "got Conv2d; wrap the module as a head (docs/add-a-head.md), or give gn.",
        ),
        (lambda: adapted({"depth": nn.Conv2d(1, 1, 1)}), "wrap the module as a head"),
        (lambda: gn.backbone("garnish_b0", pretrained=False), "weights=None for random ones"),
    ],
)
def test_what_people_give_in_place_of_it(call, said):
    assert said in refused(call)


def test_pictures_in_another_range_are_told_once():
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for pictures, said in ((x * 255, "divide by 255"), ((x - mean) / std, "leave normalising to the model")):
        model = adapted()
        with pytest.warns(UserWarning, match=said) as told:
            model.features(pictures)
        assert len(told) == 1
        model(pictures)
    model = adapted()
    model((x * 255).byte())
    model(x * 1.2 - 0.1)  # as cubic resizing overshoots
    model(x * 255)  # looked at once


def test_a_pass_that_is_counted_is_not_looked_at_and_the_next_one_is():
    """Operations that only look are not the pass's own."""
    pictures, names, model = torch.rand(1, 3, 64, 64) * 255, [], adapted()
    for _ in range(2):
        with Operations() as seen:
            model(pictures)
        names.append(seen.names)
    assert names[0] == names[1]
    with pytest.warns(UserWarning, match="divide by 255"):
        model(pictures)


def test_save_of_a_model_is_gn_save():
    """The same options with the same defaults, seen by help and completion."""
    own, ours = (inspect.signature(f).parameters for f in (gn.Model.save, gn.save))
    assert {n: p.default for n, p in own.items() if n != "self"} == {
        n: p.default for n, p in ours.items() if n != "model"
    }


def test_the_six_lines_that_wrap_a_module():
    """docs/add-a-head.md: the block runs as it stands, around any module."""
    page = (Path(__file__).parents[1] / "docs" / "add-a-head.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "YourDecoder" in b]

    class YourDecoder(Finest):
        def __init__(self, channels, outputs, width):
            super().__init__(channels[0], outputs)
            self.width = width

    names = {"gn": gn, "dataclass": dataclass, "YourDecoder": YourDecoder, "__name__": __name__}
    exec(compile(block, "add-a-head.md", "exec"), names)
    assert names["model"](torch.rand(1, 3, 40, 50))["depth"].shape == (1, 1, 40, 50)
    assert names["model"].head("depth").width == 32
