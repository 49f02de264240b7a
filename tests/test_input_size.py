"""At which size a model sees a picture: own, a given one, or as training scaled; maps have the picture's own size."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
import tiny
from garnish.cli import main
from garnish.data.augment import Augment, resize_sample
from garnish.engine.trained_scale import USUAL_ZOOM, TrainedScale, scale_of_facts, scale_of_recipe
from garnish.errors import DataError, OptionError
from training_cases import QUIET, Blobs, every

DEPTH = {"depth": gn.Depth()}


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def model_of(scale: TrainedScale | None, name: str = "depth") -> gn.Model:
    torch.manual_seed(0)
    made = gn.adapt(tiny.backbone("mit"), gn.LoRA(rank=2), {name: gn.Depth()}).eval()
    made.owner_of(name).scale = scale
    return made


def raw(model: gn.Model, pixels: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(pixels).permute(2, 0, 1)[None])["depth"]


@pytest.mark.parametrize(
    ("scale", "own", "seen"),
    [
        (TrainedScale((64, 64), (0.5, 2.0)), (100, 200), (64, 128)),
        (TrainedScale((64, 64), (0.5, 2.0)), (48, 32), (96, 64)),
        (TrainedScale((60, 80), (1.0, 1.0)), (120, 100), (96, 80)),
        (TrainedScale((64, 64), (2.0, 8.0)), (100, 200), (256, 512)),  # 1 lies outside: the middle, 4
        (TrainedScale(None, (0.75, 1.5)), (37, 51), (37, 51)),
        (TrainedScale(None, (0.25, 0.25)), (40, 60), (10, 15)),
    ],
)
def test_train_is_the_size_at_which_a_picture_just_covers_what_was_trained_on(scale, own, seen):
    assert scale.of(own) == seen
    assert scale_of_facts(json.loads(json.dumps(scale.facts()))) == scale


def test_recipes_of_strangers_are_read_or_say_nothing():
    assert Augment().scale == USUAL_ZOOM
    assert scale_of_recipe({"train": {"augment": {"size": [64, 48]}}}) == TrainedScale((64, 48), USUAL_ZOOM)
    assert scale_of_recipe({"train": {"steps": 5}}) == TrainedScale() == scale_of_recipe({"train": {"augment": None}})
    odd = [
        None,
        3,
        {},
        {"train": 1},
        *(
            {"train": {"augment": a}}
            for a in (
                [],
                {"size": 5},
                {"size": [10**9, 1]},
                {"size": [64, 64], "scale": [2, 1]},
                {"scale": [0, 1]},
                {"scale": "a"},
                {"scale": ["a", "b"]},
                {"size": [64, 64], "scale": [1, 1e9]},
            )
        ),
    ]
    assert [scale_of_recipe(one) for one in odd] == [None] * len(odd)
    with pytest.raises(DataError, match=r"65535x1 pixels become .*; give a size as H,W"):
        TrainedScale((512, 512)).of((1, 65535))


def test_a_picture_is_seen_at_that_size_and_its_map_has_its_own():
    model = model_of(TrainedScale((32, 32), (1.0, 1.0)))
    pixels = picture(64, 96)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (32, 48), mode="bilinear", antialias=True
    )
    seen = small.round().to(torch.uint8)[0].permute(1, 2, 0).numpy()
    wanted = torch.nn.functional.interpolate(raw(model, seen), (64, 96), mode="bilinear")
    found = model.predict(pixels, size="train")["depth"]
    torch.testing.assert_close(
        found, model.tasks["depth"].decode(wanted)[0], rtol=0, atol=5e-3
    )  # a level of 8 bits may round otherwise
    assert torch.equal(model.predict(pixels, size=(32, 48))["depth"], found)
    assert (model.predict(pixels)["depth"] - found).abs().max() > 0.05
    assert torch.equal(model.predict(pixels, size="own")["depth"], model.predict(pixels)["depth"])
    unknown = model_of(None)
    assert torch.equal(unknown.predict(pixels, size="train")["depth"], unknown.predict(pixels)["depth"])


def test_a_constant_stays_constant_and_single_pixels_work():
    model = model_of(TrainedScale((32, 32)))
    for size in ((1, 1), (7, 200), "train"):
        assert model.predict(picture(33, 50), size=size)["depth"].shape == (33, 50)
    assert model.predict(picture(1, 1), size="train")["depth"].shape == (1, 1)


def test_evaluation_measures_pictures_and_labels_of_that_size():
    model, data = model_of(TrainedScale((24, 24))), Blobs(every(3), sizes=((48, 64), (40, 32)))

    class Small(Blobs):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return resize_sample(sample, {(48, 64): (24, 32), (40, 32): (30, 24)}[sample.size])

    small = Small(every(3), sizes=((48, 64), (40, 32)))
    assert gn.evaluate(model, data, size="train") == gn.evaluate(model, small)
    assert gn.evaluate(model, data, size="own") == gn.evaluate(model, data) != gn.evaluate(model, small)


def test_tasks_of_different_sizes_are_asked_for_apart():
    model = model_of(TrainedScale((32, 32)))
    model.add(gn.LoRA(rank=2), {"other": gn.Depth()})
    with pytest.raises(OptionError, match=r"of depth training saw .* 32,32, of other its bundle says nothing; ask"):
        model.predict(picture(40, 40), size="train")
    assert model.predict(picture(40, 40), ["depth"], size="train")["depth"].shape == (40, 40)
    with pytest.raises(OptionError, match="size"):
        model.predict(picture(40, 40), size="trained")


def test_what_fit_trained_is_in_the_bundle_and_said_by_the_commands(tmp_path, capsys):
    torch.manual_seed(0)
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), DEPTH, gn.LinearHead())
    data = Blobs(every(2))
    quiet = {**QUIET, "augment": Augment(size=(32, 32), scale=(0.5, 2.0))}
    gn.fit(model, data, data, steps=1, batch_size=2, out=tmp_path / "run", workers=0, **quiet)
    bundle = tmp_path / "run" / "best"
    want = TrainedScale((32, 32), (0.5, 2.0))
    assert gn.load(bundle).owner_of("depth").scale == want
    gn.load(bundle).save(tmp_path / "again")  # without what its run told
    assert gn.load(tmp_path / "again").owner_of("depth").scale == want
    Image.fromarray(picture(48, 64)).save(tmp_path / "a.png")
    words = ["predict", str(bundle), str(tmp_path / "a.png"), "--out", str(tmp_path / "maps")]
    assert main([*words, "--size", "train"]) == 0
    assert "scaled as in training: training saw pictures that just covered 32,32" in capsys.readouterr().out
    with Image.open(tmp_path / "maps" / "a_depth.png") as image:
        assert image.size == (64, 48)
        seen = np.asarray(image).copy()
    assert main([*words]) == 0 and "size" not in capsys.readouterr().out
    with Image.open(tmp_path / "maps" / "a_depth.png") as image:
        assert (np.asarray(image) != seen).any()
    assert main([*words, "--size", "3"]) == 2
    told = ["eval", str(bundle), "--data", "scenes", "--data.test", "2", "--data.size", "64", "--size", "train"]
    assert main(told) == 0 and "just covered 32,32, and labels with them" in capsys.readouterr().out
