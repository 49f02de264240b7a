"""Training on bands: what a recipe says reaches the trunk, the bundle keeps it, and other bands are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import garnish as gn
from garnish.cli import main
from garnish.errors import DataError, OptionError
from garnish.recipes.build_model import build_model
from garnish.recipes.recipe import read_recipe
from garnish.training.feature_cache import can_cache

OPTIONS = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
NAMES = ["nir", "red", "swir", "green", "blue"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weights of a tiny MiT: a bundle needs some that it can name."""
    torch.manual_seed(0)
    trunk = gn.backbone("mit_b0", options=OPTIONS)
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({n: getattr(m, leaf).detach().contiguous() for n, m, leaf in trunk.named_slots()}, file)
    return file


@pytest.fixture
def recipe(tmp_path, weights) -> Path:
    """A recipe on TIFFs of five bands of 16 bits, where 0 is no data; the class shows in ``swir`` alone."""
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(2)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "ids"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            ids = (rng.random((4, 4)) > 0.5).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            stored = rng.integers(1, 4000, (32, 32, 5), np.uint16)
            stored[..., 2] = np.where(ids, 3500, 500)
            stored[:4, :4, 0] = 0
            tifffile.imwrite(
                tmp_path / f"images/{split}/p{number}.tif", stored, photometric="minisblack", planarconfig="contig"
            )
            Image.fromarray(ids).save(tmp_path / f"ids/{split}/p{number}.png")
    given = {
        "backbone": {"name": "mit_b0", "weights": str(weights), "options": OPTIONS},
        "adapter": {"name": "LoRA", "rank": 2},
        "head": {"name": "SegFormerHead", "channels": 8},
        "data": {
            "path": str(tmp_path),
            "images": "images/{split}/*.tif",
            "channels": {"names": NAMES, "range": [0, 4000], "nodata": 0},
            "splits": {"train": "train", "val": "val"},
            "tasks": {"seg": {"task": "Semantic", "labels": "ids/{split}/{name}.png", "classes": ["low", "high"]}},
        },
        "train": {"steps": 2, "batch_size": 2, "lr": 1e-3, "eval_every": 3, "save_every": 1},
        "out": str(tmp_path / "run"),
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(given))
    return file


def test_a_recipe_from_end_to_end(recipe, tmp_path, capsys):
    assert main(["train", "--config", str(recipe), "--quiet", "--trunk.extra", "mean"]) == 0
    model = gn.load(tmp_path / "run/best")
    assert model.bands_of("seg") == gn.Bands(names=tuple(NAMES), range=(0, 4000), nodata=0)
    # the bundle normalises as the training pictures were counted: NumPy on all their pixels
    import tifffile

    pixels = np.concatenate([tifffile.imread(p).reshape(-1, 5) for p in sorted((tmp_path / "images/train").iterdir())])
    wanted = np.where(pixels == 0, np.nan, pixels / 4000.0)
    owner = model.served.owner("seg")
    np.testing.assert_allclose(owner.given.statistics.mean, np.nanmean(wanted, 0), rtol=1e-6)
    np.testing.assert_allclose(owner.given.statistics.std, np.nanstd(wanted, 0), rtol=1e-6)
    assert owner.given.statistics.missing[0] == pytest.approx(np.isnan(wanted[:, 0]).mean())
    assert owner.given.extra == "mean"
    capsys.readouterr()
    assert (
        main(["eval", str(tmp_path / "run/best"), "--data", str(recipe_data(recipe)), "--split", "val", "--json"]) == 0
    )
    assert 0 <= json.loads(capsys.readouterr().out)["seg"]["miou"] <= 1
    saved = yaml.safe_load((tmp_path / "run/args.yaml").read_text())
    assert saved["trunk"] == {"extra": "mean"} and saved["data"]["channels"]["nodata"] == 0


def recipe_data(recipe: Path) -> Path:
    """The data of a recipe as a file of their own."""
    file = recipe.parent / "data.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text())["data"]))
    return file


def test_a_run_goes_on_as_if_it_had_not_stopped(recipe, tmp_path):
    """Three steps at once, and two and one: equal bundles, the tensor of the other bands included."""
    whole, part = str(tmp_path / "whole"), str(tmp_path / "part")
    assert main(["train", "--config", str(recipe), "--quiet", "--train.steps", "3", "--out", whole]) == 0
    read = read_recipe(recipe, {"train.steps": 3})
    train = read.open("train")
    options = vars(read.options)

    class Stopped(Exception):
        pass

    from garnish.training import run as running

    finish = running.Run.finish_step

    def stop(self, *args):
        finish(self, *args)
        if self.state.step == 2:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.Run, "finish_step", stop)
        with pytest.raises(Stopped):
            gn.fit(build_model(read, train), train, read.open("val"), out=part, progress=False, **options)
    again = build_model(read, train)
    gn.fit(again, train, read.open("val"), resume=part, progress=False, **options)
    one, other = gn.load(Path(whole) / "best"), gn.load(Path(part) / "best")
    mine, theirs = one.trained_parameters(), other.trained_parameters()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert any(parameter.ndim == 4 and parameter.shape[1] == 2 for parameter in mine.values())  # nir and swir


def test_other_bands_are_refused_before_the_first_step(recipe):
    read = read_recipe(recipe)
    train = read.open("train")
    model = build_model(read, train)
    other = read_recipe(recipe, {"data.channels": {"names": NAMES, "range": [0, 65535]}}).open("train")
    with pytest.raises(
        DataError, match=r"task 'seg': the model reads range \[0.0, 4000.0\], the data range \[0.0, 65535.0\]"
    ):
        gn.fit(model, other, steps=1, progress=False)
    turned = read_recipe(recipe, {"data.channels": {"names": NAMES[::-1], "range": [0, 4000]}}).open("val")
    with pytest.raises(DataError, match="the model has bands nir, red, swir, green, blue, the data bands blue"):
        gn.evaluate(model, turned)
    plain = gn.adapt(gn.backbone("mit_b0", options=OPTIONS), gn.LoRA(rank=2), train.tasks)
    with pytest.raises(DataError, match="the model has bands red, green, blue, the data bands nir"):
        gn.fit(plain, train, steps=1, progress=False)
    unlike = read_recipe(recipe, {"data.channels": {"names": NAMES, "range": [0, 4000], "nodata": 9}}).open("val")
    gn.evaluate(model, unlike)  # how a file marks no data is its own matter
    with pytest.raises(OptionError, match=r"augment.colour 0.2 changes brightness"):
        gn.fit(model, train, steps=1, progress=False, augment=gn_augment(0.2))


def gn_augment(colour: float):
    """Random changes of colours."""
    from garnish.data.augment import Augment

    return Augment(scale=(1.0, 1.0), colour=colour)


@pytest.mark.parametrize(
    "overrides, told",
    [
        ({"trunk.extra": "half"}, "--trunk.extra: .*half"),
        ({"trunk": "mean"}, r"--trunk: 'mean'; write e.g. trunk: \{extra: mean\}"),
        ({"trunk.extra": "mean", "data": "scenes"}, "has no band beside red, green and blue; leave the section out"),
        ({"trunk.extar": "mean"}, "extar"),
    ],
)
def test_sections_trunk_that_cannot_be(recipe, overrides, told):
    read = read_recipe(recipe, overrides)
    with pytest.raises(OptionError, match=told) as refused:
        build_model(read, read.open("train"))
    assert "\n" not in str(refused.value)


def test_a_task_of_bands_onto_one_of_colours(recipe, tmp_path, weights):
    """Both live in one model, each by its own bands; the old one's outputs stay."""
    torch.manual_seed(1)
    base = gn.adapt(gn.backbone("mit_b0", str(weights), options=OPTIONS), gn.LoRA(rank=2), {"fg": gn.Saliency()})
    base.save(tmp_path / "base")
    read = read_recipe(recipe, {"onto": str(tmp_path / "base"), "backbone": None})
    model = build_model(read, read.open("train")).eval()
    assert model.bands_of("fg").is_rgb and model.bands_of("seg").names == tuple(NAMES)
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(picture, ["fg"])["fg"], gn.load(tmp_path / "base").eval()(picture)["fg"])


def test_features_of_bands_are_not_kept(recipe):
    """The first layer is trained, so there is nothing unchanged to keep: said, not ignored."""
    read = read_recipe(recipe, {"train.variants": 1, "train.cache": str(recipe.parent / "kept")})
    train = read.open("train")
    model = build_model(read, train)
    assert can_cache(model)
    with pytest.raises(OptionError, match=r"train\.cache"):
        gn.fit(model, train, read.open("val"), progress=False, **vars(read.options))
