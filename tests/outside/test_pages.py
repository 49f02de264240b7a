"""Pages that say how to add a class: every door is on its page, and its example is the file that the suites run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from garnish.backbones.backbone import Backbone
from garnish.backbones.timm_models import TimmTrunk, create_timm
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.blocks import FeatureInfo, LayerScale, Residual, Stage, Whole
from garnish.engine.sites import Site, SiteKind
from garnish.engine.trunk import Trunk
from garnish.heads.head import Head, JointHead
from outside.package import ROOT

HERE = Path(__file__).parent
#: page → classes whose doors it names; functions whose arguments are named as well
PAGES = {
    "add-a-method.md": (Method, Plan, Adapter, Site),
    "add-a-head.md": (Head, JointHead, FeatureInfo),
    "add-a-backbone.md": (Backbone, Trunk, TimmTrunk, FeatureInfo, Residual, Stage, Whole, LayerScale),
}
ARGUMENTS = {
    "add-a-head.md": (Head.build, Head.begin, JointHead.build_joint),
    "add-a-backbone.md": (Trunk.__init__, Backbone.create, Stage.__init__, Residual.__init__, create_timm),
}
EXAMPLES = {"add-a-head.md": "fpn.py", "add-a-backbone.md": "pvt.py"}
#: page → further blocks, which other tests run (tests/test_own_classes.py)
OTHERS = {"add-a-head.md": 1}


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text("utf-8")


def named(text: str) -> set[str]:
    """Words that stand in code marks outside of blocks."""
    marked = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {word for mark in marked for word in re.findall(r"\w+", mark)}


def doors(cls: type) -> set[str]:
    """What a subclass can give or override, or a caller set: declared attributes, fields, methods and properties."""
    own = {name for name, value in vars(cls).items() if not isinstance(value, type)}
    said = re.findall(r"^ {4,8}(\w+(?:, \w+)*): ", (cls.__doc__ or "").partition("Attributes:")[2], re.MULTILINE)
    fields = {name for line in said for name in line.split(", ")}
    return {name for name in own | set(cls.__annotations__) | fields if not name.startswith("_")}


@pytest.mark.parametrize(("page", "cls"), [(page, cls) for page, found in PAGES.items() for cls in found])
def test_every_door_is_on_its_page(page, cls):
    # called by functional_call, and what every module of torch has
    missing = doors(cls) - named(text_of(page)) - ({"forward"} if cls is not Backbone else set())
    assert not missing, f"{page} does not name {', '.join(sorted(missing))} of {cls.__name__}"


@pytest.mark.parametrize(("page", "function"), [(page, f) for page, found in ARGUMENTS.items() for f in found])
def test_every_argument_is_on_its_page(page, function):
    missing = set(inspect.signature(function).parameters) - {"self", "cls"} - named(text_of(page))
    assert not missing, (page, function.__qualname__, missing)


def test_doors_are_found():
    """By hand, of each kind one."""
    assert {"before", "for_row", "convolves", "on_adapted"} <= doors(Adapter)
    assert {"per_task", "grid", "may_be_empty", "plan", "fits"} <= doors(Method)
    assert {"shared", "routing", "is_empty"} <= doors(Plan) and {"pyramid", "begin"} <= doors(Head)
    assert {"most_prompts", "multiple", "licence", "sites", "prompted"} <= doors(Trunk)
    assert {"small", "create"} <= doors(Backbone) and {"timm_module"} <= doors(TimmTrunk)


def test_every_kind_of_site_is_on_the_page():
    assert set(SiteKind.__args__) <= named(text_of("add-a-method.md"))


@pytest.mark.parametrize(("page", "file"), EXAMPLES.items())
def test_the_example_is_the_file_that_the_suites_run(page, file):
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    assert blocks[0] == (HERE / file).read_text("utf-8"), f"write tests/outside/{file} into docs/{page}"
    assert len(blocks) == 1 + OTHERS.get(page, 0)


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_takes_from_the_package_is_there(page):
    """Functions and modules that are named with their module lie there."""
    for path in re.findall(r"`((?:garnish|tests|benchmarks|tools)[\w./]*)`", text_of(page)):
        if "/" in path:
            assert (ROOT / path.split()[0]).exists(), path
        elif not path.startswith("garnish.") or path.split(".")[1] in ("adapters", "heads", "tasks", "backbones"):
            lies = ROOT / "src" / path.replace(".", "/")
            assert lies.is_dir() or lies.with_suffix(".py").exists(), path
