"""Every remedy that a message about data names is tried: make the fault, read the message, do what it says, look again.

What stands in backticks and reads as YAML is taken from the message itself; where a person must fill in names or
numbers (`[ids]`, `{class name: [r, g, b]}`), or save a file anew, the case says how.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from garnish.data.check import check
from garnish.data.description_file import read_description
from garnish.data.folder import folder
from garnish.errors import GarnishError
from picture_files import write_pgm, write_png, write_tiff

SHAPE = (4, 6)


def u8(value: float) -> np.ndarray:
    """A map of zeros with a first row of ``value``."""
    values = np.zeros(SHAPE, np.uint8)
    values[0] = value
    return values


def floats(value: float) -> np.ndarray:
    values = np.ones(SHAPE, np.float32)
    values[0] = value
    return values


def colour(*rgb: int) -> np.ndarray:
    values = np.zeros((*SHAPE, 3), np.uint8)
    values[0] = rgb
    return values


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


PART = np.where(np.arange(3) == 0, np.float32(np.nan), np.zeros((*SHAPE, 3), np.float32))  # x of normals is missing
ENDLESS, LONG = np.full((*SHAPE, 3), np.inf, np.float32), np.full((*SHAPE, 3), 9, np.float32)
AWAY = np.zeros((*SHAPE, 3), np.float32) + np.float32([0.6, 0, 0.8])
AWAY[1:, ::2, 0] *= -1
AWAY[0] = 0
NORMALS, CMYK = {"task": "Normals"}, u8(1)[..., None].repeat(4, -1)
SEG = {"task": "Semantic", "classes": ["a", "b", "c"]}
COLOURS = {"colours": {"a": [0, 0, 0], "b": [9, 8, 7]}}
DEPTH = {"task": "Depth", "max_metres": 80}


def one_set(root: Path, values: np.ndarray, entry: dict[str, Any]) -> dict[str, Any]:
    suffix = ".png" if values.dtype in (np.uint8, np.uint16, bool) else ".npy"
    save(root / "images/p.png", colour(1, 2, 3))
    save(root / f"labels/p{suffix}", values)
    return {"path": str(root), "images": "images/*", "tasks": {"t": {"labels": f"labels/{{name}}{suffix}", **entry}}}


def faults(given: dict[str, Any]) -> list[str]:
    """What reading and checking a set says, errors and warnings."""
    try:
        data = folder(given)
        data[0]
    except GarnishError as error:
        assert "\n" not in str(error)
        return [str(error)]
    report = check(data)
    small = ("hold one", "hold no labelled pixel", "no pixel of the class")  # what maps of a few pixels are
    return [*report.errors, *[w for w in report.warnings if not any(text in w for text in small)]]


def yaml_in(message: str) -> list[dict[str, Any]]:
    """The options that a message writes out, in its order."""
    found = [yaml.safe_load(text) for text in re.findall(r"`(\w+: [^`]+)`", message)]
    return [option for option in found if isinstance(option, dict)]


# remedies that the message writes out, word by word

WRITTEN = [
    # (label, task and options, how many remedies, first row of the target after each)
    ("negative id", np.where(u8(1) > 0, -1, 0), SEG, [255]),
    ("id beyond the classes", u8(7), SEG, [255]),
    ("id that is not mapped", u8(7), {**SEG, "map": {0: 0}}, [255, 7]),
    ("colour that is not listed", colour(9, 9, 9), {**SEG, "colours": {"a": [0, 0, 0]}}, [255]),
    ("grey levels", u8(200), {"task": "Saliency"}, [1]),
    ("soft map", floats(1) * 0.25 + 0.5 * (u8(1) > 0), {"task": "Saliency"}, [1]),
    ("deep grey levels", u8(1).astype(np.uint16) * 60000, {"task": "Edges"}, [1]),
    ("0, 1 and 255", u8(1) + 255 * u8(1)[::-1], {"task": "Saliency"}, [1, 1]),
    ("whole depth", u8(20).astype(np.uint16) * 100, DEPTH, [2.0]),
    ("NaN depth", floats(np.nan), DEPTH, [0]),
    ("infinite depth", floats(np.inf), DEPTH, [0]),
    ("depth of minus infinity", floats(-np.inf), DEPTH, [0]),
    ("packed depth", colour(5, 1, 0), {**DEPTH, "unit": "cm"}, [2.61]),
    ("packed ids", colour(2, 0, 0), SEG, [2]),
    ("NaN normals", np.where(u8(1)[..., None] > 0, np.nan, np.float32([0, 0, -1])), {"task": "Normals"}, [0]),
    (
        "normals of another frame",
        AWAY,
        NORMALS,
        [0],
    ),
]


@pytest.mark.parametrize(("values", "entry", "first"), [c[1:] for c in WRITTEN], ids=[c[0] for c in WRITTEN])
def test_options_that_a_message_writes_out(tmp_path, values, entry, first):
    given = one_set(tmp_path, values, entry)
    (message,) = faults(given)
    options = [
        o
        for o in yaml_in(message)
        if not any(word in str(o) for word in ("class name", "ids", "per step", "RelativeDepth"))  # FILLED has those
    ]
    if "map" in entry:  # `others: same` keeps 7, of which there must be a class
        given["tasks"]["t"]["classes"] = 8
    assert len(options) == len(first), message
    for option, wanted in zip(options, first, strict=True):
        remedied = {**given, "tasks": {"t": {**given["tasks"]["t"], **option}}}
        assert not faults(remedied), option
        assert float(folder(remedied)[0].targets["t"].reshape(-1)[0]) == pytest.approx(wanted), option


# remedies that a person fills in

FILLED: list[tuple[str, np.ndarray, dict[str, Any], str, dict[str, Any]]] = [
    ("negative id, mapped", np.where(u8(1) > 0, -1, 0), SEG, "list it under `map`", {"map": {-1: 1, 0: 0}}),
    ("id beyond, mapped", u8(7), SEG, "list it under `map`", {"map": {7: 1, 0: 0}}),
    ("id beyond, another class", u8(3), SEG, "add the class", {"classes": ["a", "b", "c", "d"]}),
    ("id not mapped, listed", u8(7), {**SEG, "map": {0: 0}}, "list it", {"map": {0: 0, 7: 2}}),
    ("id not mapped, ignored", u8(7), {**SEG, "map": {0: 0}}, "add it to `ignore`", {"ignore": 7}),
    ("colours", colour(9, 8, 7), SEG, "`colours: {class name: [r, g, b]}`", COLOURS),
    ("colours by kind", colour(9, 8, 7), {**SEG, "kind": "colours"}, "`colours: {class name: [r, g, b]}`", COLOURS),
    ("colour listed", colour(9, 8, 7), {**SEG, "colours": {"a": [0, 0, 0]}}, "list it", COLOURS),
    ("map of ids", u8(7), {"task": "Saliency"}, "`positive: [ids]`", {"positive": [7]}),
    ("depth in steps", u8(7), DEPTH, "`scale: metres per step`", {"scale": 0.5}),
    ("depth without a unit", u8(20).astype(np.uint16) * 100 + 1, DEPTH, "`task: RelativeDepth` where it has none",
     {"task": "RelativeDepth", "larger": "nearer", "max_metres": None}),
    ("unit of depth", floats(2) * 3000, DEPTH, "set the unit", {"unit": "mm"}),
    ("range of depth", floats(300) * 300, DEPTH, "or the range", {"max_metres": 1e6}),
    ("packed without colours", u8(7), {**DEPTH, "unit": "m", "packed": [1, 256, 0]}, "leave `packed` out",
     {"packed": None}),
    ("axes", AWAY, NORMALS, "or `axes`",
     {"axes": "x right, y down, z backward"}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "entry", "told", "option"), [c[1:] for c in FILLED], ids=[c[0] for c in FILLED])
def test_options_that_a_message_names(tmp_path, values, entry, told, option):
    given = one_set(tmp_path, values, entry)
    message = " ".join(faults(given))
    assert told in message
    given["tasks"]["t"] |= option
    given["tasks"]["t"] = {k: v for k, v in given["tasks"]["t"].items() if v is not None}
    assert not faults(given)


# remedies that change the file

RESAVED: list[tuple[str, np.ndarray, dict[str, Any], str, np.ndarray]] = [
    ("ids that are not whole", floats(0.5), SEG, "save ids as whole numbers", u8(1)),
    ("NaN ids", floats(np.nan), SEG, "write 255 where there is no label", u8(255)),
    ("NaN in a map", floats(np.nan), {"task": "Saliency", "threshold": 0.5}, "write 0 or 255 there", u8(255)),
    ("colours of a map", colour(1, 2, 3), {"task": "Edges"}, "save one number per pixel", u8(255)),
    ("one channel of normals", u8(9), {"task": "Normals"}, "save x, y, z as RGB", colour(10, 10, 10)),
    ("normals of 32 bits", colour(1, 2, 3).astype(np.int32), NORMALS, "save them as 8-bit RGB", colour(9, 9, 9)),
    ("part of a normal", PART, NORMALS, "repair the file", colour(9, 9, 9)),
    ("infinite normals", ENDLESS, NORMALS, "repair the file", colour(9, 9, 9)),
    ("long normals", LONG, NORMALS, "scale floats to [-1, 1]", colour(9, 9, 9)),
    ("many bands", np.zeros((*SHAPE, 5), np.float32), SEG, "save (height, width)", u8(1)),
    ("another size", np.zeros((3, 5), np.uint8), SEG, "resize the label", u8(1)),
    ("no pixels", np.zeros((0, 6), np.float32), SEG, "write the label again", u8(1)),
    ("deep colours", np.full((*SHAPE, 3), 300, np.uint16), {**SEG, "colours": {"a": [0, 0, 0], "b": [9, 0, 0]}},
     "save an RGB PNG", colour(9, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("values", "entry", "told", "anew"), [c[1:] for c in RESAVED], ids=[c[0] for c in RESAVED])
def test_labels_saved_as_a_message_says(tmp_path, values, entry, told, anew):
    if values.dtype == np.uint16:
        given = one_set(tmp_path, u8(0), entry)
        write_png(tmp_path / "labels/p.png", values)
    else:
        given = one_set(tmp_path, values, entry)
    assert told in faults(given)[0]
    again = one_set(tmp_path, anew, entry)
    assert not [f for f in faults(again) if "point away" not in f]


def deep(bands: int) -> np.ndarray:
    return np.full((*SHAPE, bands), 40000, np.uint16)


#: a file that is refused as a label, what is told, and the file that it says to save
FILES: list[tuple[str, Callable[[Path], Path], str, Callable[[Path], Path]]] = [
    ("2-bit grey", lambda p: write_png(p / "a.png", np.ones((*SHAPE, 1), int), 2), "save it with 8 bits",
     lambda p: write_png(p / "a.png", np.ones((*SHAPE, 1), int), 8)),
    ("two pages", lambda p: write_tiff(p / "a.tif", deep(1), pages=(0, 0)), "as a file of its own",
     lambda p: write_tiff(p / "a.tif", deep(1))),
    ("five bands", lambda p: write_tiff(p / "a.tif", u8(1)[..., None].repeat(5, -1), extra=(0, 0)), "save RGB",
     lambda p: write_tiff(p / "a.tif", u8(1)[..., None].repeat(3, -1))),
    ("two bands", lambda p: write_tiff(p / "a.tif", u8(1)[..., None].repeat(2, -1), extra=(0,)), "one band",
     lambda p: write_tiff(p / "a.tif", u8(1)[..., None])),
    ("deep TIFF", lambda p: write_tiff(p / "a.tif", deep(3)), "save one band, a PNG or .npy",
     lambda p: write_tiff(p / "a.tif", deep(1))),
    ("deep TIFF, PNG", lambda p: write_tiff(p / "a.tif", deep(3)), "save one band, a PNG or .npy",
     lambda p: write_png(p / "a.tif", deep(3))),
    ("deep bands", lambda p: write_tiff(p / "a.tif", deep(5), extra=(0, 0)), "one band of 8, 16 or 32 bits",
     lambda p: write_tiff(p / "a.tif", deep(1))),
    ("float bands", lambda p: write_tiff(p / "a.tif", np.zeros((*SHAPE, 3), np.float32)), "save RGB of 8 bits",
     lambda p: write_tiff(p / "a.tif", np.zeros((*SHAPE, 3), np.uint8))),
    ("signed bytes", lambda p: write_tiff(p / "a.tif", u8(1)[..., None].astype(np.int8)), "save 16 bits",
     lambda p: write_tiff(p / "a.tif", u8(1)[..., None].astype(np.int16))),
    ("white is zero", lambda p: write_tiff(p / "a.tif", deep(1), photometric=0), "save it with black as zero",
     lambda p: write_tiff(p / "a.tif", deep(1))),
    ("large numbers", lambda p: write_tiff(p / "a.tif", deep(1).astype(np.uint32) * 2**16), "save it as .npy",
     lambda p: save(p / "a.npy", deep(1).astype(np.uint32) * 2**16)),
    ("scaled levels", lambda p: write_pgm(p / "a.pgm", u8(1), 100), "with a largest level of 255",
     lambda p: write_pgm(p / "a.pgm", u8(1), 255)),
    ("CMYK", lambda p: write_tiff(p / "a.tif", CMYK, photometric=5), "save it as RGB or grey PNG",
     lambda p: write_png(p / "a.tif", u8(1)[..., None].repeat(3, -1), 8)),
    ("not opaque", lambda p: write_png(p / "a.png", deep(4)), "save it without alpha",
     lambda p: write_png(p / "a.png", deep(3))),
    ("AVIF", lambda p: save(p / "a.avif", u8(1)), "save the label as PNG", lambda p: save(p / "a.png", u8(1))),
    ("objects", lambda p: save(p / "a.npy", np.array([{}], object)), "save it again with numpy.save",
     lambda p: save(p / "a.npy", u8(1))),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "told", "mended"), [c[1:] for c in FILES], ids=[c[0] for c in FILES])
def test_label_files_saved_as_a_message_says(tmp_path, fault, told, mended):
    from garnish.files.label_files import read_array

    with pytest.raises(GarnishError) as error:
        read_array(fault(tmp_path))
    assert told in str(error.value)
    assert read_array(mended(tmp_path)).size


def test_descriptions_that_a_message_writes_out(tmp_path):
    given = one_set(tmp_path, u8(1), {**SEG})
    save(tmp_path / "depth/p.png", u8(9).astype(np.uint16) * 100)
    (message,) = faults({**given, "tasks": {}})
    (option,) = yaml_in(message)
    assert not faults({**given, **option})

    (message,) = faults({**given, "images": "images"})
    pattern = re.search(r'such as "(.*?)";', message)
    assert pattern is not None
    read_description({**given, "images": pattern[1]})

    entry = {k: v for k, v in given["tasks"]["t"].items() if k != "labels"}
    (message,) = faults({**given, "tasks": {"t": entry}})
    template = re.search(r'such as "(.*?)"', message)
    assert template is not None
    read_description({**given, "tasks": {"t": {**entry, "labels": template[1]}}})

    with pytest.raises(GarnishError) as error:
        folder(given, "val")
    listed, held = yaml_in(str(error.value))[-2:]
    (tmp_path / "val.txt").write_text("p\n")
    assert len(folder({**given, **listed}, "val")) == 1
    for name in "qrst":
        save(tmp_path / f"images/{name}.png", colour(1, 2, 3))
        save(tmp_path / f"labels/{name}.png", u8(1))
    assert len(folder({**given, **held}, "val")) == 1
    for name in "qrst":
        (tmp_path / f"images/{name}.png").unlink()
    assert "ask for split 'all'" in str(error.value)
    assert len(folder(given, "all")) == 1


# folders without a description: the YAML of the message, saved where it says, with the one thing corrected


@pytest.mark.parametrize(
    ("kind", "values", "corrected"),
    [
        ("masks", u8(200), {"map": {0: 0, 200: 1}}),
        ("masks", u8(0), {}),
        ("masks", colour(200, 0, 0), {"colours": {"background": [0, 0, 0], "thing": [200, 0, 0]}}),
        ("depth", u8(200), {"scale": 0.02}),
        ("depth", colour(9, 9, 0), {}),
        ("edges", u8(200), {}),
    ],
)
@pytest.mark.parametrize("split", ["", "training/"])
def test_ready_descriptions(tmp_path, kind, values, corrected, split):
    save(tmp_path / f"images/{split}p.png", colour(1, 2, 3))
    save(tmp_path / f"{kind}/{split}p.png", values)
    try:
        folder(tmp_path)
    except GarnishError as error:
        place, ready = re.search(r"save this as (\S+) there, correct it and give that file: (.*)", str(error)).groups()
        given = yaml.safe_load(ready)
        next(iter(given["tasks"].values())).update(corrected)
        (tmp_path / place).write_text(yaml.safe_dump(given))
    else:  # ids with gaps and colours need nothing, either
        assert kind == "edges" or (kind == "masks" and len(np.unique(values)) == 2)
    assert float(folder(tmp_path)[0].targets[next(iter(folder(tmp_path).tasks))].max()) > 0 or not values.any()
