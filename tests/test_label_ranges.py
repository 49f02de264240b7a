"""Labels outside the range that a task declares: what counts, in loss, metrics, pictures and before training."""

from __future__ import annotations

import json
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image
from torchvision import tv_tensors

import garnish as gn
import tiny
from garnish.cli import main
from garnish.data.check import check
from garnish.data.dataset import Dataset, DepthMap, Sample
from garnish.data.folder import folder
from garnish.data.subset import Subset
from garnish.errors import DataError
from garnish.training.processes import check_data

FAR = gn.Depth(max_metres=80)
#: The file's own ceiling where depth is stored in centimetres with 16 bits: Virtual KITTI's sky.
CEILING = 655.35


def says(task: gn.Depth, metres: torch.Tensor) -> torch.Tensor:
    """The raw output that means so many metres, from the docstring's formula, in float64."""
    softplus = metres.double() / (task.max_metres / 4)
    return (torch.log(torch.expm1(softplus)) - math.log(math.e - 1)).float()


def street() -> torch.Tensor:
    """(1, 1, 10, 10): 30 m, and four rows of sky at the file's ceiling."""
    target = torch.full((1, 1, 10, 10), 30.0)
    target[..., :4, :] = CEILING
    return target


def measured(task, prediction, target) -> dict[str, float]:
    metric = task.metric()
    metric.update(prediction, target)
    return {name: float(value) for name, value in metric.compute().items()}


def test_the_best_prediction_has_no_error_whatever_lies_beyond_the_range():
    found = measured(FAR, says(FAR, street().clamp(max=80)), street())
    expected = {"rmse": 0, "abs_rel": 0, "log_rmse": 0, "delta1": 1, "delta2": 1, "delta3": 1}
    assert found == pytest.approx(expected, abs=1e-6)


def test_labels_beyond_the_range_move_neither_loss_nor_gradient_nor_metric():
    raw = torch.randn(1, 1, 10, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sky, masked = street(), torch.where(street() > 80, 0.0, street())
    assert torch.equal(FAR.sums(raw, sky), FAR.sums(raw, masked))
    FAR.loss(FAR.sums(raw, sky)).backward()
    assert not raw.grad[..., :4, :].any() and (raw.grad[..., 4:, :] != 0).all()
    assert measured(FAR, raw.detach(), sky) == measured(FAR, raw.detach(), masked)


@pytest.mark.parametrize(
    ("metres", "counts"),
    [
        *((9e-4, False), (1e-3, True), (80.0, True), (80.01, False), (CEILING, False), (0.0, False), (-3.0, False)),
        *((math.inf, False), (-math.inf, False), (math.nan, False)),
    ],
)
def test_a_label_counts_exactly_where_a_prediction_can_equal_it(metres, counts):
    target = torch.full((1, 1, 1, 1), metres)
    assert FAR.labelled(target).item() is counts
    assert FAR.sums(torch.zeros(1, 1, 1, 1), target)[1].item() == counts
    assert (not math.isnan(measured(FAR, torch.zeros(1, 1, 1, 1), target)["rmse"])) is counts


def test_depth_outside_the_range_is_painted_as_none_and_predictions_at_the_bounds_are_not():
    near, far, beyond, none = FAR.paint(torch.tensor([[1e-3, 80.0, CEILING, 0.0]]))[0]
    assert near.any() and far.any() and not beyond.any() and not none.any()


class Streets(Dataset):
    """Two streets below sky."""

    name = "streets"
    tasks: ClassVar = {"depth": FAR}

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        target = street()[0]
        target[0, 5] += torch.arange(10)  # more than one value
        picture = tv_tensors.Image(torch.zeros(3, 10, 10, dtype=torch.uint8))
        return Sample(picture, {"depth": DepthMap(target)}, f"street {index}")


WARNING = (
    "depth: 40.00% of the measured pixels (80 of 200) are beyond max_metres = 80 (655.35 to 655.35) and have no"
    " label; widen the range if these are measurements"
)


def test_check_tells_the_share_on_a_line_of_its_own_and_so_does_fit():
    report = check(Streets())
    assert report.errors == () and report.warnings == (WARNING,)
    assert "depth: 2 label maps, 60.0% of their pixels labelled" in str(report).splitlines()
    assert f"warning: {WARNING}" in str(report).splitlines()
    assert check_data([Streets()], 2, Fabric(accelerator="cpu")) == [WARNING]


def test_a_single_pixel_beyond_is_told():
    data = Streets()
    sample = data[0]
    sample.targets["depth"][sample.targets["depth"] > 80] = 40.0
    sample.targets["depth"][0, 0, 0] = 81.0

    class One(Streets):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return sample

    assert "1.00% of the measured pixels (1 of 100) are beyond" in check(One()).warnings[0]


@pytest.fixture
def skies(tmp_path):
    """A described folder of three streets, centimetres in 16 bits, two of them with sky: 60 and 40 of 200 pixels."""
    rng = np.random.default_rng(0)
    for number, rows in enumerate((0, 6, 4)):
        depth = rng.integers(500, 7000, (10, 20)).astype(np.uint16)
        depth[:rows] = 65535
        for kind, values in (("rgb", rng.integers(0, 255, (10, 20, 3), np.uint8)), ("depth", depth)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / kind / f"{number}.png")
    options = {"task": "Depth", "labels": "depth/{name}.png", "unit": "cm", "max_metres": 80}
    return {"path": str(tmp_path), "images": "rgb/*.png", "tasks": {"depth": options}}


def test_the_command_says_so_of_a_folder_where_most_of_a_picture_is_sky(skies, tmp_path, capsys):
    described = tmp_path / "data.yaml"
    described.write_text(json.dumps(skies))
    assert main(["check", "--data", str(described)]) == 0
    out = capsys.readouterr().out
    assert "depth: 3 label maps, 66.7% of their pixels labelled" in out
    assert "33.33% of the measured pixels (200 of 600) are beyond max_metres = 80 (655.35 to 655.35)" in out
    assert main(["check", "--data", str(described), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["labels"]["depth"]
    assert found["labelled"] == 400
    (outside,) = found["outside"].values()
    assert outside == pytest.approx({"pixels": 200, "low": CEILING, "high": CEILING})


@pytest.mark.parametrize("remedy", [{"unit": "mm"}, {"max_metres": 700}, {"invalid": 65535}])
def test_a_file_with_no_depth_in_range_is_refused_and_each_remedy_named_helps(skies, tmp_path, remedy):
    sky = tmp_path / "depth/1.png"
    Image.fromarray(np.full((10, 20), 65535, np.uint16)).save(sky)
    with pytest.raises(DataError, match="all 200 depths exceed max_metres = 80") as caught:
        folder(skies)[1]
    assert str(caught.value).startswith(str(sky)) and "\n" not in str(caught.value)
    for word in ("unit", "range", "invalid"):
        assert word in str(caught.value)
    skies["tasks"]["depth"] |= remedy
    assert folder(skies)[1].targets["depth"].shape == (1, 10, 20)
    assert check(folder(skies)).errors == ()


@pytest.mark.parametrize("top", [2600, 3000, 7000])
def test_a_label_of_exactly_the_largest_depth_counts_in_every_unit(skies, tmp_path, top):
    Image.fromarray(np.full((10, 20), top, np.uint16)).save(tmp_path / "depth/1.png")
    skies["tasks"]["depth"] |= {"unit": "mm", "max_metres": top / 1000}
    data = folder(skies)
    assert data.tasks["depth"].labelled(data[1].targets["depth"]).all()


def test_depth_that_was_clipped_at_the_largest_depth_is_told(skies, tmp_path):
    for number in (1, 2):
        file = tmp_path / f"depth/{number}.png"
        depth = np.array(Image.open(file))
        depth[depth == 65535] = 8000
        Image.fromarray(depth).save(file)
    (told,) = check(folder(skies)).warnings
    assert "2 of 3 labels of depth pile up at exactly max_metres = 80; if depth was clipped there, list" in told
    skies["tasks"]["depth"]["invalid"] = 8000
    assert check(folder(skies)).findings == ()


# ---------------------------------------------------------------------------------------------- sets of one's own

CLASSES = gn.Semantic(classes=3)
BAD = {
    "an id beyond the classes": (CLASSES, torch.full((32, 32), 3), "label ids 3"),
    "a negative id": (CLASSES, torch.full((32, 32), -1), "label ids -1"),
    "ids that are no whole numbers": (CLASSES, torch.zeros(32, 32), "integer ids"),
    "grey edges": (gn.Edges(), torch.full((1, 32, 32), 0.5), "values 0.5"),
    "white edges": (gn.Edges(), torch.full((1, 32, 32), 128.0), "values 128"),
    "grey saliency": (gn.Saliency(), torch.full((1, 32, 32), 1.5), "values 1.5"),
    "normals of length 2": (gn.Normals(), torch.tensor([0.0, 0.0, -2.0]).expand(32, 32, 3).movedim(-1, 0), "length 1"),
    "normals that are no numbers": (gn.Normals(), torch.full((3, 32, 32), math.nan), "not finite"),
    "depth that is no number": (gn.Depth(), torch.full((1, 32, 32), math.nan), "NaN"),
    "depth in millimetres": (gn.Depth(), torch.full((1, 32, 32), 2500.0), "exceed max_metres"),
}


class Own(Dataset):
    """One picture with one label."""

    name = "own"

    def __init__(self, task, target) -> None:
        self._tasks, self.target = {"it": task}, target

    @property
    def tasks(self):
        return self._tasks

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        target = self.tasks["it"].target.wrap(self.target)
        return Sample(tv_tensors.Image(torch.zeros(3, 32, 32, dtype=torch.uint8)), {"it": target}, "a.png")


@pytest.mark.parametrize("kind", BAD)
def test_labels_of_any_set_are_looked_at_where_they_are_read(kind):
    task, target, words = BAD[kind]
    data = Own(task, target)
    model = gn.adapt(tiny.backbone("mit"), gn.Frozen(), tasks=data.tasks, head=gn.LinearHead())
    for use in (
        lambda: gn.evaluate(model, data),
        lambda: gn.evaluate(model, Subset(data, [0])),
        lambda: gn.fit(model, data, steps=1, batch_size=1, check_pictures=0),
    ):
        with pytest.raises(DataError, match=words) as caught:
            use()
        assert str(caught.value).startswith("a.png: label of task 'it': ") and "\n" not in str(caught.value)
