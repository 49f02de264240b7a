"""Where a model meets data, class names and their order are compared; so are options that say what labels mean.

Every place where the two meet is tried: fit's train and val, evaluate, ``garnish eval``, thresholds, totals by picture,
resume, joined sets, kept features, a recipe's own names, and a loaded bundle that is trained on.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
from garnish.cli import main
from garnish.comparing.analysis.totals_by_picture import evaluate_by_picture
from garnish.data.dataset import Dataset
from garnish.data.identity import identity
from garnish.data.subset import Subset
from garnish.errors import DataError, OptionError
from garnish.tasks.agreement import difference, notes
from garnish.tasks.task import Role, Task

FIELD = ("soil", "crop", "weed")
TURNED = ("weed", "crop", "soil")
QUIET: dict[str, Any] = {"progress": False, "log": ("csv",), "augment": None, "batch_size": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of 32×48 whose rows are 16 of id 0, 8 of id 1, 8 of id 2, in splits train, val and test."""
    root = tmp_path_factory.mktemp("field")
    mask = np.zeros((32, 48), np.uint8)
    mask[16:24], mask[24:] = 1, 2
    for split in ("train", "val", "test"):
        for number in range(2):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            colour = np.stack([mask * 100 + number, 255 - mask * 90, mask], -1).astype(np.uint8)
            Image.fromarray(colour).save(root / f"images/{split}/{number}.png")
            Image.fromarray(mask).save(root / f"masks/{split}/{number}.png")
    return root


def described(root: Path, classes: Any, **options: Any) -> dict[str, Any]:
    labels = {"task": "Semantic", "labels": "masks/{split}/{name}.png", "classes": classes, **options}
    return {"path": str(root), "images": "images/{split}/*", "tasks": {"seg": labels}}


def data(root: Path, classes: Any, split: str = "train", **options: Any) -> Dataset:
    return gn.folder(described(root, classes, **options), split)


def model_of(classes: Any, **options: Any) -> gn.Model:
    torch.manual_seed(0)
    return gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), {"seg": gn.Semantic(classes=classes, **options)})


#: what an error on FIELD's model and TURNED's data says
SAID = (
    "task 'seg': class 0 is 'weed' in the data and 'soil' in the model, class 2 is 'soil' in the data and 'weed' in the"
    " model; match them by name: gn.match_classes(data, model), or garnish eval --match-classes refuse"
)


@pytest.mark.parametrize(
    "meet",
    [
        pytest.param(lambda m, own, other: gn.evaluate(m, other), id="evaluate"),
        pytest.param(lambda m, own, other: gn.evaluate(m, other, tasks=["seg"]), id="evaluate one task"),
        pytest.param(lambda m, own, other: evaluate_by_picture(m, other), id="totals by picture"),
        pytest.param(lambda m, own, other: gn.fit(m, other, steps=1, **QUIET), id="fit"),
        pytest.param(lambda m, own, other: gn.fit(m, own, other, steps=1, **QUIET), id="fit's val"),
        pytest.param(lambda m, own, other: gn.evaluate(m, Subset(other, [0])), id="a part of the set"),
        pytest.param(lambda m, own, other: gn.evaluate(m, gn.join(other, other)), id="joined"),
        pytest.param(
            lambda m, own, other: gn.fit(m, own, other, steps=1, cache="kept", variants=1, **QUIET), id="kept features"
        ),
    ],
)
def test_another_order_of_the_same_names_is_refused_wherever_they_meet(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meet: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    own, other = data(pictures, FIELD), data(pictures, TURNED, "val")
    model = model_of(FIELD)
    before = {n: t.clone() for n, t in model.own_tensors().items()}
    with pytest.raises(DataError) as error:
        meet(model, own, other)
    assert str(error.value).endswith(SAID) and "\n" not in str(error.value)
    assert all(torch.equal(t, before[n]) for n, t in model.own_tensors().items())


def test_a_loaded_bundle_is_compared_too(pictures: Path, tmp_path: Path) -> None:
    model_of(FIELD).save(tmp_path / "bundle")
    loaded = gn.load(tmp_path / "bundle")
    with pytest.raises(DataError, match="class 0 is 'weed' in the data and 'soil' in the model"):
        gn.fit(loaded, data(pictures, TURNED), steps=1, **QUIET)
    loaded.freeze(["seg"])
    loaded.add(gn.LoRA(rank=1), {"depth": gn.Depth()})
    with pytest.raises(DataError, match="class 0 is 'weed'"):  # a frozen task is met as well, for it is evaluated
        gn.evaluate(loaded, data(pictures, TURNED))


def test_a_run_is_resumed_with_its_own_class_names_only(pictures: Path, tmp_path: Path) -> None:
    gn.fit(model_of(FIELD), data(pictures, FIELD), steps=1, out=tmp_path / "run", **QUIET)
    with pytest.raises(OptionError, match=r"was started with tasks\.seg\.classes = soil, crop, weed, not weed, crop"):
        gn.fit(model_of(TURNED), data(pictures, TURNED), steps=1, resume=tmp_path / "run", **QUIET)
    with pytest.raises(OptionError, match=r"tasks\.seg\.dice = 0\.0, not 1\.0"):
        gn.fit(model_of(FIELD, dice=1.0), data(pictures, FIELD), steps=1, resume=tmp_path / "run", **QUIET)
    gn.fit(model_of(FIELD), data(pictures, FIELD), steps=1, resume=tmp_path / "run", **QUIET)


def test_resume_at_the_command_line_notices_a_description_that_was_changed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "data.yaml"
    description.write_text(json.dumps(described(pictures, FIELD)))
    words = ["train", "--backbone", "garnish_b0", "--data", str(description), "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*words, "--train.steps", "1", "--train.batch_size", "1", "--adapter", "Frozen"]) == 0
    description.write_text(json.dumps(described(pictures, TURNED)))
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 2
    assert "was started with tasks.seg.classes = soil, crop, weed, not weed, crop, soil" in capsys.readouterr().err


def test_other_names_are_listed_with_whose_they_are(pictures: Path) -> None:
    with pytest.raises(DataError) as error:
        gn.evaluate(model_of(FIELD), data(pictures, ("cat", "dog", "weed")))
    assert "class 0 is 'cat' in the data and 'soil' in the model" in str(error.value)
    assert "only in the data: cat, dog, only in the model: crop, soil; correct `classes` of the data" in str(
        error.value
    )
    assert 'others="ignore"' in str(error.value)
    with pytest.raises(DataError) as error:
        gn.evaluate(model_of(FIELD), data(pictures, ("soil", "crop", "weed", "sky")))
    assert "4 classes in the data, 3 in the model, only in the data: sky" in str(error.value)
    with pytest.raises(DataError) as error:  # nothing in common, so nothing can be matched
        gn.evaluate(model_of(FIELD), data(pictures, ("a", "b", "c")))
    assert "match" not in str(error.value)
    many = tuple(f"thing {k}" for k in range(60))
    text = difference(gn.Semantic(classes=many), gn.Semantic(classes=many[::-1]))
    assert len(text) < 500 and "… (60 such)" in text


@pytest.mark.parametrize("unnamed", [3, ("class 0", "class 1", "class 2")])
def test_unnamed_classes_are_taken_with_a_line(pictures: Path, caplog: pytest.LogCaptureFixture, unnamed: Any) -> None:
    said = "only the {} knows class names, so ids are taken to mean these: soil, crop, weed"
    with caplog.at_level(logging.WARNING, "garnish"):
        assert 0 <= gn.evaluate(model_of(FIELD), data(pictures, unnamed))["seg"]["miou"] <= 1
    assert said.format("model") in caplog.text
    caplog.clear()
    result = gn.fit(model_of(unnamed), data(pictures, FIELD), data(pictures, unnamed, "val"), steps=1, **QUIET)
    assert [line for line in result.warnings if "class names" in line] == [
        f"data (train): task 'seg': {said.format('data')}"
    ]
    gn.evaluate(model_of(3), data(pictures, 3))
    assert not caplog.text


def test_names_of_the_own_order_say_nothing(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = data(pictures, FIELD)
    gn.evaluate(model_of(FIELD), own)
    result = gn.fit(model_of(FIELD), own, data(pictures, FIELD, "val"), steps=1, **QUIET)
    assert not caplog.text and not [line for line in result.warnings if "task 'seg'" in line]


# ---- matching by name ------------------------------------------------------------------------------------------------


def turned_masks(root: Path, new: Path) -> Path:
    """The same set as FIELD's, written by somebody who numbers the classes as TURNED does."""
    for file in sorted(root.rglob("*.png")):
        to = new / file.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(file))
        if "masks" in file.parts:
            pixels = np.array([2, 1, 0], np.uint8)[pixels]
        Image.fromarray(pixels).save(to)
    return new


def test_matched_by_name_the_same_pictures_have_the_same_numbers(pictures: Path, tmp_path: Path) -> None:
    other = data(turned_masks(pictures, tmp_path / "turned"), TURNED)
    own, model = data(pictures, FIELD), model_of(FIELD)
    matched = gn.match_classes(other, model)
    for one, two in zip(own, matched, strict=True):
        assert torch.equal(one.targets["seg"], two.targets["seg"]) and type(two.targets["seg"]) is type(
            one.targets["seg"]
        )
    assert gn.evaluate(model, matched) == gn.evaluate(model, own)
    assert len(gn.join(own, matched)) == 4
    assert gn.match_classes(other, own).tasks == gn.match_classes(other, own.tasks).tasks == own.tasks
    # what a trunk made of pictures is kept with their labels, so another order is another key
    assert (
        len(
            {
                d.key(0)
                for d in (other, matched, gn.match_classes(other, {"seg": gn.Semantic(classes=FIELD[1:] + FIELD[:1])}))
            }
        )
        == 3
    )
    first, second = model_of(FIELD), model_of(FIELD)
    gn.fit(first, own, steps=2, **QUIET)
    gn.fit(second, matched, steps=2, **QUIET)
    assert all(torch.equal(t, second.own_tensors()[n]) for n, t in first.own_tensors().items())


def test_a_run_on_matched_classes_is_not_resumed_on_others(pictures: Path, tmp_path: Path) -> None:
    """Names rewritten to the model's order, without matching: the same files and tasks, and other ids."""
    matched = gn.match_classes(data(pictures, TURNED), model_of(FIELD))
    gn.fit(model_of(FIELD), matched, steps=2, out=tmp_path / "run", **QUIET)
    with pytest.raises(OptionError, match=r"other training data \(class ids, as they were matched by name\)"):
        gn.fit(model_of(FIELD), data(pictures, FIELD), steps=2, resume=tmp_path / "run", **QUIET)
    again = gn.match_classes(data(pictures, TURNED), model_of(FIELD))
    assert gn.fit(model_of(FIELD), again, steps=2, resume=tmp_path / "run", **QUIET).steps == 2
    # where no id changes, there is nothing to tell apart
    own = data(pictures, FIELD)
    assert identity(gn.match_classes(own, model_of(FIELD))) == identity(own)


def test_names_that_the_model_lacks_are_refused_or_have_no_label(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, model = data(pictures, ("weed", "sky", "soil")), model_of(FIELD)
    with pytest.raises(OptionError, match=r"lacks, first 'sky'.* available: crop, soil, weed.*--match-classes ignore"):
        gn.match_classes(other, model)
    matched = gn.match_classes(other, model, others="ignore")
    assert "pixels of sky have no label" in caplog.text and "no pixel of the classes crop of the model" in caplog.text
    ids = torch.tensor([2] * 16 + [255] * 8 + [0] * 8)
    assert torch.equal(matched[0].targets["seg"].as_subclass(torch.Tensor), ids[:, None].expand(32, 48))
    with pytest.raises(OptionError, match="shares no class"):
        gn.match_classes(data(pictures, ("a", "b", "c")), model, others="ignore")
    with pytest.raises(OptionError, match="no task has class names on both sides"):
        gn.match_classes(data(pictures, 3), model)
    with pytest.raises(OptionError, match="others: expected one of refuse, ignore; got 'drop'"):
        gn.match_classes(other, model, others="drop")  # type: ignore[arg-type]


def test_the_command_line_refuses_and_matches(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = tmp_path / "own.yaml", tmp_path / "turned.yaml"
    own.write_text(json.dumps(described(pictures, FIELD)))
    other.write_text(json.dumps(described(turned_masks(pictures, tmp_path / "turned"), TURNED)))
    model_of(FIELD).save(tmp_path / "bundle")
    words = ["eval", str(tmp_path / "bundle"), "--json", "--data"]
    assert main([*words, str(own)]) == 0
    right = json.loads(capsys.readouterr().out)
    assert main([*words, str(other)]) == 2
    assert capsys.readouterr().err == f"garnish: {other} (test): {SAID}\n"
    assert main([*words, str(other), "--match-classes", "refuse"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == right
    assert (
        f"{other} (test): task 'seg': classes were matched by name with those of the model; 2 of 3 classes got" in err
    )
    assert main([*words, str(own), "--match-classes", "refuse"]) == 0
    assert "matched by name with those of the model; all ids were the same" in capsys.readouterr().err
    # names in the recipe or on the command line are compared as well
    assert main([*words, str(own), "--data.tasks.seg.classes", "[a, b, c]"]) == 2
    assert "only in the data: a, b, c" in capsys.readouterr().err
    assert main([*words, str(own), "--data.tasks.seg.classes", "[sky, crop, weed]", "--match-classes", "refuse"]) == 2
    assert "lacks, first 'sky'" in capsys.readouterr().err
    assert main([*words, str(own), "--data.tasks.seg.classes", "[sky, crop, weed]", "--match-classes", "ignore"]) == 0
    assert "iou/crop" in json.loads(capsys.readouterr().out)["seg"]


def test_training_refuses_a_recipe_that_names_the_classes_otherwise(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "data.yaml"
    description.write_text(json.dumps(described(pictures, FIELD)))
    words = ["train", "--backbone", "garnish_b0", "--data", str(description), "--train.steps", "1", "--quiet"]
    words += ["--out", str(tmp_path / "run"), "--train.batch_size", "1"]
    assert main([*words, "--tasks.seg.classes", "[weed, crop, soil]"]) == 2
    assert "class 0 is 'soil' in the data and 'weed' in the model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---- joined sets -----------------------------------------------------------------------------------------------------


def test_joined_sets_have_one_order_and_take_names_from_one_another(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = data(pictures, FIELD), data(pictures, TURNED)
    with pytest.raises(OptionError, match=r"class 0 is 'weed' in set 2 and 'soil' in a set before") as error:
        gn.join(first, second)
    said = str(error.value).partition("; match them by name: ")[2]
    assert said == "gn.match_classes(second, first)"
    assert len(gn.join(first, eval(said, {"gn": gn, "first": first, "second": second}))) == 4
    second = data(pictures, ("weed", "sky", "soil"))
    with pytest.raises(OptionError, match=r"correct `classes` of set 2, or let what only set 2 knows") as error:
        gn.join(first, second)
    said = str(error.value).rpartition(" as no label: ")[2]
    assert len(gn.join(first, eval(said, {"gn": gn, "first": first, "second": second}))) == 4
    with pytest.raises(OptionError, match=r"has 1 class that the other set lacks, first 'sky'"):
        gn.match_classes(second, first)
    for sets in ((FIELD, 3), (3, FIELD)):
        caplog.clear()
        joined = gn.join(*(data(pictures, classes) for classes in sets))
        assert joined.tasks["seg"].label_names == FIELD and "ids are taken to mean these: soil, crop" in caplog.text
    with pytest.raises(OptionError, match=r"has dice = 1\.0, but 0\.0 in a set before"):
        gn.join(data(pictures, FIELD), data(pictures, 3, dice=1.0))
    with pytest.raises(OptionError, match=r"4 channels \(classes\) in set 2, but for 3"):
        gn.join(data(pictures, FIELD), data(pictures, 4))


# ---- other options that say what labels mean -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "evaluating", "training"),
    [
        (gn.Depth(), gn.Depth(max_metres=80.0), ["max_metres is 80.0 in the data, 10.0 in the model"], 1),
        (gn.Depth(max_metres=80.0), gn.Depth(), ["max_metres is 10.0 in the data, 80.0 in the model"], 1),
        (gn.Depth(), gn.Depth(min_metres=0.1), ["min_metres is 0.1 in the data, 0.001 in the model"], 1),
        (gn.Edges(tolerance_px=5), gn.Edges(), [], 0),  # the data have not set it
        (gn.Edges(), gn.Edges(tolerance_px=5), ["tolerance_px = 5 of the data is not used, but 2"], 1),
        (gn.Edges(), gn.Edges(positive_weight=0.8, weight=1.0), [], 2),
        (gn.Edges(), gn.Edges(processes=2), [], 0),
        (gn.Saliency(), gn.Saliency(f_threshold=0.5), ["f_threshold = 0.5 of the data is not used"], 1),
        (
            gn.Semantic(classes=7),
            gn.Semantic(classes=7, void_if_only_background=True),
            ["void_if_only_background is True in the data, False in the model; the latter is used"],
            1,
        ),
        (gn.Semantic(classes=7, dice=1.0), gn.Semantic(classes=7), [], 0),
        (gn.Semantic(classes=3), gn.Semantic(classes=3, class_weights=(1.0, 2.0, 3.0)), [], 1),
        (gn.Normals(), gn.Normals(weight=1.0), [], 1),
    ],
)
def test_what_other_options_of_the_data_do_is_told(
    mine: Task, theirs: Task, evaluating: list[str], training: int
) -> None:
    assert not difference(mine, theirs)
    found = notes(mine, theirs, training=False)
    assert len(found) == len(evaluating) and all(a in b for a, b in zip(evaluating, found, strict=True))
    assert len(notes(mine, theirs, training=True)) == training


def test_every_option_of_our_tasks_says_what_it_is_about() -> None:
    """An option without a role would be told wherever it differs, the loss's too."""
    for cls in (gn.Semantic, gn.Depth, gn.Normals, gn.Edges, gn.Saliency):
        options = {f.name for f in dataclasses.fields(cls)} - {"weight"}
        assert set(cls.roles) == options, cls.__name__


def test_labels_of_another_task_are_refused_though_they_look_alike() -> None:
    assert difference(gn.Edges(), gn.Saliency()) == (
        "labels are for Saliency in the data, but for Edges in the model; make the two agree"
    )


def test_what_is_told_reaches_whoever_evaluates_and_trains(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = data(pictures, FIELD, f1_class="weed", void_if_only_background=True)
    gn.evaluate(model_of(FIELD), own)
    assert "f1_class = 'weed' of the data is not used, but None of the model" in caplog.text
    result = gn.fit(model_of(FIELD), own, steps=1, **QUIET)
    assert sum("void_if_only_background is True in the data" in line for line in result.warnings) == 1


def test_a_third_partys_options_are_told_unless_it_says_that_they_change_labels() -> None:
    base = type(gn.Depth())

    @dataclass(frozen=True, kw_only=True)
    class Plain(base):  # type: ignore[misc, valid-type]
        roles: ClassVar[Mapping[str, Role]] = {}
        above: str = "sea"

    @dataclass(frozen=True, kw_only=True)
    class Strict(Plain):
        roles: ClassVar[Mapping[str, Role]] = {"above": "labels"}

    assert not difference(Plain(), Plain(above="ground"))
    assert notes(Plain(), Plain(above="ground"), training=False) == [
        "above is 'ground' in the data, 'sea' in the model; the latter is used"
    ]
    assert difference(Strict(), Strict(above="ground")) == (
        "labels have above = 'ground' in the data, but 'sea' in the model; make the two agree"
    )
