"""What a new user runs into: deep pictures, full disks, typing errors, extras that are not installed."""

from __future__ import annotations

import errno
import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
from garnish.drawing.map_files import write_png
from garnish.errors import BundleError, DataError, OptionError, remedy_of, suggest
from garnish.model.given_picture import picture_pixels as read_for_prediction
from garnish.registry import construct
from garnish.training.best_step import Ranking
from garnish.training.scalars import Scalars, log_kinds
from garnish.training.train_options import TrainOptions
from picture_files import read_picture

MIT = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}


def tiny(method=None):
    torch.manual_seed(0)
    trunk = gn.backbone("mit_b0", options=MIT)
    return gn.adapt(trunk, method or gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3), "depth": gn.Depth()}).eval()


def test_a_name_in_another_case_is_nearer_than_another_name():
    assert suggest("Lora", ["LoRA", "Mona"]).startswith("; did you mean 'LoRA'?")
    assert suggest("Monna", ["LoRA", "Mona"]).startswith("; did you mean 'Mona'?")


# ---- pictures ---------------------------------------------------------------------------------------------------


def test_a_deep_picture_is_predicted_as_it_is_trained_on(tmp_path):
    """PIL's own conversion cuts 16-bit grey at 255: white everywhere."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray((grey / 255).astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("deep.png", "float.tif"):
        for given in (str(tmp_path / name), Image.open(tmp_path / name)):
            assert (read_for_prediction(given) == grey[..., None]).all(), name
        assert (read_picture(tmp_path / name).numpy() == grey).all()


def test_pictures_that_cannot_be_decoded_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut.jpg: damaged or not a picture .*; replace the file"):
        read_for_prediction(tmp_path / "cut.jpg")
    with Image.open(tmp_path / "cut.jpg") as opened, pytest.raises(DataError, match="picture: damaged"):
        read_for_prediction(opened)
    with pytest.raises(DataError, match="no such picture"):
        read_for_prediction(tmp_path / "gone.jpg")


# ---- a full disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """A disk that fills up half way through every file."""

    def write(file, data, **how):
        with file.open("wb") as opened:
            opened.write(data[: len(data) // 2])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("garnish.files.atomic._write", write)


def test_maps_appear_whole_or_not_at_all(tmp_path, full):
    maps = gn.Depth(max_metres=100)
    for write in (
        lambda: write_png(np.zeros((4, 4), np.uint8), tmp_path / "a.png"),
        lambda: maps.write(torch.ones(4, 4), tmp_path / "deep"),
        lambda: tiny().predict(torch.zeros(3, 32, 32, dtype=torch.uint8)).save(tmp_path / "sheet.png"),
    ):
        with pytest.raises(DataError, match=r"(a|deep|sheet)\.(png|npy): cannot be written \(No space left.*free some"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_former_file(tmp_path, monkeypatch):
    write_png(np.full((4, 4), 7, np.uint8), tmp_path / "a.png")
    failing = lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output"))  # noqa: E731
    monkeypatch.setattr("garnish.files.atomic.os.replace", failing)
    with pytest.raises(DataError, match=r"a\.png: cannot be written \(Input/output\)"):
        write_png(np.zeros((4, 4), np.uint8), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (np.asarray(Image.open(tmp_path / "a.png")) == 7).all()


def test_the_remedy_is_for_the_error(tmp_path):
    """Space is asked for where it is short, and nowhere else."""
    with pytest.raises(DataError, match=r"none/a.png: cannot be written \(No such file.*\); make its folder$"):
        write_png(np.zeros((4, 4), np.uint8), tmp_path / "none/a.png")
    told = {
        number: remedy_of(OSError(number, "")) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT)
    }
    assert list(told.values()) == ["free some space"] * 3 + ["let no other process write there"]
    for number in (errno.EACCES, errno.EROFS, errno.EIO, errno.ENOTDIR, None):
        assert remedy_of(OSError(number, "")) == "check the path and its rights"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_is_named(tmp_path):
    scalars = Scalars(tmp_path, ["loss"], ("csv",))
    scalars.file.unlink()
    scalars.file.symlink_to("/dev/full")
    with pytest.raises(BundleError, match=r"scalars\.csv: cannot be written \(No space left.*free some space, then re"):
        scalars.add(1, {"loss": 0.5})


def test_a_sheet_of_no_picture_format(tmp_path):
    prediction = tiny().predict(torch.zeros(3, 32, 32, dtype=torch.uint8))
    with pytest.raises(OptionError, match=r"maps\.xyz: no picture format ends in '\.xyz'"):
        prediction.save(tmp_path / "maps.xyz")
    assert prediction.save(tmp_path / "maps.jpg").is_file()


# ---- options ----------------------------------------------------------------------------------------------------


def test_best_by_is_checked_before_the_first_step():
    with pytest.raises(OptionError, match=r"best_by: task seg has no metric 'acc'.*pixel_accuracy"):
        Ranking({"seg": gn.Semantic(classes=2)}, "seg.acc:max")
    assert Ranking({"seg": gn.Semantic(classes=("a", "b"))}, "seg.iou/b:max").metric == "iou/b"


def test_freezing_an_unknown_task_is_no_silent_no_op():
    model = tiny()
    with pytest.raises(OptionError, match="freeze: unknown task 'sg'; did you mean 'seg'"):
        model.freeze(["depth", "sg"])
    assert not model.frozen_tasks


def test_a_frozen_task_whose_adapters_go_on_training_is_named(recwarn):
    model = tiny()
    with pytest.warns(
        UserWarning, match="that seg shares with depth go on training.*freeze seg, depth together"
    ) as caught:
        model.freeze(["seg"])
    assert len(caught) == 1 and "\n" not in str(caught[0].message) and caught[0].filename == __file__
    for quiet in (gn.LoRA(rank=2, per_task=True), gn.Frozen()):  # nothing shared, nothing trained
        tiny(quiet).freeze(["seg"])
    tiny().freeze(["seg", "depth"])
    assert not recwarn.list


def test_tensorboard_is_used_where_it_is_installed_and_not_needed_elsewhere(monkeypatch):
    assert log_kinds(()) == ()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert log_kinds(None) == ("csv",)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert log_kinds(None) == ("csv", "tensorboard")


def test_evaluating_on_nothing_is_an_error():
    class Empty(gn.Scenes):
        def __len__(self):
            return 0

    data = Empty(1, size=32, tasks=("depth",))
    with pytest.raises(DataError, match="no pictures"):
        gn.evaluate(tiny(), data)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"balance": {"seg": "abc"}}, r"train\.balance\.seg: expected a number from 0 to 1e\+09, got 'abc'"),
        (
            {"augment": {"size": 50}},
            r"train\.augment\.size: expected height and width, each from 1 .* or null, got 50",
        ),
    ],
)
def test_values_of_another_type_are_named(given, message):
    with pytest.raises(OptionError, match=message):
        construct(TrainOptions, {"steps": 1, **given}, where="train")


def test_weights_of_losses_may_be_whole_numbers():
    assert construct(TrainOptions, {"steps": 1, "balance": {"seg": 2}}, where="train").balance == {"seg": 2.0}


# ---- precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [gn.LoRA(rank=2, per_task=True), gn.FullFineTuning(per_task=True)], ids=repr)
def test_a_model_of_another_precision_takes_any_pictures(method):
    """Float pictures go to the model's own precision; frozen and tuned values survive the way there and back."""
    model = tiny(method)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
        images = torch.rand(2, 3, 40, 50)
        reference = model(images)
        frozen = {n: t.clone() for n, t in model.backbone.frozen_tensors().items()}
        model.double()
        for n, t in model.backbone.frozen_tensors().items():
            assert t.dtype == torch.float64 and torch.equal(t, frozen[n].double()), n
        for given in (images, images.double()):
            for task, out in model(given).items():
                assert out.dtype == torch.float64
                assert torch.allclose(out, reference[task].double(), atol=1e-5), task
        assert math.isclose(model.report((64, 64))["macs"], model.float().report((64, 64))["macs"])
        for task, out in model(images).items():
            assert torch.equal(out, reference[task]), task
