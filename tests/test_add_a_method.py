"""The example of ``docs/add-a-method.md``, written out as the page has it and added from outside the package."""

from __future__ import annotations

import re

import pytest

from outside.package import ROOT, conformance, installed, run

PAGE = ROOT / "docs" / "add-a-method.md"

SCRIPT = """
import contextlib, io, json
import torch
import garnish as gn
import tiny
from garnish import registry
from garnish.engine.folding import merge_adapters

assert gn.Rescale.__module__ == "outside_rescale"
assert registry.describe(gn.Rescale(per_task=True)) == {"name": "Rescale", "options": {"per_task": True, "layers": []}}
for short in ("dinov2", "swin"):
    model = tiny.model(short, gn.Rescale(per_task=True), own=False)
    x = tiny.pictures()
    bare = tiny.backbone(short)(model.prepare(x))
    assert all(torch.equal(a, b) for a, b in zip(model.backbone(model.prepare(x), model.owners[0]), bare))

    # it trains
    optimizer = torch.optim.Adam(model.trained_parameters().values(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = tiny.one_loss(model.train()(x, tiny.MIX))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0], losses
    tiny.randomise_own(model.eval())

    with torch.no_grad():
        # rows of several tasks in one batch
        mixed = model(x, tiny.MIX)
        for task in model.tasks:
            rows = [i for i, wanted in enumerate(tiny.MIX) if task in wanted]
            alone = torch.cat([model(x[i : i + 1], [task])[task] for i in rows])
            assert tiny.far(mixed[task], alone) < 1e-5
        assert tiny.far(mixed["depth"][1:], model(x, ["seg"])["seg"][2:, :1]) > 1e-2

        # it merges
        for owner in model.owners:
            want = model.backbone(model.prepare(x), owner)
            got = merge_adapters(model.backbone, owner)(model.prepare(x))
            assert max(tiny.far(a, b) for a, b in zip(got, want)) < 1e-5
            assert tiny.far(want[-1], bare[-1]) > 1e-2

# the command line lists it
from garnish.cli import main

with contextlib.redirect_stdout(io.StringIO()) as listed:
    main(["methods", "--json"])
assert "Rescale" in json.loads(listed.getvalue())["adapters"]
print("all done")
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> dict[str, str]:
    """An environment in which a package that is not ours offers the page's class."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    assert len(blocks) == 1, "the page holds one example"
    assert blocks[0].count("\n") < 60, "the example is short"
    site = tmp_path_factory.mktemp("site")
    (site / "outside_rescale.py").write_text(blocks[0], "utf-8")
    return installed(site, {"adapters Rescale": "outside_rescale:Rescale"})


def test_the_example_runs_from_outside(outside):
    assert "all done" in run(outside, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SCRIPT)


def test_the_conformance_suite_finds_it_without_an_edit(outside):
    # one family here; -m slow adds the others
    assert len(conformance(outside, "Rescale and dinov2")) >= 10


def test_nothing_of_it_is_in_the_package():
    hits = [p for p in (ROOT / "src").rglob("*.py") if "Rescale" in p.read_text("utf-8")]
    assert not hits


@pytest.mark.slow
def test_the_whole_suite_passes_on_it(outside):
    assert conformance(outside, "Rescale", "-m", "slow or not slow")
