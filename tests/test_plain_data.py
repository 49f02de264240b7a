"""One reader of values against annotated types, for arguments, options and files of strangers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from garnish.checking.plain_data import GIVEN, Reading, Within, fits, integers, matching, read_as, reals
from garnish.errors import BundleError, OptionError
from garnish.files.strict_json import read_json

FILES = Reading()
OURS = Reading(
    error=BundleError, file="a.json: ", unknown="unknown key {place}", missing="has no {place}; save it", builds=False
)


class Inner(TypedDict):
    name: str
    sizes: NotRequired[list[int]]


class Outer(TypedDict):
    inner: dict[str, Inner]
    digest: Annotated[str, matching("[0-9a-f]{4}")]


@dataclass(frozen=True)
class Made:
    width: int
    share: Annotated[float, Within("0 to below 1", lambda p: 0 <= p < 1)] = 0.5
    kind: Literal["a", "b"] = "a"
    parts: tuple[float, ...] = ()
    within: Mapping[str, Made] = field(default_factory=dict)


def test_a_typed_dictionary_is_itself_where_it_is_as_described() -> None:
    given = {"inner": {"x": {"name": "n", "sizes": [1, 2]}, "y": {"name": "m"}}, "digest": "00ff"}
    assert read_as(given, Outer, "", OURS) == given


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"inner": {}, "digest": "00FF"}, "a.json: digest: expected text like [0-9a-f]{4}, got '00FF'"),
        ({"inner": {}, "digest": "00ff\n"}, "a.json: digest: expected text like [0-9a-f]{4}, got '00ff\\n'"),
        ({"inner": {}, "digest": 5}, "a.json: digest: expected text like [0-9a-f]{4}, got 5"),
        ({"inner": {"x": {}}, "digest": "0000"}, "a.json: has no inner.x.name; save it"),
        ({"inner": {"x": {"nam": "n"}}, "digest": ""}, "a.json: unknown key inner.x.nam; did you mean 'name'?"),
        ({"inner": {"x": []}, "digest": "0000"}, "a.json: inner.x: expected a mapping, got []"),
        ({"inner": [], "digest": "0000"}, "a.json: inner: expected a mapping from str to a mapping, got []"),
        ({"inner": {3: {}}, "digest": "0000"}, "a.json: inner: expected str, got 3"),
        ({"inner": {"x": {"name": "n", "sizes": [1, True]}}}, "a.json: has no digest; save it"),
        ({"digest": "0000", "inner": {"x": {"name": "n", "sizes": [1, True]}}}, "inner.x.sizes[1]: expected int, got"),
        ({"digest": "0000", "inner": {"x": {"name": "n", "sizes": "12"}}}, "sizes: expected a list of int, got '12'"),
        ({"digest": "0000", "inner": {"a\nb" * 99: 3}}, "expected a mapping, got 3"),
        ([], "expected a mapping, got []"),
    ],
)
def test_where_what_was_expected_and_what_was_found(given: Any, says: str) -> None:
    with pytest.raises(BundleError) as error:
        read_as(given, Outer, "", OURS)
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_dataclass_is_built_of_what_files_hold() -> None:
    given = {"width": 2, "share": 0, "parts": [1, 2.5], "within": {"x": {"width": 1}}}
    made = read_as(given, Made, "made", FILES)
    assert made == Made(2, 0.0, parts=(1.0, 2.5), within={"x": Made(1)})
    assert [type(value) for value in (made.share, *made.parts)] == [float] * 3
    assert read_as({"width": 1, "parts": 3}, Made, "made", Reading(wraps=True)).parts == (3.0,)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "made: option 'width' is required; options: width, share, kind, parts, within"),
        ({"widht": 1}, "made: unknown option 'widht'; did you mean 'width'?"),
        ({"width": 1, "share": 1}, "made.share: expected 0 to below 1, got 1"),
        ({"width": 1, "share": math.nan}, "made.share: expected 0 to below 1, got nan"),
        ({"width": 1, "share": 10**400}, "made.share: expected 0 to below 1, got 1000"),
        ({"width": 1, "kind": "c"}, "made.kind: expected one of a, b; got 'c'"),
        ({"width": 1, "parts": 3}, "made.parts: expected a list of float, got 3"),
        ({"width": 1, "parts": [10**400]}, "made.parts: expected float, got 1000"),
        ({"width": 1, "within": {"x": {"width": "1"}}}, "made.within.x.width: expected int, got '1'"),
        (Made, "made: expected Made, got <class"),
    ],
)
def test_what_cannot_be_built_is_one_line(given: Any, says: str) -> None:
    with pytest.raises(OptionError) as error:
        read_as(given, Made, "made", FILES)
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 200


def test_values_of_python_are_kept() -> None:
    listed = [1, 2]
    assert read_as(listed, Sequence[int], "x", GIVEN) is listed
    assert read_as(3, float, "x", GIVEN) == 3 and type(read_as(3, float, "x", GIVEN)) is int
    assert read_as(listed, tuple[int, ...] | None, "x", GIVEN) == (1, 2)
    assert not fits({"width": 1}, Made) and fits(Made(1), Made)
    assert fits("a", Literal["a", "b"]) and not fits("c", Literal["a", "b"]) and not fits(True, Literal[1, 2])


def test_annotations_of_others_and_depths_beyond_python_are_read() -> None:
    assert read_as(3, Annotated[int, "of others"], "x", GIVEN) == 3
    with pytest.raises(OptionError, match=r"x: expected int, got '3'"):
        read_as("3", Annotated[int, "of others"], "x", GIVEN)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BundleError, match=r"^a\.json: digest: expected text like .*, got \[{4}\.\.\.\]{4}$"):
        read_as({"inner": {}, "digest": deep}, Outer, "", OURS)


def test_json_is_standard_bounded_and_one_line(tmp_path) -> None:
    for data, says in (
        (b"[NaN]", "is damaged (NaN is not JSON); again"),
        (b"[" * 10**5, "is damaged"),
        (b"\xff", "cannot be read"),
        (
            b" " * (16 * 2**20 + 1),
            "its 16,777,217 bytes are more than the 16,777,216 that such a file may have); again",
        ),
    ):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(BundleError) as error:
            read_json(tmp_path / "a.json", "list", "again")
        assert says in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(OptionError, match=r"none\.json: cannot be read .*; again"):
        read_json(tmp_path / "none.json", "list", "again", OptionError)


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        (math.nan, float, "x: expected float, got nan"),
        (-math.inf, float | None, "x: expected float or null, got -inf"),
        (2**63, int, "x: expected int, got 9223372036854775808"),
        (10**20, float | int, None),
        (0, Annotated[int, integers(1, 4096)], "x: expected a whole number from 1 to 4,096, got 0"),
        (
            4097,
            Annotated[int, integers(1, 4096)] | Literal["auto"],
            "x: expected a whole number from 1 to 4,096 or auto",
        ),
        (1, Annotated[float, reals(0, 1, below=True)], "x: expected a number from 0 to below 1, got 1"),
        (0.0, Annotated[float, reals(0, 1e6, above=True)], "x: expected a number above 0 to 1e\\+06, got 0.0"),
    ],
)
def test_numbers_are_finite_and_within_their_bounds(value: object, hint: Any, says: str | None) -> None:
    if says is None:
        assert read_as(value, hint, "x", FILES) == value
        return
    with pytest.raises(OptionError, match=says):
        read_as(value, hint, "x", FILES)
