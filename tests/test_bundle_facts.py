"""A bundle's description is believed only where it is that of the model: readers without garnish go by it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import garnish as gn
from garnish.bundles.bundle_json import read_bundle_json
from garnish.commands.info import of_bundle
from garnish.errors import BundleError

MIT = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
TASKS = {"seg": gn.Semantic(classes=("road", "wall", "sky")), "depth": gn.Depth(max_metres=10.0)}
Facts = dict[str, Any]


def trunk(seed: int = 0) -> gn.Backbone:
    torch.manual_seed(seed)
    return gn.backbone("mit_b0", options=MIT)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gn.adapt(trunk(), gn.LoRA(rank=2), TASKS).save(tmp_path_factory.mktemp("sound") / "b")


def edit(folder: Path, change: Callable[[Facts], object]) -> None:
    facts = json.loads((folder / "bundle.json").read_text())
    change(facts)
    (folder / "bundle.json").write_text(json.dumps(facts))
    (folder / "SHA256SUMS").unlink(missing_ok=True)


UNTRUE: dict[str, Callable[[Facts], object]] = {
    "preprocessing.input is 'BGR'": lambda f: f["preprocessing"].update(input="BGR"),
    "preprocessing.mean is [0.5, 0.5, 0.5]": lambda f: f["preprocessing"].update(mean=[0.5, 0.5, 0.5]),
    "preprocessing.std is []": lambda f: f["preprocessing"].update(std=[]),
    "preprocessing.multiple is 16, not the 32 of mit_b0": lambda f: f["preprocessing"].update(multiple=16),
    "tuned_as is 'value', not the 'difference'": lambda f: f.update(tuned_as="value"),
    "backbone.non_commercial is True": lambda f: f["backbone"].update(non_commercial=True),
    "backbone.non_commercial is False, not the True": lambda f: f["backbone"].update(licence="CC BY-NC 4.0"),
    "tasks.seg.labels is ['wall', 'road', 'sky']": lambda f: f["tasks"]["seg"].update(labels=["wall", "road", "sky"]),
    "tasks.depth.labels is ['near']": lambda f: f["tasks"]["depth"].update(labels=["near"]),
    "tasks.seg.palette is": lambda f: f["tasks"]["seg"]["palette"].update(road=[0, 0, 0]),
    "has 1 channels by its options and 2": lambda f: f["tasks"]["depth"].update(channels=2),
    "and 7 by the description": lambda f: f["sizes"].update(weights_bytes=7),
    "metrics: there is no task 'parts'": lambda f: f.update(metrics={"parts": {"miou": 0.9}}),
    "metrics_rounding: there is no task 'parts'": lambda f: f.update(metrics_rounding={"parts": {"miou": 0.0}}),
    "sizes.encoder_parameters is 0": lambda f: f["sizes"].update(encoder_parameters=0),
    "sizes.decoder_parameters is 9, not the": lambda f: f["sizes"].update(decoder_parameters=9),
}


@pytest.mark.parametrize("says", UNTRUE)
def test_what_is_not_so_is_refused(tmp_path: Path, sound: Path, says: str) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "b"))
    edit(folder, UNTRUE[says])
    model = gn.Model(trunk())
    for read in (
        lambda: gn.load(folder, backbone=trunk()),
        lambda: model.load(folder),
        lambda: of_bundle(str(folder), (32, 32)),
    ):
        with pytest.raises(BundleError, match=re.escape(says)) as caught:
            read()
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not model.tasks and not model.owners


def test_another_preprocessing_of_the_same_weights_is_no_same_backbone(sound: Path) -> None:
    """Two names of one architecture may differ in nothing but the mean of their pictures."""
    other = trunk()
    other.mean = (0.0, 0.0, 0.0)
    with pytest.raises(BundleError, match=r"preprocessing.mean is \[0.485, 0.456, 0.406\], not the \[0.0, 0.0, 0.0\]"):
        gn.load(sound, backbone=other)


def test_versions_are_any_that_look_like_one(tmp_path: Path, sound: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "b"))
    edit(
        folder,
        lambda f: f.update(versions={"garnish": "9.1.0rc1+x", "torch": "2.14.1+cu130", "timm": "1!2", "jax": "0"}),
    )
    assert set(gn.load(folder, backbone=trunk()).tasks) == set(TASKS)
    edit(folder, lambda f: f["versions"].update(torch="\x1b[2J"))
    with pytest.raises(BundleError, match=r"versions.torch: expected text like"):
        gn.load(folder, backbone=trunk())


@pytest.mark.parametrize("method", [gn.MTLoRA(rank=2), gn.PolyhistorLite(rank=1), gn.VMTAdapter(), gn.LoRA(rank=1)])
@pytest.mark.parametrize("tasks", [None, ["depth"]])
def test_some_tasks_of_any_owner_describe_themselves(tmp_path: Path, method: Any, tasks: list[str] | None) -> None:
    gn.adapt(trunk(), method, TASKS).save(tmp_path / "b", tasks=tasks)
    assert list(gn.load(tmp_path / "b", backbone=trunk()).tasks) == (tasks or list(TASKS))


# ---- where weights are read from --------------------------------------------------------------------------------


def named(bundle: Path, source: str) -> None:
    edit(bundle, lambda f: f["backbone"].update(weights_source=source))


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose trunk's weights lie beside its folder, in a folder that is not the working directory."""
    (tmp_path / "sent").mkdir()
    (tmp_path / "here").mkdir()
    file = tmp_path / "sent/trunk.safetensors"
    save_file({n: t.detach().clone() for n, t in trunk().frozen_tensors().items()}, file)
    model = gn.adapt(gn.backbone("mit_b0", str(file), options=MIT), gn.LoRA(rank=2), TASKS)
    monkeypatch.chdir(tmp_path / "here")
    return model.save(tmp_path / "sent/b")


@pytest.mark.parametrize(
    "source",
    ["../trunk.safetensors", "b/../../trunk.safetensors", "~nobody/x.safetensors", "a" * 300, "a/" * 900 + "x"],
)
def test_no_path_of_a_stranger_leads_out_of_its_folder_or_to_a_foreign_error(whole: Path, source: str) -> None:
    named(whole, source)
    with pytest.raises(BundleError, match="cannot be built from") as caught:
        gn.load(whole)
    assert "\n" not in str(caught.value) and "pass weights=" in str(caught.value)


def test_a_path_of_a_stranger_from_the_working_directory_is_read_as_weights_and_must_fit(whole: Path) -> None:
    named(whole, "../sent/trunk.safetensors")
    assert set(gn.load(whole).tasks) == set(TASKS)
    save_file({n: t.detach().clone() for n, t in trunk(1).frozen_tensors().items()}, whole.parent / "trunk.safetensors")
    with pytest.raises(BundleError, match="fingerprint"):
        gn.load(whole)


@pytest.mark.parametrize("source", ["", "a\x00b", "a\nb"])
def test_a_source_that_is_no_path_is_refused(whole: Path, source: str) -> None:
    named(whole, source)
    with pytest.raises(BundleError, match=r"backbone.weights_source: expected text like"):
        gn.load(whole)


def test_the_advice_on_a_random_trunk_can_be_followed(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(BundleError, match=r"random weights, which are in no file; pass backbone=.*same seed"):
        gn.load(sound)
    with pytest.raises(BundleError, match=r"fingerprint .*pass backbone=.*same seed \(torch.manual_seed before"):
        gn.load(sound, backbone=trunk(1))
    torch.manual_seed(0)
    assert set(gn.load(sound, backbone=gn.backbone("mit_b0", options=MIT)).tasks) == set(TASKS)


# ---- what is written can be read --------------------------------------------------------------------------------


def test_a_description_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    model = gn.adapt(trunk(), gn.LoRA(rank=2), TASKS)
    model.backbone.licence = "a" * 70_000
    with pytest.raises(BundleError, match="a text of 70,000 characters"):
        model.save(tmp_path / "b")
    assert not list(tmp_path.iterdir())
    assert read_bundle_json(gn.adapt(trunk(), gn.LoRA(rank=2), TASKS).save(tmp_path / "b"))
