"""The public functions, given what they do not take: one line of ours that says what is accepted; and what is taken."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
from garnish.checking.arguments import Options
from garnish.checking.plain_data import fits
from garnish.errors import DataError, GarnishError, OptionError

TASKS = ("seg", "depth")
FIT: dict[str, Any] = {"steps": 1, "batch_size": 1, "progress": False, "log": (), "check_pictures": 0}


class Plain(torch.utils.data.Dataset[Any]):
    """A data set of torch, which says neither its tasks nor its name, and never ends."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(3, 32, 32), torch.zeros(32, 32)


@dataclasses.dataclass
class Given:
    """What the calls need beside the wrong value."""

    trunk: Any
    data: Any
    model: Any
    maps: Any
    folder: Path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    data = gn.Scenes(2, size=32, tasks=TASKS)
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), data.tasks).eval()
    model.save(folder / "bundle")
    return Given(gn.backbone("garnish_b0"), data, model, model.predict(Image.new("RGB", (30, 20))), folder)


NOTHING: dict[str, Any] = {
    "None": None,
    "int": 3,
    "float": 1.5,
    "bytes": b"abc",
    "text": "no/such",
    "list": [1],
    "list of text": ["no/such"],
    "dict": {"a": 1},
    "object": object(),
    "class": gn.LoRA,
    "array": np.zeros((20, 30, 3), np.uint8),
    "tensor": torch.zeros(1, 3, 32, 32, dtype=torch.int64),
    "PIL": Image.new("RGB", (30, 20)),
    "method": gn.LoRA(rank=1),
    "task": gn.Depth(),
    "head": gn.LinearHead(),
    "torch data": Plain(),
}
#: what is called → the call, what it says it takes, and which of NOTHING it does take
CALLS: dict[str, tuple[Callable[[Given, Any], Any], str, str]] = {
    "model.predict": (lambda g, w: g.model.predict(w), "picture", "array,PIL"),
    "model.predict tasks": (lambda g, w: g.model.predict(Image.new("RGB", (30, 20)), w), "task", "None"),
    "model": (lambda g, w: g.model(w), "pictures", ""),
    "model tasks": (lambda g, w: g.model(torch.zeros(1, 3, 32, 32), w), "task", "None"),
    "model.head": (lambda g, w: g.model.head(w), "task", ""),
    "model.head_tensors": (lambda g, w: g.model.head_tensors(w), "task", ""),
    "model.freeze": (lambda g, w: g.model.freeze(w), "task", ""),
    "model.report": (lambda g, w: g.model.report(w), "size", "None"),
    "model.add": (lambda g, w: g.model.add(gn.LoRA(rank=1), w), "tasks", ""),
    "model.save": (lambda g, w: g.model.save(w), "path", "text"),
    "model.save metrics": (lambda g, w: g.model.save(g.folder / "b", metrics=w), "metrics", "None"),
    "model.save tasks": (lambda g, w: g.model.save(g.folder / "b", tasks=w), "task", "None"),
    "model.save dtype": (lambda g, w: g.model.save(g.folder / "b", dtype=w), "dtype", ""),
    "gn.Model": (lambda g, w: gn.Model(w), "a backbone (of gn.backbone)", ""),
    "gn.save": (lambda g, w: gn.save(w, g.folder / "b"), "a model (of gn.adapt", ""),
    "gn.backbone": (lambda g, w: gn.backbone(w), "", ""),
    "gn.backbone weights": (lambda g, w: gn.backbone("garnish_b0", w), "weights", "None"),
    "gn.backbone options": (lambda g, w: gn.backbone("mit_b0", options=w), "option", "None"),
    "gn.backbone taps": (lambda g, w: gn.backbone("garnish_b0", taps=w), "taps", ""),
    "gn.finished": (lambda g, w: gn.finished(w), "", ""),
    "gn.adapt": (lambda g, w: gn.adapt(w, gn.LoRA(rank=1), g.data.tasks), "a backbone (of gn.backbone)", ""),
    "gn.adapt method": (lambda g, w: gn.adapt(g.trunk, w, g.data.tasks), "a method such as", "method"),
    "gn.adapt tasks": (lambda g, w: gn.adapt(g.trunk, gn.LoRA(rank=1), w), "a task such as", ""),
    "gn.adapt head": (lambda g, w: gn.adapt(g.trunk, gn.LoRA(rank=1), g.data.tasks, w), "a head such as", "None,head"),
    "gn.fit": (lambda g, w: gn.fit(w, g.data, **FIT), "a model (of gn.adapt", ""),
    "gn.fit train": (lambda g, w: gn.fit(g.model, w, **FIT), "data (of gn.folder", ""),
    "gn.fit val": (lambda g, w: gn.fit(g.model, g.data, w, **FIT), "data (of gn.folder", "None"),
    "gn.fit steps": (lambda g, w: gn.fit(g.model, g.data, **(FIT | {"steps": w})), "steps", "int"),
    "gn.fit balance": (lambda g, w: gn.fit(g.model, g.data, balance=w, **FIT), "balanc", "None"),
    "gn.evaluate": (lambda g, w: gn.evaluate(w, g.data), "a model (of gn.adapt", ""),
    "gn.evaluate data": (lambda g, w: gn.evaluate(g.model, w), "data (of gn.folder", ""),
    "gn.evaluate tasks": (lambda g, w: gn.evaluate(g.model, g.data, tasks=w), "task", "None"),
    "gn.evaluate size": (lambda g, w: gn.evaluate(g.model, g.data, size=w), "height and width", "None"),
    "gn.folder": (lambda g, w: gn.folder(w), "", ""),
    "gn.folder tasks": (lambda g, w: gn.folder(g.folder, tasks=w), "", ""),
    "gn.Scenes": (lambda g, w: gn.Scenes(w), "a whole number", "int"),
    "gn.join": (lambda g, w: gn.join(g.data, w), "data (of gn.folder", ""),
    "gn.check": (lambda g, w: gn.check(w), "data (of gn.folder", ""),
    "gn.match_classes": (lambda g, w: gn.match_classes(w, g.model), "data (of gn.folder", ""),
    "gn.match_classes like": (lambda g, w: gn.match_classes(g.data, w), "a model (of gn.adapt", ""),
    "gn.load": (lambda g, w: gn.load(w), "", ""),
    "gn.load backbone": (lambda g, w: gn.load(g.folder / "bundle", backbone=w), "backbone", "None"),
    "gn.load device": (lambda g, w: gn.load(g.folder / "bundle", device=w), "device", "None"),
    "gn.merge": (lambda g, w: gn.merge(w, g.folder / "m"), "", ""),
    "gn.export_peft": (lambda g, w: gn.export_peft(w, g.folder / "p"), "a model (of gn.adapt", ""),
    "gn.import_peft": (lambda g, w: gn.import_peft(w), "", ""),
    "maps.save": (lambda g, w: g.maps.save(w), "a path", "text"),
    "maps.write": (lambda g, w: g.maps.write(w), "a path", "text"),
    "maps[…]": (lambda g, w: g.maps[w], "no map of task", ""),
    "LoRA": (lambda g, w: gn.LoRA(rank=w), "LoRA.rank: expected a whole number", "int"),
    "LoRA layers": (lambda g, w: gn.LoRA(layers=w), "LoRA.layers: expected a list of text", "list of text"),
    "Semantic": (lambda g, w: gn.Semantic(classes=w), "Semantic.classes", "int"),
    "Depth": (lambda g, w: gn.Depth(max_metres=w), "Depth.max_metres: expected a number", "int,float"),
    "SegFormerHead": (lambda g, w: gn.SegFormerHead(channels=w), "SegFormerHead.channels", "int"),
    "Uncertainty": (lambda g, w: gn.Uncertainty(weight_decay=w), "Uncertainty", ""),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_taken_is_refused_in_one_line(name: str, given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    call, says, takes = CALLS[name]
    monkeypatch.chdir(given.folder)
    for kind, wrong in NOTHING.items():
        if kind in takes.split(","):
            continue
        with pytest.raises(GarnishError) as error:
            call(given, wrong)
        text = str(error.value)
        assert "\n" not in text and len(text) < 400, (kind, text)
        if kind not in ("text", "list of text"):  # which may be of the right type, and names nothing
            assert says in text, (kind, text)


# ---- one picture -----------------------------------------------------------------------------------------------------


def test_a_picture_may_be_a_file_an_array_or_of_pil_or_torch(given: Given, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [pixels, pixels[::-1][::-1], Image.fromarray(pixels), chw, tmp_path / "a.png", str(tmp_path / "a.png")]
    found = [given.model.predict(picture) for picture in same]
    assert all(torch.equal(f["depth"], found[0]["depth"]) for f in found)
    assert np.array_equal(found[0].picture, pixels) and found[0].picture is not pixels
    grey = pixels[..., 0]
    assert torch.equal(
        given.model.predict(grey)["seg"], given.model.predict(np.stack([grey] * 3, -1))["seg"]
    ) and torch.equal(given.model.predict(grey)["seg"], given.model.predict(Image.fromarray(grey))["seg"])


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((20, 30, 3), np.float32), r"a picture array must be \(H, W, 3\) RGB or \(H, W\) grey, uint8; got"),
        (np.zeros((20, 30, 4), np.uint8), r"\(20, 30, 4\) uint8"),
        (np.zeros((3, 20, 30), np.uint8), r"\(3, 20, 30\) uint8"),
        (np.zeros((2, 20, 30, 3), np.uint8), r"\(2, 20, 30, 3\) uint8"),
        (np.zeros((20, 30), np.uint16), "uint16"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels: 5x0"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), "no pixels: 5x0"),
        (Image.new("RGB", (0, 4)), "no pixels: 0x4"),
        (torch.zeros(20, 30, 3, dtype=torch.uint8), r"must be \(3, H, W\) uint8, got \(20, 30, 3\)"),
        (torch.zeros(3, 20, 30), "float32"),
        (torch.zeros(3, 20, 30, dtype=torch.uint8, device="meta"), "must be"),
        ([np.zeros((20, 30, 3), np.uint8)], "predict: picture: expected .*, got list of ndarray"),
    ],
)
def test_what_is_no_picture_is_said(given: Given, picture: Any, says: str) -> None:
    with pytest.raises((DataError, OptionError), match=says):
        given.model.predict(picture)


@pytest.mark.parametrize(
    "picture",
    [
        np.ones((20, 30, 3), np.float32),
        np.ones((20, 30), np.float64),
        np.zeros((3, 20, 30), np.uint8),
        np.ones((3, 20, 30), np.float32),
        np.ones((1, 3, 20, 30), np.float32),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((2, 20, 30, 3), np.uint8),
        torch.ones(3, 20, 30),
        torch.zeros(20, 30, 3, dtype=torch.uint8),
        torch.ones(20, 30, 3),
        torch.zeros(1, 3, 20, 30, dtype=torch.uint8),
        torch.ones(4, 20, 30),
    ],
)
def test_the_conversion_that_is_named_makes_a_picture(given: Given, picture: Any) -> None:
    with pytest.raises(DataError, match=r"; give .*picture") as error:
        given.model.predict(picture)
    said = str(error.value).rpartition("; give ")[2]
    code = said.removesuffix(" where 1 is white").removesuffix(" (one call a picture)")
    assert ("where 1 is white" in said) == ("float" in str(picture.dtype))
    right = eval(code, {"picture": picture, "numpy": np, "torch": torch})
    found = given.model.predict(right)
    assert found.picture.shape == (20, 30, 3) and (found.picture == (255 if "float" in str(picture.dtype) else 0)).all()


def test_folders_and_several_pictures_are_said_to_be_so(given: Given) -> None:
    with pytest.raises(DataError, match="is a folder; one call a picture"):
        given.model.predict(given.folder)
    for several in (["a.png", "b.png"], [Image.new("RGB", (30, 20))], (np.zeros((20, 30, 3), np.uint8),)):
        with pytest.raises(OptionError, match=r"^predict: picture: expected .*; one call a picture$"):
            given.model.predict(several)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda g: gn.backbone("garnish_b0", drop_path_rate=0.1),
            r"unknown argument .*'drop_path_rate'.* 'drop_path'\?",
        ),
        (lambda g: gn.backbone("mit_b0", droppath=0.1), r"\(what it builds has options: options=\{'droppath': …\}\)"),
        (
            lambda g: gn.load(g.folder / "bundle", devise="cpu"),
            "load: unknown argument 'devise'; did you mean 'device'",
        ),
        (lambda g: gn.load(), "load: missing a required argument: 'path'; it takes path, backbone, weights, device"),
        (lambda g: gn.join(sets=[g.data]), "join: unknown argument 'sets'; available: none"),
        (lambda g: gn.check(g.data, 3), "check: too many positional arguments; it takes dataset, limit"),
        (lambda g: gn.check(g.data, dataset=g.data), "check: multiple values for argument 'dataset'; it takes"),
        (lambda g: gn.fit(), "fit: missing a required argument: 'model'; it takes model"),
        (lambda g: g.model.predict(), "predict: missing a required argument: 'picture'; it takes picture, tasks"),
        (lambda g: g.model.report(sise=3), "report: unknown argument 'sise'; did you mean 'size'"),
        (lambda g: gn.Model(), "Model: missing a required argument: 'backbone'; it takes backbone"),
        (lambda g: gn.Semantic(), r"Semantic: option 'classes' is required: Semantic\(classes=…\)"),
    ],
)
def test_arguments_that_lack_or_are_unknown_are_named(given: Given, call: Callable[[Given], Any], says: str) -> None:
    with pytest.raises(OptionError, match=says) as error:
        call(given)
    assert "\n" not in str(error.value)


def test_options_that_are_required_are_copied_and_pickled() -> None:
    task = gn.Semantic(classes=3)
    assert copy.copy(task) == copy.deepcopy(task) == pickle.loads(pickle.dumps(task)) == task
    assert dataclasses.replace(task, classes=4) == gn.Semantic(classes=4)


def test_counts_are_told_in_the_singular_too(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    gn.fit(given.model, gn.Scenes(1, size=32, tasks=TASKS), **(FIT | {"progress": True}))
    assert "1 picture, 1 step of 1 picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(3, 32, 32), r"must be \(N, 3, H, W\), got \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), r"got \(1, 1, 32, 32\)"),
        (torch.zeros(1, 3, 0, 32), r"got \(1, 3, 0, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "pictures are torch.int64; give uint8"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.bool), "pictures are torch.bool"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.complex64), "pictures are torch.complex64"),
        (torch.full((1, 3, 32, 32), 200.0), "floats up to 200; divide by 255"),
    ],
)
def test_a_batch_that_would_be_read_wrongly_is_refused(given: Given, images: torch.Tensor, says: str) -> None:
    with torch.no_grad(), pytest.raises(OptionError, match=says):
        given.model(images)


# ---- options by name -------------------------------------------------------------------------------------------------


def test_options_are_named_known_and_may_be_copied() -> None:
    with pytest.raises(OptionError, match=r"LoRA: options are given by name: LoRA\(per_task=…\)"):
        gn.LoRA(8)
    with pytest.raises(OptionError, match="LoRA: unknown option 'rnk'; did you mean 'rank'"):
        gn.LoRA(rnk=8)
    method = gn.LoRA(rank=np.int64(4))
    for other in (copy.copy(method), copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert other == method
    assert dataclasses.replace(method, rank=5).rank == 5
    with pytest.raises(OptionError, match="expected a whole number from 1 to 65,536, got str '5'"):
        dataclasses.replace(method, rank="5")


def test_a_third_partys_options_need_no_annotations_that_can_be_found() -> None:
    class Hidden:
        pass

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own(Options):
        what: Hidden

    assert Own(what=3).what == 3  # type: ignore[arg-type]


def test_an_empty_list_of_methods_is_not_taken_for_none(given: Given) -> None:
    with pytest.raises(OptionError, match=r"method is an empty list; name one, or garnish\.Frozen\(\)"):
        gn.adapt(given.trunk, [], given.data.tasks)


@pytest.mark.parametrize(
    ("value", "hint", "fitting"),
    [
        (True, int, False),
        (np.float32(1), float, True),
        (2, float, True),
        (1.0, int, False),
        (10**400, float, False),
        (Fraction(1, 3), float, False),
        ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False),
        ("seg", list[str] | str, True),
        ({"a": 1}.keys(), "sequence", True),
        ("abc", "sequence", False),
    ],
)
def test_what_fits(value: Any, hint: Any, fitting: bool) -> None:
    from collections.abc import Sequence

    assert fits(value, Sequence[str] if hint == "sequence" else hint) is fitting


def test_lists_in_lists_without_end_are_refused_in_one_line() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(
        OptionError, match=r"^LoRA\.layers: expected a list of text, at most 4,096 of them, got list of list$"
    ):
        gn.LoRA(layers=endless)


@pytest.mark.parametrize("size", [(0, 32), (32, -1)])
def test_a_size_without_pixels_is_refused(given: Given, size: tuple[int, int]) -> None:
    with pytest.raises(
        OptionError,
        match=r"evaluate: size: expected one of own, train or height and width, each from 1 to 65,536 .*, got tuple",
    ):
        gn.evaluate(given.model, given.data, size=size)
    with pytest.raises(OptionError, match=r"^fit: eval_size: expected height and width, .*, got tuple"):
        gn.fit(given.model, given.data, given.data, eval_size=size, **FIT)
