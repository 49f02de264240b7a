"""Recipes of strangers: a value of any type in any place, and any text for a path, is an error of one line, or fine."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from garnish.backbones.weights import weights_file
from garnish.bundles.bundle_json import bundle_folder
from garnish.data.folder import folder
from garnish.data.patterns import checked_pattern
from garnish.errors import BundleError, DataError, GarnishError, OptionError, WeightsError
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import parse_yaml, write_yaml
from garnish.recipes.overrides import set_dotted
from garnish.recipes.recipe import Recipe, read_recipe

RECIPE: dict[str, Any] = {
    "backbone": {"name": "mit_b0", "weights": "w.safetensors", "options": {"depths": [1, 1, 1, 1]}},
    "adapter": [{"name": "LoRA", "rank": 2, "layers": ["qkv"]}, "SSF"],
    "head": {"seg": "LinearHead", "depth": {"name": "LinearHead"}},
    "tasks": {"seg": {"dice": 1.0}, "depth": None},
    "data": {"name": "scenes", "train": 2, "val": 1, "size": [32, 32]},
    "onto": ["a", "b"],
    "train": {"steps": 3, "eval_size": [32, 32], "balance": {"name": "Uncertainty"}, "log": ["csv"]},
    "compare": {"adapters": ["LoRA"]},
    "base": ".",
    "out": "runs/a",
}
ODD = (
    None, "", [], {}, math.nan, 10**26, True, [["a"]], {1: 2}, [None], [{}], {"name": None}, {"name": ["a"]}, {"": ""},
    "a" * 10**5, "x/" * 3000, "/dev/zero", "~nosuchuser/x", "$HOME", "${", "é" * 200, "\u202e", "a,,b", "seg", "scenes",
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in plain values."""
    yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*way, key))


def changed(way: tuple[Any, ...], value: object) -> Any:
    """The recipe with another value in one place."""
    if not way:
        return value
    made = copy.deepcopy(RECIPE)
    here = made
    for key in way[:-1]:
        here = here[key]
    here[way[-1]] = value
    return made


def read(file: Path) -> None:
    recipe = read_recipe(file, {"train.seed": 3})
    recipe.resolved()
    recipe.tasks_of(recipe.open("val"))


FAST = ("tasks", "onto", "base", "out")


@pytest.mark.parametrize(
    "section", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in RECIPE]
)
def test_any_value_in_any_place_is_read_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "w.safetensors").touch()
    file = tmp_path / "r.yaml"
    file.write_text(write_yaml(RECIPE))
    read(file)
    for way in places(RECIPE[section], (section,)):
        for value in ODD:
            file.write_text(write_yaml(changed(way, value)))
            try:
                read(file)
            except GarnishError as error:
                assert str(error).isprintable(), (way, value)


def made(**sections: object) -> Recipe:
    return Recipe("r.yaml", {"out": "o", "train": {"steps": 1}, "backbone": "mit_b0"} | sections)


@pytest.mark.parametrize(
    ("sections", "asked", "says"),
    [
        ({"tasks": [["seg"]]}, "task_options", r"r.yaml: tasks: \[\['seg'\]\]; name some of the data's tasks"),
        ({"tasks": [{}]}, "task_options", "r.yaml: tasks: "),
        ({"onto": [["a"]]}, "onto", r"r.yaml: onto: \[\['a'\]\] names no bundle"),
        ({"onto": [""]}, "onto", "r.yaml: onto: "),
        ({"out": 3}, "out", "r.yaml: out: 3; set the folder"),
        ({"out": "x" * 10_000}, "out", "r.yaml: out: 'xxx.* can be no path"),
    ],
)
def test_odd_sections_are_named(sections: Mapping[str, object], asked: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        getattr(made(**sections), asked)


@pytest.mark.parametrize(
    ("take", "kind"),
    [
        (lambda text: weights_file(text), WeightsError),
        (lambda text: bundle_folder(text), BundleError),
        (lambda text: folder(text), DataError),
        (lambda text: given_path(text, "here"), OptionError),
    ],
)
def test_what_can_be_no_path_is_refused_before_the_system_is_asked(
    take: Callable[[str], object], kind: type[GarnishError]
) -> None:
    for text in ("", "a\0b", "a" * 10_000, "a/" * 3000, "\ud800"):
        with pytest.raises(kind, match=r"an empty path; name|name no file|can be no path"):
            take(text)


@pytest.mark.parametrize("key", ["backbone", "data", "onto", "base"])
def test_an_empty_path_is_not_the_recipes_own_folder(tmp_path: Path, key: str) -> None:
    plain = {key: "" if key != "backbone" else {"name": "mit_b0", "weights": ""}}
    file = tmp_path / "r.yaml"
    file.write_text(write_yaml({"train": {"steps": 1}, "out": "o"} | plain))
    with pytest.raises(OptionError, match=rf"r.yaml: {key}.*(an empty path|names no bundle)"):
        _ = read_recipe(file).onto


def test_a_name_of_nobody_is_a_path_as_it_stands(tmp_path: Path) -> None:
    assert given_path("~nosuchuser/x", "here") == Path("~nosuchuser/x")  # pathlib raises RuntimeError
    assert given_path("~", "here") == Path.home()


def test_patterns_have_the_length_of_paths() -> None:
    for pattern in ("x/" * 40 + "{name}", "é" * 200 + "{name}"):
        with pytest.raises(OptionError, match="too long for a path"):
            checked_pattern(pattern, "images")


def test_an_override_of_one_alias_leaves_the_other(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("adapter: [&a {name: LoRA, rank: 2}, *a]\nout: o\ntrain: {steps: 1}\n")
    plain = read_recipe(file, {"adapter.1.rank": 3}).plain["adapter"]
    assert [one["rank"] for one in plain] == [2, 3]


@pytest.mark.parametrize("part", ["²", "١", "0" * 50])
def test_places_of_a_list_are_plain_numbers(part):
    with pytest.raises(OptionError, match="is a list; write a number from 0 to 1"):
        set_dotted({"a": [1, 2]}, f"a.{part}", 5)


def test_what_is_merged_gives_way_to_the_same_key_as_text():
    assert parse_yaml("a: &a {1: 2, 3: 4}\nb: {<<: *a, '1': 5}")["b"] == {3: 4, "1": 5}
