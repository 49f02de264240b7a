"""Prediction and evaluation in windows and with a mirrored pass: models, exported folders and the commands."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import exported_folders as made
import garnish as gn
import tiny
from garnish.errors import OptionError
from garnish.runtime import Session
from garnish.training.evaluate import evaluate
from test_decodings import _Own
from training_cases import Blobs, every


@pytest.fixture(scope="module")
def model():
    return tiny.model("mit", gn.LoRA(rank=2))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse colours under some noise, (height, width, 3) uint8."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
    return (coarse[:height, :width] + draw.integers(0, 50, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (1, 50), (37, 1), (50, 63)])
def test_one_window_is_the_whole_pass_and_windows_have_the_pictures_size(model, size):
    pixels = picture(*size)
    whole = model.predict(pixels, tile=None)
    for tile in ("auto", 96, 4096):
        found = model.predict(pixels, tile=tile)
        assert all(torch.equal(found[task], whole[task]) for task in model.tasks)
    cut = model.predict(pixels, tile=32, overlap=5)
    for task in model.tasks:
        assert cut[task].shape == whole[task].shape and cut[task].dtype == whole[task].dtype
    if min(size) > 1:
        length = cut["normals"].norm(dim=0)
        torch.testing.assert_close(length, torch.ones_like(length), atol=1e-5, rtol=0)


def test_each_window_is_run_once_for_all_tasks_and_where_one_counts_alone_it_is_its_own_pass(model, monkeypatch):
    pixels, sizes = picture(64, 112), []
    run = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, x, *a, **k: (sizes.append(x.shape), run(self, x, *a, **k))[1]
    )
    found = model.predict(pixels, tile=64, overlap=16)
    assert sizes == [(1, 3, 64, 64), (1, 3, 64, 64)]  # 0 … 64 and, on the trunk's grid, 64 … 112 would share nothing
    with torch.inference_mode():
        first = run(model, torch.from_numpy(pixels[:, :64].copy()).permute(2, 0, 1)[None])
    alone = model.tasks["depth"].decode(first["depth"])[0]
    torch.testing.assert_close(found["depth"][:, :40], alone[:, :40])


def test_a_flip_is_the_mean_with_the_pass_of_the_mirrored_picture(model):
    """From the outputs of two passes of torch, by the formulas."""
    pixels = picture(50, 70)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        one = model(images)
        other = {task: raw.flip(-1) for task, raw in model(images.flip(-1)).items()}
    found = model.predict(pixels, flip=True)
    shares = one["seg"].double().softmax(1) + other["seg"].double().softmax(1)
    assert (found["seg"] == shares.argmax(1)[0]).float().mean() > 0.999
    depth = model.tasks["depth"]
    torch.testing.assert_close(found["depth"], (depth.decode(one["depth"]) + depth.decode(other["depth"]))[0] / 2)
    turned = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    unit = torch.nn.functional.normalize
    normals = unit(unit(one["normals"][0], dim=0) + turned * unit(other["normals"][0], dim=0), dim=0)
    torch.testing.assert_close(found["normals"], normals, atol=1e-5, rtol=0)
    mirrored = model.predict(
        np.ascontiguousarray(pixels[:, ::-1]), flip=True
    )  # so a flip does not know left from right
    torch.testing.assert_close(mirrored["normals"].flip(-1) * turned, found["normals"], atol=1e-5, rtol=0)


def test_what_windows_cannot_do_is_refused_in_one_line(model):
    pixels = picture(40, 90)
    own = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"own": _Own(), "depth": gn.Depth(max_metres=9.0)}).eval()
    for how in ({"tile": 32}, {"flip": True}):
        with pytest.raises(OptionError, match=r"task 'own' \(_Own\) has no decoding.*predict it whole") as caught:
            own.predict(pixels, **how)
        assert "\n" not in str(caught.value)
        assert own.predict(pixels, ["depth"], **how)["depth"].shape == (40, 90)
    for how in ({"tile": 32, "overlap": 32}, {"tile": None, "overlap": 8}, {"tile": "some"}, {"flip": 1}):
        with pytest.raises(OptionError):
            model.predict(pixels, **how)
    with pytest.raises(OptionError, match=r"no task .nothing.|unknown task"):
        model.predict(pixels, ["nothing"], tile=32)


def test_an_output_that_is_not_finite_is_told_of_windows_too():
    broken = tiny.model("mit", gn.LoRA(rank=2))
    with torch.no_grad():
        next(iter(broken.head_tensors("depth").values())).fill_(1e38)
    with pytest.raises(gn.errors.GarnishError, match="the output of task 'depth' is not finite"):
        broken.predict(picture(40, 90), tile=32)


def test_a_graph_of_near_sight_is_the_same_in_windows_but_for_their_borders(tmp_path):
    """Its convolution and resizing see three pixels far, so beyond these each window is as the whole picture."""
    session = Session(made.merged(tmp_path), threads=1)
    pixels = picture(150, 210)
    whole = session.predict(pixels, tile=None)
    found = session.predict(pixels, tile=96, overlap=32)
    for task in ("depth", "normals", "edges"):
        off = np.abs(found[task] - whole[task])
        assert (off > 1e-4 * np.abs(whole[task]).max()).mean() < 0.05, task
        assert off.max() < 0.1 * np.abs(whole[task]).max(), task
    assert (found["seg"] == whole["seg"]).mean() > 0.995
    with pytest.raises(OptionError, match="none would move on"):
        session.predict(pixels, tile=96, overlap=96)
    flipped = session.predict(pixels, flip=True)["depth"]
    other = session.predict(np.ascontiguousarray(pixels[:, ::-1]))["depth"][:, ::-1]
    np.testing.assert_allclose(flipped, (whole["depth"] + other) / 2, rtol=1e-6)


def test_metrics_of_windows_are_those_of_whole_pictures_where_one_window_holds_them(caplog):
    small = tiny.model("swin", gn.LoRA(rank=2), tasks=("seg", "depth"))
    small = gn.adapt(tiny.backbone("swin"), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3), "depth": gn.Depth()})
    tiny.randomise_own(small)
    data = Blobs(every(3), sizes=((48, 64), (96, 128)))
    whole = evaluate(small, data)
    assert evaluate(small, data, tile=128) == whole and not caplog.records  # Swin's windows see a part of a picture
    cut = evaluate(small, data, tile=64, batch_size=2)
    assert cut["seg"]["miou"] == pytest.approx(whole["seg"]["miou"], abs=0.05) and cut != whole
    partial = evaluate(small, Blobs([["seg"], ["depth"], ["seg", "depth"]], sizes=((96, 128),)), tile=64, batch_size=3)
    assert all(np.isfinite(v) for v in partial["seg"].values()) and np.isfinite(partial["depth"]["rmse"])


def test_a_trunk_that_sees_all_of_a_picture_is_told_of_where_it_is_measured_in_windows(model, caplog):
    model = gn.adapt(tiny.backbone("vit"), gn.BitFit(), {"seg": gn.Semantic(classes=3)})
    evaluate(model, Blobs([["seg"]], sizes=((48, 64),)), tile=32)
    assert "sees all of what is run at once" in caplog.text
