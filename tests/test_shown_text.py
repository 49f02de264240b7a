"""Strangers' text reaches no terminal, log, page or card with the characters that those act on."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import garnish as gn
from comparison_example import example
from garnish.bundles.peft.own_files import readme
from garnish.cli import main
from garnish.comparing.report.page import page
from garnish.comparing.report.results import Results
from garnish.comparing.report.spreadsheet import csv_text
from garnish.comparing.typed_json import from_json
from garnish.drawing.sheet import draw_sheet
from garnish.errors import one_line, showable
from garnish.output import console, logger, say, showable_json
from test_cli import OPTIONS, write_weights

SRC = Path(gn.__file__).parent
#: sets the colour of a terminal, starts a line anew, turns the direction, C1's escape, and a line of its own
BAD = "\x1b[31mred\rover\u202ecod\x9b2J\nfake: line\u2028"
RAW = set("\x1b\r\u202e\x9b\u2028\x07\x7f")


def assert_clean(text: str) -> None:
    assert not RAW & set(text), showable(text)
    assert not any(line.startswith("fake: line") for line in text.splitlines()), text


def test_only_one_file_prints_logs_and_makes_consoles() -> None:
    for file in sorted(SRC.rglob("*.py")):
        if file.name == "output.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("print", "Console", "logging.getLogger", "logging.warning", "logging.info"), file
            assert not called.endswith((".stdout.write", ".stderr.write", "print_exc")), file
            if called == "warnings.warn":
                assert isinstance(node.args[0], ast.Call) and ast.unparse(node.args[0].func) == "showable", file


def test_lines_logs_and_consoles_show_them_escaped(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    say(BAD, Path(BAD))
    say(BAD, stderr=True)
    for stderr in (False, True):
        console(stderr=stderr).print(BAD.replace("\n", " "))
    with caplog.at_level(logging.INFO):
        logger("garnish.of.a.test").info("%s: %s", BAD, OSError(BAD))
    found = capsys.readouterr()
    for text in (found.out, found.err, caplog.text):
        assert_clean(text)
        assert "\\x1b[31mred\\rover\\u202ecod\\x9b2J" in text
    assert json.loads(showable_json(json.dumps([BAD, "\U000e0001"], ensure_ascii=False))) == [BAD, "\U000e0001"]


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, pictures and a description, whose names and licence are not what they should be."""
    root = tmp_path_factory.mktemp("strange")
    weights = write_weights(root / "w.safetensors", gn.backbone("mit_b0", options=OPTIONS), license=BAD)
    trunk = gn.backbone("mit_b0", str(weights), options=OPTIONS)
    model = gn.adapt(trunk, gn.LoRA(rank=1), {"seg": gn.Semantic(classes=("a" + BAD, "b"))}, gn.LinearHead())
    model.save(root / "bundle")
    facts = json.loads((root / "bundle" / "bundle.json").read_text("utf-8"))
    facts["metrics"] = {"seg": {"miou" + BAD: 0.5}}
    (root / "bundle" / "bundle.json").write_text(json.dumps(facts), "utf-8")
    (root / "bundle" / "SHA256SUMS").unlink()
    for split in ("train", "val"):
        for kind, shape in (("images", (32, 32, 3)), ("ids", (32, 32))):
            (root / kind / split).mkdir(parents=True)
            array = np.zeros(shape, np.uint8)
            array[16:] = 1
            Image.fromarray(array).save(root / kind / split / f"{split}{BAD}.png".replace("\n", ""))
    named = json.dumps("a" + BAD)
    (root / "d.yaml").write_text(
        "images: 'images/{split}/{name}.png'\n"
        f"tasks: {{seg: {{task: Semantic, labels: 'ids/{{split}}/{{name}}.png', classes: [{named}, b]}}}}\n"
    )
    return root


@pytest.mark.parametrize(
    "words",
    [
        ["info", "bundle"],
        ["predict", "bundle", "images/val", "--out", "maps"],
        ["eval", "bundle", "--data", "d.yaml", "--split", "val"],
        ["check", "--data", "d.yaml", "--split", "val"],
        ["merge", "bundle", "--out", "merged"],
        ["peft", "export", "bundle", "--out", "adapter", "--dialect", "transformers5"],
        ["predict", f"none{BAD}", "images/val", "--out", "maps"],
        ["info", f"none/{BAD}"],
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_verbs_show_them_escaped(
    strange: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    as_json: bool,
) -> None:
    monkeypatch.chdir(strange)
    code = main([*words, *["--json"] * as_json])
    found = capsys.readouterr()
    assert_clean(found.out)
    assert_clean(found.err)
    assert code == (2 if any(BAD in word for word in words) else 0), found.err
    if code == 0:
        assert "\\u202e" in found.out or words[0] in ("merge", "peft", "eval"), found.out
        assert not as_json or json.loads(found.out)


def test_training_shows_them_escaped(
    strange: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(strange)
    words = ["train", "--backbone", "mit_b0", "--backbone.weights", "w.safetensors", "--data", "d.yaml"]
    words += ["--backbone.options", json.dumps(OPTIONS), "--train.steps", "1", "--train.batch_size", "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main([*words, "--out", str(tmp_path / "run")])
    found = capsys.readouterr()
    assert code == 0, found.err
    for shown in (found.out, found.err, *(f.read_text("utf-8") for f in tmp_path.rglob("*.csv"))):
        assert_clean(shown.replace("\r\n", "\n"))
    assert_clean((tmp_path / "run" / "args.yaml").read_text("utf-8"))
    assert "\\u202e" in found.out  # the licence


def test_the_page_of_a_comparison_shows_them_escaped(tmp_path: Path) -> None:
    results = from_json(Results, example(), "example")
    plain = page(results, tmp_path)
    assert showable(plain, keep="\n\t") == plain
    bad = BAD + "</script><img src=x onerror=alert(1)>"
    arms = tuple(dataclasses.replace(arm, name=arm.name + bad) for arm in results.arms)
    made = page(dataclasses.replace(results, title=bad, command=bad, arms=arms), tmp_path)
    assert not RAW & set(made) and "<img src=x" not in made
    stored = made.split('id="results">')[1].split("</script>")[0]
    assert json.loads(stored)["title"] == bad


def test_a_spreadsheet_reads_no_formula(tmp_path: Path) -> None:
    results = from_json(Results, example(), "example")
    first = dataclasses.replace(results.arms[0], name="=cmd|' /C calc'!A0" + BAD)
    text = csv_text(dataclasses.replace(results, arms=(first, *results.arms[1:])))
    assert_clean(text)
    assert text.splitlines()[1].startswith("'=cmd|' /C calc'!A0\\x1b")
    assert csv_text(results).splitlines()[0].startswith("name,role,")


def test_sheets_take_names_of_any_text(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    draw_sheet([[(BAD, picture)]], tmp_path / "s.png", legend={BAD: (1, 2, 3)}, cell_px=16)


def test_the_card_of_an_adapter_links_nowhere() -> None:
    trunk = gn.backbone("mit_b0", options=OPTIONS)
    trunk.licence = BAD + "[x](https://example.org) <script>"
    model = gn.adapt(trunk, gn.LoRA(rank=1), {"seg": gn.Semantic(classes=2)}, gn.LinearHead())
    card = readme(model, ["seg"], "timm", None).decode()
    assert_clean(card)
    assert "\\[x\\]\\(https\\://example.org\\) \\<script\\>" in card
    assert json.loads(card.split("license_name: ")[1].splitlines()[0]) == one_line(trunk.licence, 200)


def test_surrogates_of_file_names_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert sys.getfilesystemencoding() == "utf-8"
    from garnish.commands.printing import print_json, print_table

    print_json({"a\udcff": 1})
    print_table(["\x1ba"], [["\udcff\n"]])
    out = capsys.readouterr().out
    assert json.loads(out.split("}")[0] + "}") == {"a\udcff": 1} and "\\x1ba" in out and "\\udcff\\n" in out


def test_tables_of_thousands_of_rows_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    from garnish.commands.printing import MOST_ROWS, print_table

    print_table(["a"], [[f"row {number}"] for number in range(MOST_ROWS + 3_000)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MOST_ROWS + 2 and lines[-1] == "… and 3,000 more rows; --json prints all"
