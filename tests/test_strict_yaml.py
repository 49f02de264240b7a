"""YAML of strangers: bounded in bytes, depth and what aliases stand for; core tags only; every fault is one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from garnish.errors import OptionError
from garnish.files import strict_yaml
from garnish.files.strict_yaml import MOST_BYTES, MOST_DEPTH, read_yaml, write_yaml
from garnish.recipes.overrides import parse_value

#: nine levels of nine aliases each: 9⁹ entries when it is walked or printed
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
#: merges, each of which would add the entries of nine others
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 20)
)
LONG = f"a: &a {'b' * 60_000}\nc: [{', '.join(['*a'] * 1000)}]\n"


def read(folder: Path, text: str) -> object:
    file = folder / "a.yaml"
    file.write_text(text, encoding="utf-8")
    return read_yaml(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "characters of values, with aliases replaced"),
        (LONG, "characters of values, with aliases replaced"),
        ("&a [*a]", r"\*a has no & before it that is complete"),
        ("&a {b: *a}", r"\*a has no & before it that is complete"),
        ("[*a]", r"\*a has no & before it"),
        ("[&a b, &a c]", "&a stands twice"),
        *((opened * 500, f"more than {MOST_DEPTH} levels") for opened in ("[", "{", "? ", "- ")),
        ("a0: &a0 []\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99)), "more than 48 levels"),
        ("a: 1\n---\nb: 2\n", "another document follows"),
        ("a: !!timestamp 99", "line 1: .*tag timestamp; only str, int"),
        ("a: !!binary aGk=", "tag binary"),
        ("a: !!set {a}", "tag tag:yaml.org,2002:set"),
        ("a: !mine 3", "tag !mine"),
        ("a: !!python/name:os.system ''", "tag python/name:os.system"),
        ("a: !!bool maybe", "'maybe' is no bool"),
        ("a: !!int 1:30", "'1:30' is no int"),
        ("a: !!seq b", "tag seq; only"),
        ("a: !!str [b]", "tag tag:yaml.org,2002:str of a seq"),
        ("a: 1" + "0" * 5000, "beyond all whole numbers"),
        ("? [a]\n: b", r"key \['a'\]: a key is text or a whole number"),
        ("{null: 1}", "key None: a key is text"),
        ("{1.5: 1}", r"key 1\.5: a key is text"),
        ("{true: 1}", "key True: a key is text"),
        ("{1: a, '1': b}", "key '1' occurs twice"),
        ("<<: [1]", "<< merges mappings, got 1"),
        ('a: "\\0"', "holds a character that no text has"),
        ('a: "\\ud800"', "holds a character that no text has"),
        ('a: "\\U00ffffff"', "not valid YAML"),
        ("a: b\x1b", "not valid YAML"),
        ("%YAML 9.0\n--- a", "not valid YAML"),
        ("a: 1\n" + "#" * MOST_BYTES, "more than the 131,072 that such a file may have"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    start = time.process_time()
    with pytest.raises(OptionError, match=says) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{tmp_path}/a.yaml")
    assert time.process_time() - start < 5


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: [2]}\nb: &b {x: 3}\nc: {<<: [*a, *b], z: 4}\nd: {<<: *a, x: !!str 5}\ne: [*a, &n 6, *n]\n"
    found = read(tmp_path, text)
    assert isinstance(found, dict)
    assert found["c"] == {"x": 1, "y": [2], "z": 4} and found["d"] == {"x": "5", "y": [2]}
    assert found["e"] == [{"x": 1, "y": [2]}, 6, 6]
    found["e"][0]["y"].append(7)  # as an override of one place does
    assert found["a"] == {"x": 1, "y": [2]} == found["a"] and found["d"]["y"] == [2]


def test_merges_of_merges_do_not_grow(tmp_path: Path) -> None:
    found = read(tmp_path, MERGES)
    assert isinstance(found, dict) and found["a19"] == {"x": 1} | {f"k{n}": 1 for n in range(1, 20)}


def test_values_are_those_of_the_core(tmp_path: Path) -> None:
    text = "[1, -2, 010, 1e-3, .5, !!float 1, yes, true, '1', ~, null, '', \"a\\tb\", 1_000, 0x1F, !!int '7', ! 8]"
    assert read(tmp_path, text) == [
        1, -2, "010", 1e-3, 0.5, 1.0, "yes", True, "1", None, None, "", "a\tb", "1_000", "0x1F", 7, 8,
    ]  # fmt: skip
    assert str(read(tmp_path, "[-.inf, .nan]")) == "[-inf, nan]"
    assert read(tmp_path, "") is None and read(tmp_path, "# only a comment\n") is None
    assert read(tmp_path, "--- |\n a\n b\n...\n") == "a\nb\n"
    assert read(tmp_path, "? a\n: {1: b}\n") == {"a": {1: "b"}}


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    for file in (Path("/dev/zero"), tmp_path):
        with pytest.raises(OptionError, match="cannot be read"):
            read_yaml(file)


def test_the_command_line_has_the_same_bounds() -> None:
    for text in (BOMB, "[" * 500, "!!timestamp 99", "!!bool maybe", "a: 1\nb: !!int 1:30"):
        assert parse_value(text) == text  # as any other text that is no YAML
    assert parse_value("{a: [1, 2]}") == {"a": [1, 2]} and parse_value("224,280") == [224, 280]


def test_written_text_shows_no_control_characters(tmp_path: Path) -> None:
    plain = {"a": "x\u202ey\x1b[31m\x9b\x85", "b": "Straße", "c": "a\u2028b"}
    written = write_yaml(plain)
    assert not set(written) & set("\x1b\x9b\x85\u202e\u2028") and read(tmp_path, written) == plain
    assert "Straße" in write_yaml({"b": "Straße"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["[" + "1," * 40_000 + "]", "[" * 46 + "1," * 40_000, "- a\n" * 30_000, "'" + "''" * 60_000 + "'", "a\n" * 60_000],
)
def test_the_slowest_texts_that_fit_take_seconds(text: str) -> None:
    assert len(text) < MOST_BYTES
    start = time.perf_counter()
    try:
        strict_yaml.parse_yaml(text)
    except Exception as error:
        assert type(error).__module__.startswith("yaml")
    assert time.perf_counter() - start < 10
