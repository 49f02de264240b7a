"""Recipes: numbers as people write them, paths, overrides, and one-line errors that name file, key and what exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from garnish.adapters.bottleneck import Houlsby
from garnish.adapters.lora import LoRA
from garnish.comparing.arms import arms_of
from garnish.comparing.compare_options import read_options
from garnish.errors import DataError, GarnishError, OptionError
from garnish.files.strict_yaml import read_yaml, write_yaml
from garnish.heads.linear import LinearHead
from garnish.heads.segformer import SegFormerHead
from garnish.recipes.overrides import parse_value, split_overrides
from garnish.recipes.recipe import read_recipe

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
TINY = """\
backbone: {name: mit_b0, options: {embed_dims: [8, 16, 24, 32], depths: [1, 1, 1, 1], num_heads: [1, 2, 2, 4]}}
adapter: {name: LoRA, rank: 2, layers: [q]}
head: {name: SegFormerHead, channels: 8}
data: {name: scenes, train: 3, val: 2, test: 2, size: 32}
train: {steps: 2, batch_size: 2, lr: 1e-3}
out: runs/tiny
"""


@pytest.fixture
def recipe_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(TINY)
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-1E4", -1e4),
        ("8", 8),
        (".5", 0.5),
        ("010", "010"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("224,280", [224, 280]),
        ("[qkv, fc1]", ["qkv", "fc1"]),
        ("{a: 1e-3}", {"a": 1e-3}),
        ("a: [", "a: ["),
        ("seg,depth", "seg,depth"),
    ],
)
def test_values_are_what_they_look_like(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_written_yaml_reads_back_also_with_a_plain_reader(tmp_path):
    plain = {"a": "1e-3", "b": "no", "c": 1e-5, "d": [224, 280], "e": None, "f": {"g": True, "h": "ä: #"}, "i": "010"}
    file = tmp_path / "x.yaml"
    file.write_text(write_yaml(plain), encoding="utf-8")
    assert read_yaml(file) == plain
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == plain


def test_overrides_are_taken_out_of_a_command_line():
    words = ["x.jpg", "--adapter", "LoRA", "--adapter.rank=8", "--train.lr", "-1e-4", "--train.checkpointing", "--json"]
    rest, found = split_overrides(words, ("adapter", "train"))
    assert rest == ["x.jpg", "--json"]
    assert found == {"adapter": "LoRA", "adapter.rank": 8, "train.lr": -1e-4, "train.checkpointing": True}


def test_specs_are_built(recipe_file):
    recipe = read_recipe(recipe_file)
    assert recipe.methods == [LoRA(rank=2, layers=("q",))]
    assert recipe.head == SegFormerHead(channels=8)
    assert recipe.options.lr == 1e-3 and recipe.options.steps == 2
    assert recipe.backbone.options["depths"] == [1, 1, 1, 1]


def test_one_option_is_set_and_a_name_replaces_the_section(recipe_file):
    one = read_recipe(recipe_file, {"adapter.rank": 4, "train.augment.size": [32, 32]})
    assert one.methods == [LoRA(rank=4, layers=("q",))]
    assert one.options.augment.size == (32, 32)
    # the order on the command line does not matter
    other = read_recipe(recipe_file, {"adapter.alpha": 3, "adapter": "LoRA", "head": "LinearHead"})
    assert other.methods == [LoRA(alpha=3.0)] and other.head == LinearHead()
    several = read_recipe(recipe_file, {"adapter": "LoRA,Houlsby", "adapter.1.reduction": 4})
    assert several.methods == [LoRA(), Houlsby(reduction=4.0)]


def test_steps_and_epochs_replace_each_other(recipe_file):
    options = read_recipe(recipe_file, {"train.epochs": 3}).options
    assert (options.steps, options.epochs) == (None, 3.0)
    with pytest.raises(OptionError, match="exactly one"):
        _ = read_recipe(recipe_file, {"train.epochs": 3, "train.steps": 5}).options


def test_heads_by_task_and_task_options(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "backbone: mit_b0\nhead: {seg: LinearHead, depth: {name: SegFormerHead, channels: 8}}\n"
        "tasks: {seg: {dice: 1, class_weights: null}, depth: }\ndata: {name: scenes, train: 2, size: 32}\n"
        "train: {epochs: 1}\nout: x\n"
    )
    recipe = read_recipe(file, {"tasks.depth.weight": 2})
    data = recipe.open("train")
    tasks = recipe.tasks_of(data)
    assert list(tasks) == ["seg", "depth"]
    assert tasks["seg"].dice == 1.0 and tasks["depth"].weight == 2.0
    assert tasks["seg"].classes == data.tasks["seg"].classes
    assert recipe.head == {"seg": LinearHead(), "depth": SegFormerHead(channels=8)}
    # options of one task do not leave the others out
    assert list(read_recipe(file, {"tasks": None, "tasks.seg.dice": 1}).open("val").tasks)[:2] == ["seg", "depth"]


def test_what_is_resolved_gives_the_same_recipe(recipe_file, tmp_path):
    first = read_recipe(recipe_file, {"adapter.rank": 3, "tasks": "seg,depth"}).resolved()
    again = tmp_path / "args.yaml"
    again.write_text(write_yaml(first))
    assert read_recipe(again).resolved() == first
    assert first["adapter"]["rank"] == 3 and first["adapter"]["alpha"] == 16.0
    assert first["train"]["schedule"] == "cosine" and list(first["tasks"]) == ["seg", "depth"]


def test_paths_start_at_the_recipe_then_here(tmp_path, monkeypatch):
    (tmp_path / "recipes" / "data").mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.safetensors").touch()
    (tmp_path / "recipes" / "data" / "d.yaml").write_text("path: ../../pictures\nimages: '*.png'\n")
    file = tmp_path / "recipes" / "r.yaml"
    text = "backbone: {{name: mit_b0, weights: {}}}\ndata: data/d.yaml\n"
    monkeypatch.chdir(tmp_path)
    for weights in ("../weights/w.safetensors", "weights/w.safetensors"):
        file.write_text(text.format(weights))
        plain = read_recipe("recipes/r.yaml").plain
        assert plain["backbone"]["weights"] == "weights/w.safetensors"
        assert plain["data"] == "recipes/data/d.yaml"
    file.write_text(text.format("owner/name"))  # a Hub id
    assert read_recipe("recipes/r.yaml").plain["backbone"]["weights"] == "owner/name"
    # one key of a description: the file's content takes its place
    inlined = read_recipe("recipes/r.yaml", {"data.images": "*.jpg"}).plain["data"]
    assert inlined == {"path": "pictures", "images": "*.jpg"}
    assert read_recipe("recipes/r.yaml", {"data.path": "/else"}).plain["data"]["path"] == "/else"


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("adaptor: LoRA\n", {}, ["recipe.yaml", "'adaptor'", "'adapter'", "backbone"]),
        ("adapter: Lora\n", {}, ["recipe.yaml: adapter", "'Lora'", "'LoRA'", "Houlsby"]),
        ("adapter: {name: LoRA, rnak: 8}\n", {}, ["recipe.yaml: adapter", "'rnak'", "'rank'", "alpha"]),
        ("adapter: {name: LoRA, rank: big}\n", {}, ["recipe.yaml: adapter.rank", "a whole number", "'big'"]),
        ("adapter: {name: LoRA, rank: 0}\n", {}, ["recipe.yaml: adapter.rank", "from 1 to 65,536", "got 0"]),
        ("adapter: {rank: 8}\n", {}, ["recipe.yaml: adapter", "no name"]),
        ("backbone: {name: mit_b0, weigths: x}\n", {}, ["recipe.yaml: backbone", "'weigths'", "'weights'"]),
        ("head: {name: SegFormerHead, width: 8}\n", {}, ["recipe.yaml: head", "'width'", "channels"]),
        ("train: {steps: 5, lrr: 1}\n", {}, ["recipe.yaml: train", "'lrr'", "'lr'", "batch_size"]),
        ("train: {steps: 5, lr: -1}\n", {}, ["recipe.yaml: train", "train.lr", "-1"]),
        ("train: {steps: 5, augment: {flips: 1}}\n", {}, ["recipe.yaml: train.augment", "'flips'", "'flip'"]),
        ("train: {}\n", {}, ["recipe.yaml: train", "steps", "epochs"]),
        ("tasks: 3\n", {}, ["recipe.yaml: tasks", "[seg, depth]"]),
        ("", {"adapter.rnak": 8}, ["recipe.yaml with --adapter.rnak", "'rnak'", "'rank'"]),
        ("", {"train.lr": "fast"}, ["--train.lr", "a number", "'fast'"]),
        ("", {"out.x": 1}, ["--out.x", "'runs/tiny'"]),
        ("adapter: [LoRA]\n", {"adapter.rank": 1}, ["--adapter.rank", "a list", "0"]),
        ("adapter: LoRA\nadapter: Houlsby\n", {}, ["recipe.yaml, line", "'adapter' occurs twice"]),
        ("adapter: [LoRA\n", {}, ["recipe.yaml", "not valid YAML"]),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, text, overrides, words):
    sections = {line.split(":")[0]: line for line in TINY.splitlines()}
    new = text.split(":")[0]
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join(line for key, line in sections.items() if key != new) + "\n" + text)
    with pytest.raises(GarnishError) as caught:
        read_recipe(file, overrides).resolved()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"adapter.rank": "big"}, "FILE with --adapter.rank: expected a whole number from 1 to 65,536, got 'big'"),
        (
            {"adapter.rank": 4, "adapter.alpha": "x"},
            "FILE with --adapter.alpha: expected a number from -1e+06 to 1e+06, got 'x'",
        ),
        ({"adapter.rank": 0}, "FILE with --adapter.rank: expected a whole number from 1 to 65,536, got 0"),
        (
            {"adapter": [{"name": "LoRA", "rank": "x"}]},
            "FILE with --adapter: adapter.0.rank: expected a whole number from 1 to 65,536, got 'x'",
        ),
        ({"train.lr": -1}, "FILE with --train.lr: expected a number above 0 to 1e+30, got -1"),
        ({"train.seed": 1, "train.lr": "fast"}, "FILE with --train.lr: expected a number above 0 to 1e+30, got 'fast'"),
        ({"train.augment.flips": 1}, "FILE with --train.augment.flips: unknown option 'flips'; did you mean 'flip'?"),
        ({"tasks.seg.dcie": 1}, "FILE with --tasks.seg.dcie: unknown option 'dcie'; did you mean 'dice'?"),
        ({"tasks.seg.dice": -1.0}, "FILE with --tasks.seg.dice: expected a number from 0 to 1e+09, got -1.0"),
        (
            {"head.dropout": 0.1},
            "FILE: head.channels: expected a whole number from 1 to 4,096, got 'few'",
        ),  # not what the command line set
    ],
)
def test_each_name_is_said_once(tmp_path, overrides, line):
    file = tmp_path / "recipe.yaml"
    file.write_text(TINY.replace("channels: 8", "channels: few") if "head.dropout" in overrides else TINY)
    with pytest.raises(OptionError) as caught:
        recipe = read_recipe(file, overrides)
        recipe.resolved()
        recipe.tasks_of(recipe.open("train"))
    said = str(caught.value)
    assert said.split(" available:")[0] == line.replace("FILE", str(file)), said


def test_a_missing_or_odd_file_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"none\.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(OptionError, match=r"list\.yaml: \[1\] is no recipe"):
        read_recipe(tmp_path / "list.yaml")


def test_scene_splits_share_no_scene(recipe_file):
    recipe = read_recipe(recipe_file)
    train, val = recipe.open("train"), recipe.open("val")
    assert (len(train), len(val)) == (3, 2)
    assert not (train[0].image == val[0].image).all()
    with pytest.raises(DataError, match=r"no split 'vall'.*'val'"):
        recipe.open("vall")


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda f: f.stem)
def test_our_recipes_resolve_and_say_how_to_run_them(file):
    recipe = read_recipe(file)
    section = recipe.plain.get("compare")
    verb, out = ("train", recipe.resolved()["out"]) if section is None else ("compare", section["out"])
    assert out == f"runs/{file.stem}"
    if section is not None:
        assert arms_of(read_options(section, {}), "LoRA", ["one", "two"])
    head = "".join(line for line in file.read_text().splitlines() if line.startswith("#"))
    assert f"garnish {verb} --config recipes/{file.name}" in head and "Licence" in head and "Time:" in head


@pytest.mark.real
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
@pytest.mark.parametrize("name", ["camvid", "replica", "crackforest", "parts"])
def test_our_recipes_find_their_pictures_and_weights(name):
    recipe = read_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert Path(recipe.backbone.weights).is_file()
    data = recipe.open("train")
    assert len(data) and len(recipe.open("val")) and recipe.tasks_of(data)
