"""Data sets of strangers: descriptions, lists, labels beyond all bounds, readers that give nothing, cached files."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from garnish.data.dataset import Dataset, Sample, read_sample
from garnish.data.labels.planes import unpacked, whole
from garnish.data.labels.reader import Reader, decode
from garnish.data.patterns import as_glob, as_regex, checked_pattern, checked_split
from garnish.data.sources import open_data
from garnish.errors import DataError, GarnishError, OptionError
from garnish.files.locks import holder, locked
from garnish.targets.class_ids import ClassIds
from garnish.tasks.semantic import Semantic
from garnish.training.feature_file import as_bytes, read_features


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a1b1", "a1b2", "x"):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.ones((4, 5), np.uint8)).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def described(**changed: object) -> dict[str, object]:
    seg = {"task": "Semantic", "labels": "masks/{name}.png", "classes": 2}
    return {"images": "images/{name}.png", "tasks": {"seg": seg}, **changed}


LONG = "x" * 5000


@pytest.mark.parametrize(
    "given",
    [
        f"~nobody_{'x' * 20}/a",
        LONG,
        [[described()]],
        described(path=f"~nobody_{'x' * 20}/a"),
        described(path=LONG),
        described(path=10**400),
        described(path=[1]),
        described(path={"a": 1}),
        described(path=True),
        described(path="\0"),
        described(images=f"images/{'x' * 300}*/{{name}}.png"),
        described(images=f"{LONG}*"),
        described(images="images/{split}/{name}.png", splits={"train": "{name}{name}"}),
        described(images="images/{split}/{name}.png", splits={"train": "a*"}),
        described(images="images/{split}/{name}.png", splits={"train": "x" * 300}),
        described(images="images/x**/{name}.png"),
        described(images="images/***"),
        described(images="images/*a*a*a*a*a*a*a*b"),
        described(images="{name}/" * 9),
        {"layout": "ADE20K", "path": LONG},
        {"layout": "ADE20K", "path": f"~nobody_{'x' * 20}/a"},
    ],
)
def test_descriptions_that_name_no_files_end_in_one_line(root: Path, given: object) -> None:
    with pytest.raises(GarnishError) as error:
        open_data(given, base=root)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 2000


def test_a_link_that_leads_to_itself_ends_in_one_line(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    for given in ("loop", described(path="loop")):
        with pytest.raises(GarnishError):
            open_data(str(root / given) if isinstance(given, str) else given, base=root)
    (root / "images" / "up").symlink_to(root)
    assert len(open_data(described(), base=root)) == 3


def test_a_name_may_stand_twice_in_a_pattern(root: Path) -> None:
    """It made a glob pattern that the standard library refuses."""
    with pytest.raises(DataError, match="no picture fits"):
        open_data(described(images="images/{name}{name}.jpg"), base=root)
    found = open_data(described(images="images/a{name}b{name}.png", tasks=tasks("masks/a{name}b1.png")), base=root)
    assert len(found) == 1
    for pattern, glob in (
        ("images/{name}.png", "images/**/*.png"),
        ("{name}.png", "*.png"),
        ("a/{name}{name}", "a/**/*"),
        ("**/{name}/x_{name}.png", "**/**/*/x_*.png"),
        ("a/*/b?.png", "a/*/b?.png"),
    ):
        assert as_glob(checked_pattern(pattern, "")) == glob
        assert list(root.glob(glob)) is not None
    assert checked_split("sub/train", "") == "sub/train"


def tasks(labels: str) -> dict[str, object]:
    return {"seg": {"task": "Semantic", "labels": labels, "classes": 2}}


def test_matching_takes_no_power_of_the_wildcards(tmp_path: Path) -> None:
    import re

    pattern = checked_pattern("{name}a*a*X", "")
    started = time.process_time()
    assert re.fullmatch(as_regex(pattern), "a" * 250) is None
    assert time.process_time() - started < 2
    with pytest.raises(OptionError, match="write 3 between two slashes"):
        checked_pattern("{name}*a*a*a", "")


def test_lists_of_names_are_regular_files(root: Path) -> None:
    os.mkfifo(root / "train.txt")
    given = described(splits={"train": "train.txt"})
    with pytest.raises(DataError, match="no regular file"):
        open_data(given, base=root)
    (root / "train.txt").unlink()
    (root / "train.txt").write_bytes(b"x\n\n a1b1\r\n")
    assert len(open_data(given, base=root)) == 2


@pytest.mark.parametrize(
    "values",
    [
        np.full((2, 2), 2**63, np.uint64),
        np.full((2, 2), 2**64 - 1, np.uint64),
        np.full((2, 2), 2.0**63),
        np.full((2, 2), 1e300),
    ],
)
def test_ids_of_more_than_63_bits_are_refused(values: np.ndarray) -> None:
    """They wrapped, so that 2⁶⁴ − 1 was −1."""
    with pytest.raises(DataError, match=r"a\.npy: holds .* save smaller ids"):
        whole(values, Path("a.npy"))
    assert whole(np.full((1, 1), 2**63 - 1, np.uint64), Path()).item() == 2**63 - 1


def test_packed_colours_and_offsets_do_not_wrap(root: Path) -> None:
    wide = np.full((2, 2, 3), 2**60)
    with pytest.raises(DataError, match="more than 63 bits"):
        unpacked(wide, [1, 256, 65536], Path("a.npy"))
    assert unpacked(wide, [1, 1, 0], Path()).max() == 2**61
    np.save(root / "masks/x.npy", np.full((4, 5), 2**63 - 1))
    entry = {"task": "Semantic", "labels": "masks/{name}.npy", "classes": 2, "offset": 1}
    with pytest.raises(DataError, match="correct it, or save smaller ids"):
        open_data(described(tasks={"seg": entry}), base=root)[0]


@dataclass(frozen=True, kw_only=True)
class _Gives(Reader):
    kind = "gives"
    target = ClassIds
    what: object = None

    def decode(self, raw: np.ndarray, file: Path, task: Semantic) -> np.ndarray:
        return self.what  # type: ignore[return-value]


@pytest.mark.parametrize(
    "what",
    [None, 3, [[1]], np.zeros(3), np.zeros((2, 2), np.uint16), np.zeros((2, 2), object), np.zeros((2, 2), "M8[s]")],
)
def test_a_reader_that_gives_no_numbers_is_named(what: object) -> None:
    reader = _Gives(labels=("x",), what=what)
    with pytest.raises(DataError, match=r"x\.npy: _Gives\.decode gave .*; correct the reader"):
        decode(np.zeros((2, 2)), reader, Path("x.npy"), Semantic(classes=2))
    with pytest.raises(DataError, match=r"_Gives\.load gave NoneType"):
        decode(None, reader, Path("x.npy"), Semantic(classes=2))  # type: ignore[arg-type]


def test_arrays_of_readers_are_made_fit_for_torch() -> None:
    frozen = np.arange(4, dtype=">i8").reshape(2, 2)[::-1]
    frozen.flags.writeable = False
    values = decode(np.zeros((2, 2)), _Gives(labels=("x",), what=frozen), Path("x.npy"), Semantic(classes=9))
    assert torch.from_numpy(values).tolist() == [[2, 3], [0, 1]]


class _Own(Dataset):
    name = "own"
    tasks = {"seg": Semantic(classes=3)}  # noqa: RUF012

    def __init__(self, given: object) -> None:
        self.given = given

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        if isinstance(self.given, dict):
            return Sample(tv_tensors.Image(torch.zeros(3, 4, 5, dtype=torch.uint8)), self.given, "0.png")
        return self.given  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "picture 0 is a NoneType; give a Sample"),
        ({"seg": tv_tensors.Mask(torch.full((4, 5), 7))}, "label ids 7"),
        ({"depth": tv_tensors.Mask(torch.full((4, 5), 7))}, "the set has no such task"),
        ({"seg": tv_tensors.Mask(torch.full((4, 5), 7, dtype=torch.uint16))}, "holds torch.uint16"),
        ({"seg": tv_tensors.Mask(torch.full((4, 5), 1j))}, "holds torch.complex64"),
    ],
)
def test_every_label_of_ones_own_data_is_checked(given: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_sample(_Own(given), 0)


def test_cached_files_of_strangers_are_recomputed(tmp_path: Path) -> None:
    facts = {
        "format": 1, "name": "0.png", "targets": {"seg": ["Mask", "int64"]}, "unit": 1, "size": [4, 5],
        "grid": [1, 1], "same": {}, "channels_last": [], "no_extra": [],
    }  # fmt: skip
    tensors = {
        "image": torch.zeros(3, 4, 5, dtype=torch.uint8), "target.seg": torch.ones(4, 5, dtype=torch.uint8),
        "state.x": torch.zeros(1, 1, 1, 2),
    }  # fmt: skip
    known = {"seg": Semantic(classes=3)}

    def read(changed: dict[str, object], values: dict[str, torch.Tensor]) -> Sample:
        (tmp_path / "a.safetensors").write_bytes(as_bytes((tensors | values, {**facts, **changed})))
        return read_features(tmp_path / "a.safetensors", known)

    assert read({}, {}).targets["seg"].max() == 1
    for changed, values in (
        ({}, {"target.seg": torch.full((4, 5), 200, dtype=torch.uint8)}),
        ({"size": []}, {}),
        ({"grid": [1]}, {}),
        ({"channels_last": ["x", "x"]}, {"state.x": torch.zeros(2)}),
        ({"targets": {"seg": ["Mask", "load"]}}, {}),
        ({"same": {"x": "y"}}, {}),
    ):
        with pytest.raises(DataError):
            read(changed, values)
    (tmp_path / "a.safetensors").unlink()
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="no regular file"):
        read_features(tmp_path / "a.safetensors", known)


def test_notes_beside_locks_are_small_regular_files(tmp_path: Path) -> None:
    lock, note, other = tmp_path / "a.lock", tmp_path / "a.lock.by", tmp_path / "other"
    other.write_text("mine")
    os.mkfifo(note)
    assert holder(lock) == "another process"
    with locked(lock, pytest.fail):  # neither waits for the pipe, nor
        assert json.loads(note.read_text())["pid"] == os.getpid()
    note.symlink_to(other)
    with locked(lock, pytest.fail):  # writes through a link
        assert not note.is_symlink()
    note.write_text('{"pid": 1e999, "host": "", "since": ""}')
    assert holder(lock) == "another process"
    lock.unlink()
    lock.symlink_to(other)
    with pytest.raises(OSError, match="links"), locked(lock, pytest.fail):
        pass
    assert other.read_text() == "mine"
