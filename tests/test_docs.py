"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from garnish import registry
from garnish.comparing.compare_options import CompareOptions
from garnish.data.augment import Augment
from garnish.data.sources import SceneOptions
from garnish.training.train_options import TrainOptions

ROOT = Path(__file__).parents[1]


def load_tool():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    for path, text in load_tool().pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date; run make docs"


def test_text_around_the_generated_part_is_kept():
    tool = load_tool()
    page = tool.methods_page(f"mine\n{tool.BEGIN}what was{tool.END}also mine\n")
    assert page.startswith(f"mine\n{tool.BEGIN}") and page.endswith(f"{tool.END}also mine\n") and "what was" not in page
    assert (
        "### LoRA" in page
        and "| `rank` | `8` | a whole number from 1 to 65,536 | r, width of the low-rank update. |" in page
    )


def test_every_option_has_a_meaning():
    methods = importlib.import_module("garnish.commands.methods")
    found = [entry for kind in methods.KINDS for entry in methods.entries(kind)]
    for entry in [*found, *map(methods.entry_of, (TrainOptions, Augment, SceneOptions, CompareOptions))]:
        assert entry.summary, entry.name
        for option in entry.options:
            assert option.meaning, f"{entry.name}.{option.name} stands in no Attributes section"


def test_every_option_of_every_family_of_backbones_is_listed():
    methods = importlib.import_module("garnish.commands.methods")
    tool = load_tool()
    ours = {name for name, cls in registry.classes("backbones").items() if cls.__module__.startswith("garnish.")}
    assert set(tool.ARCHITECTURES) == ours
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for family, takes in tool.ARCHITECTURES.items():
        listed = page.partition(f"### Options of {family}\n")[2].partition("\n#")[0]
        for option in methods.entry_of(takes).options:
            assert f"| `{option.name}` |" in listed, f"{family}.{option.name}"
            assert option.meaning, f"{takes.__name__}.{option.name} stands in no Attributes section"


def load_measurements(what: str = "methods"):
    path = ROOT / "benchmarks" / what / "measure.py"
    spec = importlib.util.spec_from_file_location(f"measure_{what}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_matrix_names_every_method_on_every_trunk():
    trunks = json.loads((ROOT / "benchmarks" / "methods" / "results.json").read_text("utf-8"))["trunks"]
    ours = {n for n, cls in registry.classes("adapters").items() if cls.__module__.startswith("garnish.")}
    assert set(trunks) == set(load_measurements().TRUNKS)
    for label, trunk in trunks.items():
        missing = ours - set(trunk["methods"])
        assert not missing, f"{label}: run benchmarks/methods/measure.py --only {' '.join(missing)}"


def test_the_matrix_says_what_can_be_merged():
    lines = load_tool().matrix()
    overview = [line for line in lines if line.count("|") == 6][: 2 + len(registry.classes("adapters"))]
    said = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in overview}
    # by hand, of each kind one
    expected = {"LoRA": "yes", "SSF": "yes", "BitFit": "in place", "MTLoRA": "shared part", "VPT": "no", "Mona": "no"}
    assert {name: said[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["ViT-S/16", "Swin-T", "MiT-B0"])
def test_counts_of_the_matrix_are_those_of_the_code(trunk):
    tool = load_measurements()
    rows = json.loads((ROOT / "benchmarks" / "methods" / "results.json").read_text("utf-8"))["trunks"][trunk]["methods"]
    for method, row in rows.items():
        if "refused" not in row:
            model = tool.build(trunk, method)
            assert model.report((64, 64))["encoder_trainable"] == row["trained"], method


def measured_decoders():
    return json.loads((ROOT / "benchmarks" / "decoders" / "results.json").read_text("utf-8"))["trunks"]


def test_costs_of_every_decoder_are_measured():
    tool = load_measurements("decoders")
    ours = {n for n, cls in registry.classes("heads").items() if cls.decodes and cls.__module__.startswith("garnish.")}
    trunks = measured_decoders()
    assert set(trunks) == set(tool.TRUNKS)
    for label, trunk in trunks.items():
        missing = sorted(
            name for name in ours if not trunk["heads"].get(name, {}).keys() >= {str(count) for count in tool.COUNTS}
        )
        assert not missing, f"{label}: run benchmarks/decoders/measure.py --only {' '.join(missing)}"


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["ViT-S/16", "Swin-T"])
def test_costs_of_decoders_are_those_of_the_code(trunk):
    tool = load_measurements("decoders")
    for head, rows in measured_decoders()[trunk]["heads"].items():
        row = rows["4"]
        if "refused" not in row:
            model = tool.build(trunk, head, 4)
            assert (tool.parameters(model), tool.decoder_macs(model)) == (row["parameters"], row["macs"]), head
