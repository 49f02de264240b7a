"""The examples of ``docs/add-a-task.md`` and of readers, decodings and checks, as they stand there, from outside."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from garnish.data.annotations.annotation_format import AnnotationFormat
from garnish.data.labels.reader import Reader
from garnish.decodings.decoding import Decoding
from garnish.doctor.check import Check
from garnish.targets.target import Target
from garnish.tasks.task import Task
from outside.package import ROOT, installed, run

TASK, READER, DECODING, FORMAT = (
    ROOT / "docs" / f"add-a-{kind}.md" for kind in ("task", "reader", "decoding", "format")
)
CHECK = ROOT / "docs" / "check.md"
PAGES = [
    (Task, TASK),
    (Target, TASK),
    (Reader, READER),
    (Decoding, DECODING),
    (AnnotationFormat, FORMAT),
    (Check, CHECK),
]


def the_example(page: Path) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
    return block


def points(page: Path, module: str) -> dict[str, str]:
    """What the page writes into ``pyproject.toml``: "kind Name" → where that lies here."""
    blocks = "".join(re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.S | re.M))
    groups = tomllib.loads(blocks)["project"]["entry-points"]
    return {
        f"{group.removeprefix('garnish.')} {name}": re.sub(r"your_package\.\w+", module, where)
        for group, entries in groups.items()
        for name, where in entries.items()
    }


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> dict[str, str]:
    """An environment in which a package that is not ours offers the classes of the pages."""
    site = tmp_path_factory.mktemp("site")
    offered: dict[str, str] = {}
    modules = {
        "outside_curvature": TASK,
        "outside_number_lines": READER,
        "outside_signed_amount": DECODING,
        "outside_outline_table": FORMAT,
        "outside_grey_pictures": CHECK,
    }
    for module, page in modules.items():
        (site / f"{module}.py").write_text(the_example(page), "utf-8")
        offered |= points(page, module)
    return installed(site, offered)


def passed(environment: dict[str, str], *args: str) -> int:
    """How many tests passed; none fails."""
    printed = run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *args)
    return int(re.search(r"(\d+) passed", printed).group(1))


@pytest.mark.parametrize(
    "cases",
    [
        "curvature_cases.py",
        "number_lines_cases.py",
        "signed_amount_cases.py",
        "outline_table_cases.py",
        "grey_pictures_cases.py",
    ],
)
def test_the_whole_package_takes_it(outside, cases):
    file = ROOT / "tests" / "outside" / cases
    assert passed(outside, str(file)) >= file.read_text("utf-8").count("\ndef test_")


def test_the_conformance_suite_finds_the_task_without_an_edit(outside):
    suite = ROOT / "tests" / "conformance" / "test_tasks.py"
    assert passed(outside, str(suite), "-k", "Curvature") == suite.read_text("utf-8").count("\ndef test_")


def test_nothing_of_them_is_in_the_package():
    text = "".join(p.read_text("utf-8") for p in (ROOT / "src").rglob("*.py"))
    assert not re.search("CurvatureMap|SignedAmounts|NumberLines|OutlineTable|GreyPictures", text)


@pytest.mark.parametrize(("cls", "page"), PAGES)
def test_every_door_stands_on_its_page(cls, page):
    doors = {name for name in {**vars(cls), **inspect.get_annotations(cls)} if not name.startswith("_")}
    written = set(re.findall(r"`(\w+)(?:\([^`]*\))?`", page.read_text("utf-8")))
    assert len(doors) > 4 and doors - written == set()


@pytest.mark.parametrize(("cls", "page"), PAGES)
def test_arguments_of_doors_are_those_of_the_class(cls, page):
    for name, said in re.findall(r"`(\w+)\(([^`]*)\)`", page.read_text("utf-8")):
        method = inspect.getattr_static(cls, name, None)
        if name in vars(cls) and said:
            function = method.__func__ if isinstance(method, classmethod) else method
            takes = [n for n in inspect.signature(function).parameters if n not in ("self", "cls")]
            others = [vars(c).get(name) for c in (Task, Target) if c is not cls and page is TASK]
            assert said.split(", ") == takes or any(others), f"{name}({said}), but it takes {takes}"
