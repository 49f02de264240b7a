"""The task of ``docs/add-a-task.md`` through the whole package; run by ``test_add_a_task.py`` where it is installed.

Truth: the mean curvature of an analytic surface z = f(x, y) by its formula in float64, on a grid that is turned instead
of the map.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from outside_curvature import Curvature, CurvatureMap, Signed, SignedAmounts
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as V

import garnish as gn
from garnish import registry
from garnish.cli import main
from garnish.data.augment import Augment, resize_sample
from garnish.data.check import check
from garnish.data.dataset import Dataset, Sample
from garnish.data.description_file import read_description
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError
from garnish.targets.target import Target
from garnish.training.feature_file import as_bytes, pack, read_features, unpack

SIZE = (24, 32)
OPTIONS = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}


def grid(height: int = 41, width: int = 41) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return (x - (width - 1) / 2) / 20, (y - (height - 1) / 2) / 20


def mean_curvature(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of z = x³/3 + x²y + y²/5 + y/2, which is hollow in places and bulges in others."""
    zx, zy = x**2 + 2 * x * y, x**2 + 2 * y / 5 + 0.5
    zxx, zxy, zyy = 2 * x + 2 * y, 2 * x, np.full_like(x, 2 / 5)
    above = (1 + zx**2) * zyy - 2 * zx * zy * zxy + (1 + zy**2) * zxx
    return above / (2 * (1 + zx**2 + zy**2) ** 1.5)


def field(*at: np.ndarray) -> CurvatureMap:
    return SignedAmounts.wrap(torch.from_numpy(mean_curvature(*(at or grid()))).float()[None])


def plain(target: torch.Tensor) -> np.ndarray:
    assert type(target) is CurvatureMap
    return target.as_subclass(torch.Tensor).numpy()[0]


def test_the_truth_has_both_signs():
    values = mean_curvature(*grid())
    assert 0.2 < (values < 0).mean() < 0.8 and values.min() < -0.3 and values.max() > 0.3


# How it moves. A camera that is mirrored or rolled sees the same curvature where the same point now lies, so the moved
# map is the formula at the place where each pixel comes from.


@pytest.mark.parametrize(
    ("move", "source"),
    [
        (V.horizontal_flip, lambda x, y: (-x, y)),
        (V.vertical_flip, lambda x, y: (x, -y)),
        (lambda m: V.rotate(m, 90.0), lambda x, y: (-y, x)),
        (lambda m: V.rotate(m, 180.0), lambda x, y: (-x, -y)),
        (lambda m: V.rotate(m, 270.0), lambda x, y: (y, -x)),
        (lambda m: V.affine(m, 90.0, [0, 0], 1.0, [0.0, 0.0]), lambda x, y: (y, -x)),  # clockwise
    ],
)
def test_it_moves_as_the_surface_does(move, source):
    x, y = grid()
    want = mean_curvature(*source(x, y))
    assert np.abs(want - mean_curvature(x, y)).max() > 0.5
    moved = plain(move(field()))
    known = ~np.isnan(moved)
    assert known.mean() > 0.9  # the affine grid may miss a border
    assert np.abs(moved - want)[known].max() < 1e-6


def test_a_rotation_by_any_angle():
    x, y = grid()
    turned = plain(V.rotate(field(), 25.0))
    c, s = math.cos(math.radians(25)), math.sin(math.radians(25))
    want = mean_curvature(c * x - s * y, s * x + c * y)
    known = ~np.isnan(turned)
    assert np.isnan(turned[0, 0]) and np.isnan(turned[-1, -1]) and known[20, 20]
    gradient = np.abs(np.stack(np.gradient(want))).sum(0).max()
    assert np.abs(turned - want)[known].max() < 0.75 * gradient  # the nearest pixel is at most 0.71 away
    assert (turned[known] < 0).mean() > 0.2


NUMBERS = np.arange(12 * 16, dtype=np.float32).reshape(12, 16) - 96  # from -96 to 95


@pytest.mark.parametrize(
    ("name", "options", "want"),
    [
        ("crop", {"top": 2, "left": 3, "height": 5, "width": 6}, NUMBERS[2:7, 3:9]),
        (
            "crop",
            {"top": -1, "left": 0, "height": 3, "width": 17},
            np.pad(NUMBERS[:2], ((1, 0), (0, 1)), constant_values=np.nan),
        ),
        ("center_crop", {"output_size": [6, 7]}, NUMBERS[3:9, 4:11]),
        ("center_crop", {"output_size": [14, 3]}, np.pad(NUMBERS[:, 6:9], ((1, 1), (0, 0)), constant_values=np.nan)),
        ("pad", {"padding": [1, 2, 3, 4], "fill": 9}, np.pad(NUMBERS, ((2, 4), (1, 3)), constant_values=np.nan)),
        ("resize", {"size": [6, 4]}, NUMBERS[1::2, 2::4]),
        ("resize", {"size": [24, 32]}, NUMBERS.repeat(2, 0).repeat(2, 1)),
        ("resized_crop", {"top": 0, "left": 2, "height": 6, "width": 6, "size": [2, 2]}, NUMBERS[1:6:3, 3:8:3]),
    ],
)
def test_places(name, options, want):
    moved = plain(getattr(V, name)(SignedAmounts.wrap(torch.from_numpy(NUMBERS)[None]), **options))
    np.testing.assert_array_equal(moved, want)


@pytest.mark.parametrize("name", ["elastic", "perspective", "five_crop"])
def test_what_has_no_rule_is_refused(name):
    with pytest.raises(OptionError, match=f"transform '{name}' has no rule for CurvatureMap"):
        getattr(V, name)(field(), *{"elastic": [None], "perspective": [None, None], "five_crop": [[5, 5]]}[name])


def test_samples_are_augmented_and_resized_with_it():
    """The picture shows where a pixel comes from; the label is that pixel's, or none where the picture is filled."""
    rows, columns = np.mgrid[:40, :50]
    image = np.stack([rows * 6, columns * 5, np.full_like(rows, 255)]).astype(np.uint8)
    label = (rows * 50 + columns - 1000).astype(np.float32)[None]
    sample = Sample(tv_tensors.Image(torch.from_numpy(image)), {"c": SignedAmounts.of(label)}, "numbered")
    half = plain(resize_sample(sample, (20, 25)).targets["c"])
    np.testing.assert_array_equal(half, label[0][1::2, 1::2])
    flipped = Augment(scale=(1.0, 1.0), flip=1.0)(sample, (0,))
    np.testing.assert_array_equal(plain(flipped.targets["c"]), label[0][:, ::-1])
    filled = 0
    for seed in range(8):
        out = Augment(size=(36, 44), scale=(0.6, 1.3), rotate_degrees=20.0)(sample, (seed,))
        values = plain(out.targets["c"])
        known = ~np.isnan(values)
        filled += int((~known).sum())
        from_row, from_column = np.divmod(values[known] + 1000, 50)
        # the picture is bilinear, and mixes with the fill at its border
        inside = np.abs(out.image[2].numpy()[known].astype(int) - 255) < 2
        assert inside.mean() > 0.8
        assert np.abs(out.image[0].numpy()[known] / 6 - from_row)[inside].max() < 1.5
        assert np.abs(out.image[1].numpy()[known] / 5 - from_column)[inside].max() < 1.5
        assert (values[known] < 0).any() and (values[known] > 0).any()
    assert filled > 100


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_labels_turn_with_the_picture(orientation, tmp_path):
    """Pillow turns the picture, whose red channel is the label."""
    values = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    image = Image.fromarray(np.stack([values, values * 0, values * 0], -1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "p.png", exif=exif)
    np.save(tmp_path / "p.npy", values.astype(np.float32) - 20)
    entry = {"task": "Curvature", "labels": "{name}.npy", "orientation": "stored"}
    sample = gn.folder({"path": str(tmp_path), "images": "*.png", "tasks": {"c": entry}})[0]
    np.testing.assert_array_equal(plain(sample.targets["c"]), sample.image[0].numpy().astype(np.float32) - 20)


# How it is learnt and measured


def test_negative_values_count_in_loss_and_metric():
    task = Curvature()
    target = torch.tensor([[[[-2.0, 0.0], [1.5, math.nan]]]])
    prediction = torch.tensor([[[[-1.0, 0.5], [-0.5, 7.0]]]], requires_grad=True)
    loss = task.loss(task.sums(prediction, target))
    assert loss.item() == pytest.approx((1 + 0.5 + 2) / 3)
    loss.backward()
    assert torch.equal(prediction.grad * 3, torch.tensor([[[[1.0, 1.0], [-1.0, 0.0]]]]))
    metric = task.metric()
    metric.update(prediction.detach(), target)
    assert metric.compute()["mae"].item() == pytest.approx(3.5 / 3)
    assert metric.compute()["sign"].item() == pytest.approx(1 / 3)
    assert gn.Uncertainty().build({"c": task}).factors == {"c": 0.5}  # amounts, not names


def test_painted_and_written(tmp_path):
    values = np.array([[-5, 0, 5, np.nan]], np.float32)
    painted = Curvature(painted=5.0).paint(SignedAmounts.of(values[None]))
    # the ends and the middle of viridis, by its published table
    assert painted[0].tolist() == [[68, 1, 84], [32, 144, 140], [253, 231, 36], [0, 0, 0]]
    file = Curvature().write(torch.from_numpy(values), tmp_path / "map")
    np.testing.assert_array_equal(np.load(file), values)


# Files


@pytest.fixture
def data(tmp_path):
    """Pictures whose brightness is the curvature, in two splits, labels in steps of 1/1000."""
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "curvature"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            x, y = grid(*SIZE)
            values = mean_curvature(x + number / 5 + count / 40, y - 0.3)
            values[:2, :3] = -9.999
            grey = np.clip(128 + 60 * values, 0, 255).astype(np.uint8)
            Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / f"images/{split}/{split}{number}.png")
            np.save(tmp_path / f"curvature/{split}/{split}{number}.npy", np.rint(values * 1000).astype(np.int16))
    entry = {"task": "Curvature", "labels": "curvature/{split}/{name}.npy", "factor": 0.001, "invalid": -9999}
    given = {"path": str(tmp_path), "images": "images/{split}/*.png", "tasks": {"bend": entry}}
    (tmp_path / "data.yaml").write_text(json.dumps(given))
    return tmp_path


def test_read_from_files(data):
    found = gn.folder(data, "val")
    raw = np.load(data / "curvature/val/val1.npy")
    want = np.where(raw == -9999, np.nan, raw.astype(np.float64) / 1000)
    got = plain(found[1].targets["bend"])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert (got < 0).mean() > 0.2 and np.isnan(got).sum() == 6


def test_options_of_the_reader_are_checked(data):
    given = json.loads((data / "data.yaml").read_text())
    entry = given["tasks"]["bend"]
    assert isinstance(read_description(given, data).tasks["bend"].labels, Signed)
    for change, says in (
        ({"factor": "much"}, "data: tasks.bend.factor: expected a number, got 'much'"),
        (
            {"unit": "mm"},
            "data: tasks.bend.unit: does not apply to labels of kind signed; those take: factor, invalid, orientation",
        ),
        ({"kind": "depth"}, "data: tasks.bend.kind: 'depth' does not fit Curvature; use signed"),
        ({"paint": 2}, "data: tasks.bend: unknown option 'paint'; did you mean 'painted'"),
        ({"painted": -1}, "Curvature.painted: -1"),
    ):
        with pytest.raises(OptionError) as caught:
            read_description({**given, "tasks": {"bend": {**entry, **change}}}, data)
        assert str(caught.value).startswith(says) and "\n" not in str(caught.value)


def test_check(data, capsys):
    assert main(["check", "--data", str(data / "data.yaml"), "--json"]) == 0
    report = check(gn.folder(data))
    assert not report.findings
    assert (report.labels["bend"].labelled, report.labels["bend"].total) == (4 * (24 * 32 - 6), 4 * 24 * 32)
    np.save(data / "curvature/train/train0.npy", np.full(SIZE, -300, np.int16))
    np.save(data / "curvature/train/train1.npy", np.full(SIZE, -9999, np.int16))
    told = check(gn.folder(data)).warnings
    assert any("1 of 4 labels of bend hold one value only" in line for line in told)
    assert any("1 of 4 labels of bend hold no labelled pixel" in line for line in told)
    capsys.readouterr()


def test_trained_saved_loaded_and_predicted(data, capsys):
    from safetensors.torch import save_file

    trunk = gn.backbone("mit_b0", options=OPTIONS)
    tensors = {name: getattr(m, leaf).detach().contiguous() for name, m, leaf in trunk.named_slots()}
    save_file(tensors, data / "tiny.safetensors")
    recipe = {
        "backbone": {"name": "mit_b0", "weights": str(data / "tiny.safetensors"), "options": OPTIONS},
        "adapter": {"name": "LoRA", "rank": 2},
        "head": "LinearHead",
        "data": "data.yaml",
        "train": {
            "steps": 12,
            "batch_size": 2,
            "lr": 3e-2,
            "eval_every": 4,
            "log": [],
            "warmup": 0,
            "balance": "Uncertainty",
        },
        "out": str(data / "run"),
    }
    (data / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["train", "--config", str(data / "recipe.yaml"), "--json", "--quiet"]) == 0
    best = json.loads(capsys.readouterr().out)["best"]
    model = gn.load(best)
    assert type(model.tasks["bend"]) is Curvature
    maps = model.predict(data / "images/val/val0.png")
    decoded = maps["bend"]
    assert decoded.shape == SIZE and decoded.isfinite().all()
    model.save(data / "again")
    assert torch.equal(gn.load(data / "again").predict(data / "images/val/val0.png")["bend"], decoded)
    assert main(["predict", best, str(data / "images/val/val0.png"), "--out", str(data / "maps")]) == 0
    capsys.readouterr()
    (written,) = (data / "maps").rglob("*.npy")
    np.testing.assert_array_equal(np.load(written), decoded.numpy())
    assert main(["eval", best, "--data", str(data / "data.yaml"), "--split", "val", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["bend"]
    # the metric again, in numpy, from what predict gives
    errors = []
    for number in range(2):
        raw = np.load(data / f"curvature/val/val{number}.npy")
        got = model.predict(data / f"images/val/val{number}.png")["bend"].numpy().astype(np.float64)
        errors.append(np.abs(got - raw / 1000)[raw != -9999])
    assert metrics["mae"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-3)


def test_planned_and_listed(capsys):
    assert (
        main(
            [
                "plan",
                "garnish_b0",
                "--tasks",
                "bend=Curvature",
                "--methods",
                "LoRA,BitFit",
                "--predictions",
                "1",
                "--json",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert "Curvature" in listed and "signed" in listed and "factor=1.0" in listed


def test_kept_features(tmp_path):
    from garnish.engine.trunk_start import TrunkState

    state = TrunkState.of_names({"x": torch.randn(1, 4, 6)}, {}, 2, (41, 41), (2, 3))
    label = field()
    label[0, :3] = math.nan
    sample = Sample(tv_tensors.Image(torch.zeros(3, 41, 41, dtype=torch.uint8)), {"c": label}, "a.png", state)
    packed = pack(sample)
    (tmp_path / "kept").write_bytes(as_bytes(packed))
    for back in (unpack(packed, {"c": Curvature()}), read_features(tmp_path / "kept", {"c": Curvature()})):
        np.testing.assert_array_equal(plain(back.targets["c"]), plain(label))
    with pytest.raises(DataError, match="the label of 'c' is a CurvatureMap, and not a DepthMap"):
        read_features(tmp_path / "kept", {"c": gn.Depth()})


# What a kind of target cannot be


def test_a_tensor_type_belongs_to_one_kind():
    with pytest.raises(OptionError, match=r"Again\.tensor: CurvatureMap is another kind's.*alone") as caught:

        class Again(Target):
            tensor = CurvatureMap
            missing = -1.0

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("lacks", "base"), [("tensor", Target), ("missing", Target), ("tensor", SignedAmounts)])
def test_a_kind_names_its_tensor_and_what_says_no_label(lacks, base):
    # also one that extends another: the kernels of its tensor would know nothing of its own rules
    given = {"tensor": type("Fresh", (tv_tensors.TVTensor,), {}), "missing": -1.0}
    del given[lacks]
    with pytest.raises(OptionError, match=rf"^Odd\.{lacks}: is not given; name "):
        type("Odd", (base,), given)
    with pytest.raises(OptionError, match=r"^Odd\.tensor: expected a class, got 'x'"):
        type("Odd", (base,), {"tensor": "x", "missing": 0.0})


def test_a_mask_has_the_rules_of_masks():
    with pytest.raises(OptionError, match=r"Instances\.tensor: a Mask moves by torchvision's own rules and has 255"):

        class Instances(Target):
            tensor = tv_tensors.Mask
            missing = 65535


def test_kernels_of_ones_own_take_the_place_of_the_usual_ones():
    class Disparity(tv_tensors.TVTensor):
        pass

    def wider(values, size, **_):
        grown = torch.nn.functional.interpolate(values[None], size=size, mode="nearest-exact")[0]
        return grown * size[1] / values.shape[-1]

    class Shifts(Target):
        tensor = Disparity
        missing = math.nan
        kernels = {"resize": wider}  # noqa: RUF012

    made = Shifts.wrap(torch.tensor([[[1.0, 2.0]]]))
    sample = Sample(tv_tensors.Image(torch.zeros(3, 1, 2, dtype=torch.uint8)), {"d": made}, "a")
    grown = resize_sample(sample, (1, 4)).targets["d"]
    assert type(grown) is Disparity and grown.tolist() == [[[2.0, 2.0, 4.0, 4.0]]]
    with pytest.raises(OptionError, match="no geometric functional 'resise'; did you mean 'resize'"):

        class Wrong(Target):
            tensor = type("Other", (tv_tensors.TVTensor,), {})
            missing = 0.0
            kernels = {"resise": wider}  # noqa: RUF012


def test_a_set_of_ones_own_gives_the_task_s_tensors():
    class Own(Dataset):
        name = "own"
        tasks = {"c": Curvature()}  # noqa: RUF012

        def __init__(self, wrap):
            self.wrap = wrap

        def __len__(self):
            return 1

        def __getitem__(self, index):
            picture = tv_tensors.Image(torch.zeros(3, 32, 32, dtype=torch.uint8))
            return Sample(picture, {"c": self.wrap(-torch.ones(1, 32, 32))}, "a.png")

    model = gn.adapt(gn.backbone("mit_b0", options=OPTIONS), gn.Frozen(), tasks=Own.tasks, head=gn.LinearHead())
    assert gn.evaluate(model, Own(SignedAmounts.wrap))["c"]["mae"] > 0
    with pytest.raises(DataError, match=r"a\.png: label of task 'c': is a DepthMap; give a CurvatureMap"):
        gn.evaluate(model, Own(gn.Depth.target.wrap))


def test_it_is_named_by_its_class():
    assert registry.find("tasks", "Curvature") is Curvature
    with contextlib.redirect_stdout(io.StringIO()) as listed:
        main(["methods", "--json"])
    assert "signed" in json.loads(listed.getvalue())["readers"]
    assert Path(__file__).name == "curvature_cases.py"


# Which reader is taken


@final
@dataclass(frozen=True, kw_only=True)
class Other(Reader):
    """Another reader of the same kind of target."""

    kind = "other"
    target = SignedAmounts

    tenths: bool = False

    def decode(self, raw, file, task):
        return (raw / 10).astype(np.float32)[None]


@pytest.fixture
def other(monkeypatch):
    monkeypatch.setitem(registry.classes("readers"), "Other", Other)
    return monkeypatch


def reader(data, **changes):
    entry = {"task": "Curvature", "labels": "curvature/{split}/{name}.npy", **changes}
    given = {"path": str(data), "images": "images/{split}/*.png", "tasks": {"bend": entry}}
    return type(read_description(given, data).tasks["bend"].labels)


def test_among_several_readers_something_must_choose(data, other):
    with pytest.raises(OptionError, match="several readers make targets of Curvature; write `kind:` and one of"):
        reader(data)
    assert reader(data, kind="other") is Other and reader(data, kind="signed") is Signed
    with pytest.raises(OptionError, match="'ids' does not fit Curvature; use signed or other"):
        reader(data, kind="ids")
    other.setattr(Other, "default", True)
    assert reader(data) is Other
    other.setattr(Signed, "chosen_by", "factor")
    assert reader(data) is Other and reader(data, factor=2) is Signed


def test_readers_that_cannot_be_told_apart_are_refused(data, other):
    other.setattr(Other, "kind", "signed")
    with pytest.raises(OptionError, match="readers Signed and Other both have the kind 'signed'; rename one"):
        reader(data)


def test_a_kind_of_target_that_nothing_reads(data, monkeypatch):
    monkeypatch.delitem(registry.classes("readers"), "Signed")
    with pytest.raises(OptionError, match=r"tasks\.bend: no reader makes targets of Curvature; write one"):
        reader(data)


def test_an_option_of_both_the_task_and_the_reader(data, other):
    other.setattr(Other, "default", True)
    fields = dict(Other.__dataclass_fields__)
    other.setattr(Other, "__dataclass_fields__", {**fields, "painted": Curvature.__dataclass_fields__["painted"]})
    with pytest.raises(OptionError, match=r"tasks\.bend\.painted: Curvature and the reader of its labels both have"):
        reader(data, painted=2.0)
