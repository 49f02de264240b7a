"""Strangers' text in messages: one line, of bounded length, without characters that a terminal acts on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from garnish import registry
from garnish.errors import LONGEST, BundleError, DataError, OptionError, one_line, showable, shown
from garnish.files.regular import UnfitFile, check_regular, open_regular, read_regular
from garnish.files.strict_json import read_json


def test_control_characters_are_escaped() -> None:
    assert one_line("a\x1b[31mb\x00\x7f\x9b c\td\ne") == "a\\x1b[31mb\\x00\\x7f\\x9b c d e"
    assert showable("x\u202ecod.exe\ud800\u2028") == "x\\u202ecod.exe\\ud800\\u2028"
    plain = "Straße, 東京, می\u200cخواهم, 👩\u200d🔬 10\u00a0m²"
    assert showable(plain) == plain
    assert str(DataError("a\x1bb" + "c" * 10_000)) == "a\\x1bb" + "c" * (LONGEST - 7) + "…"


def test_messages_have_at_most_their_length() -> None:
    for text in ("\x1b" * 500, "a " * 10_000, " " * 10_000 + "b", "\U000e0001" * 90):
        assert len(one_line(text, 50)) <= 50
    assert one_line("a" * 50, 50) == "a" * 50


def test_what_grows_when_printed_is_shortened_before() -> None:
    level: object = ["l"] * 9
    for _ in range(12):
        level = [level] * 9
    start = time.perf_counter()
    assert len(shown(level)) <= 60 and len(shown({"a": level, "b": (level,)}, 30)) <= 30
    assert shown(10**5000) == "a whole number of 16610 bits"
    assert time.perf_counter() - start < 1
    loop: list[object] = []
    loop.append(loop)
    assert shown(loop).startswith("[[")
    assert [shown(v) for v in ("a\x1b", 3, 0.1, None, [1, "b"], {"k": 2})] == [
        "'a\\x1b'", "3", "0.1", "None", "[1, 'b']", "{'k': 2}",
    ]  # fmt: skip


def test_only_regular_files_of_their_size_are_opened(tmp_path: Path) -> None:
    pipe, holes, plain = tmp_path / "pipe", tmp_path / "holes", tmp_path / "plain"
    os.mkfifo(pipe)
    with holes.open("wb") as stream:
        stream.truncate(200 * 10**9)
    plain.write_bytes(b"12345")
    for file in (pipe, holes, Path("/dev/zero"), tmp_path):
        for opened in (open_regular, check_regular, read_regular):
            with pytest.raises(UnfitFile, match=r"regular|more than the 4 that"):
                opened(file, 4)
    assert read_regular(plain, 5) == b"12345" and check_regular(plain, 5) == 5
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' stands twice"),
        ('{"a": 1e999}', "1e999 is beyond all floats"),
        ('{"a": NaN}', "NaN is not JSON"),
    ],
)
def test_json_means_one_thing(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(BundleError, match=says):
        read_json(file, "description", "save it again")


def test_names_that_are_none_are_told_and_long_ones_leave_room_for_the_remedy() -> None:
    for name in (None, {"name": {}}, 3):
        with pytest.raises(OptionError, match=r"^task: expected a name, got .*; available: Depth, "):
            registry.find("tasks", name)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^unknown task '1+…; available: Depth, "):
        registry.find("tasks", "1" * 5000)
