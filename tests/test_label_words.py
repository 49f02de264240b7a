"""Colours as text, Pascal's palette, and ids that are class × K + instance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.data.labels.choosing import reader_of
from garnish.data.labels.colour_text import pascal_colours
from garnish.data.labels.reader import decode
from garnish.data.labels.written import written
from garnish.errors import DataError, OptionError
from garnish.tasks.edges import Edges
from garnish.tasks.semantic import Semantic

#: The colours of the development kit of VOC 2012, as its users print them.
VOC = {
    "background": (0, 0, 0), "aeroplane": (128, 0, 0), "bicycle": (0, 128, 0), "bird": (128, 128, 0),
    "boat": (0, 0, 128), "bottle": (128, 0, 128), "bus": (0, 128, 128), "car": (128, 128, 128), "cat": (64, 0, 0),
    "chair": (192, 0, 0), "cow": (64, 128, 0), "diningtable": (192, 128, 0), "dog": (64, 0, 128),
    "horse": (192, 0, 128), "motorbike": (64, 128, 128), "person": (192, 128, 128), "pottedplant": (0, 64, 0),
    "sheep": (128, 64, 0), "sofa": (0, 192, 0), "train": (128, 192, 0), "tvmonitor": (0, 64, 128),
}  # fmt: skip
VOID = (224, 224, 192)


def read(values: np.ndarray, task, file: Path, **options) -> np.ndarray:
    reader = reader_of({"labels": "{name}.png", **options}, task, "set: tasks.seg")
    Image.fromarray(values).save(file)
    raw, _ = reader.load(file, "x", values.shape[:2])
    return decode(raw, reader, file, task)


def test_the_palette_of_pascal(tmp_path):
    assert pascal_colours(256)[:21] == list(VOC.values())
    assert pascal_colours(256)[255] == VOID
    assert len(set(pascal_colours(256))) == 256
    colours = np.array([[*VOC.values(), VOID]], np.uint8)
    seg = Semantic(classes=tuple(VOC))
    ids = read(colours, seg, tmp_path / "x.png", colours="voc")
    assert ids.tolist() == [[*range(21), 255]]
    two = Semantic(classes=2)
    with pytest.raises(DataError, match=r"the colour \[0, 0, 128\], which `colours` does not list"):
        read(colours, two, tmp_path / "x.png", colours="voc")
    with pytest.raises(OptionError, match="colours"):
        read(colours, two, tmp_path / "x.png", colours="pascal")


@pytest.mark.parametrize(
    "written", ["#ff8000", "#FF8000", "#f80", "255 128 0", "255, 128,0", ["255", "128", "0"], [255, 128, 0]]
)
def test_colours_as_text(tmp_path, written):
    seg = Semantic(classes=("a", "b"))
    wanted = (255, 136, 0) if written == "#f80" else (255, 128, 0)
    values = np.array([[wanted, (0, 0, 0)]], np.uint8)
    for given in (written, [written, "#123456"] if isinstance(written, str) else [written, [1, 2, 3]]):
        ids = read(values, seg, tmp_path / "x.png", colours={"a": given, "b": "#000"})
        assert ids.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "bad", ["ff8000", "#ff80", "#ff80000", "red", "255 128", "255 128 256", "1 2 3 4", [1, 2], 7, []]
)
def test_colours_that_are_none(bad):
    with pytest.raises(OptionError, match=r"colours: .*'a'.*(write|expected)|colours: expected") as error:
        reader_of({"labels": "{name}", "colours": {"a": bad}}, Semantic(classes=("a", "b")), "set")
    assert "\n" not in str(error.value)


def test_two_ways_to_write_a_colour_are_one_option():
    seg = Semantic(classes=("a", "b"))
    one, two = (reader_of({"labels": "{name}", "colours": {"a": c}}, seg, "set") for c in ("#ff8000", [255, 128, 0]))
    assert written(one, seg) == written(two, seg)


def test_ids_of_class_and_instance(tmp_path):
    file, seg = tmp_path / "x.png", Semantic(classes=30)
    raw = np.array([[0, 1000, 1001, 26999], [26000, 0, 2001, 255000 % 65536]], np.uint16)
    raw[1, 3] = 0
    assert read(raw, seg, file, divide=1000).tolist() == [[0, 1, 1, 26], [26, 0, 2, 0]]
    # instanceIds of Cityscapes: 24 to 33 have instances, the others are ids of classes as they are
    city = np.array([[7, 11, 24, 24000, 26017, 33001, 4]], np.uint16)
    with pytest.raises(DataError, match="4 pixels have ids from 4 to 24, below `divide: 1000`; write `below: same`"):
        read(city, seg, file, divide=1000)
    table = {"map": {7: 0, 11: 2, 24: 11, 26: 13, 33: 18}, "others": 255}
    assert read(city, seg, file, divide=1000, below="same", **table).tolist() == [[0, 2, 11, 11, 13, 18, 255]]
    assert read(city, seg, file, divide=1000, below="instance").tolist() == [[0, 0, 0, 24, 26, 33, 0]]
    small = np.array([[255, 256, 511, 512, 10 * 256 + 3]], np.uint16)
    assert read(small, seg, file, divide=256, below="same", ignore=10).tolist() == [[255, 1, 1, 2, 255]]
    assert read(small, seg, file, divide=256, below="instance", ignore=[10], offset=-1).tolist() == [
        [255, 0, 0, 1, 255]
    ]
    edges = read(np.array([[1000, 1001, 2000, 2000]], np.uint16), Edges(), file, kind="boundaries", divide=1000)
    assert edges.tolist() == [[[0, 1, 1, 0]]]


def test_divided_ids_are_other_labels():
    seg = Semantic(classes=3)
    plain, divided, other = (
        written(reader_of({"labels": "{name}", **options}, seg, "set"), seg)
        for options in ({}, {"divide": 1000}, {"divide": 1000, "below": "same"})
    )
    assert len({plain, divided, other}) == 3
    assert "divide" not in plain  # as releases before wrote it
    with pytest.raises(OptionError, match="below: needs 'divide'"):
        reader_of({"labels": "{name}", "below": "same"}, seg, "set")
    with pytest.raises(OptionError, match="divide"):
        reader_of({"labels": "{name}", "divide": 1}, seg, "set")
