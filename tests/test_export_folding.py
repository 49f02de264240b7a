"""What an export folds into the trunk: outputs stay, adapters go where they can, and the model is left as it was."""

from __future__ import annotations

import pytest
import torch

import garnish as gn
import tiny
from garnish.engine.attach import adapted_sites
from garnish.exporting.deployed import chosen_tasks, folded_copy, plain_copy

#: methods → how many sites keep an adapter of a tiny ViT
FOLDED = {
    "LoRA": (lambda: gn.LoRA(rank=2), 0),
    "DoRA": (lambda: gn.LoRA(rank=2, dora=True), 0),
    "SSF": (lambda: gn.SSF(), 0),
    "BitFit": (lambda: gn.BitFit(), 0),
    "FullFineTuning": (lambda: gn.FullFineTuning(), 0),
    "twice": (lambda: [gn.LoRA(rank=2, layers=("fc1", "proj")), gn.LoRA(rank=3, layers=("proj",))], 0),
    "beside": (lambda: [gn.LoRA(rank=2), gn.AdaptFormer(bottleneck=16)], 4),
    "behind": (lambda: [gn.VPT(prompts=3), gn.LoRA(rank=2)], 4),
    "Houlsby": (lambda: gn.Houlsby(), 8),
    "MTLoRA": (lambda: gn.MTLoRA(rank=4, task_rank=2), None),
    "Polyhistor": (lambda: gn.PolyhistorLite(), None),
    "VMT": (lambda: gn.VMTAdapter(), None),
    "SideTuning": (lambda: gn.SideTuning(), 0),
    "each": (lambda: gn.LoRA(rank=2, per_task=True), None),
}


@pytest.mark.parametrize("case", FOLDED)
def test_outputs_stay_and_adapters_go_where_they_can(case):
    made, left = FOLDED[case]
    model = tiny.model("vit", made(), tasks=("seg", "depth"))
    before = {name: tensor.clone() for name, tensor in model.all_tensors().items()}
    copied = plain_copy(model).double()  # random trunks make much of rounding
    folded = folded_copy(copied, tuple(model.tasks))
    images = tiny.pictures(3, 64, 80)
    with torch.no_grad():
        want, got = copied(images), folded(images)
    for task in model.tasks:
        assert tiny.far(got[task], want[task]) < 1e-10, task
    sites = {site.name for site, _ in adapted_sites(folded.backbone)}
    if left is not None:
        assert len(sites) == left, sites
    assert not any(len(owner.tuned) for owner in folded.owners)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.all_tensors().items())


def test_mtlora_keeps_what_tasks_own_alone():
    model = tiny.model("swin", gn.MTLoRA(rank=4, task_rank=2), tasks=("seg", "depth"))
    sites = {site.name for site, _ in adapted_sites(model.backbone)}
    own = {at.site.name for owner in model.owners if owner.parent is not None for at in owner.places.values()}
    folded = folded_copy(plain_copy(model), tuple(model.tasks))
    assert {site.name for site, _ in adapted_sites(folded.backbone)} == own < sites


def test_a_site_of_which_one_adapter_cannot_be_folded_keeps_its_weights():
    model = tiny.model("vit", [gn.SSF(), gn.AdaptFormer(bottleneck=16)], tasks=("seg",))
    copied = plain_copy(model).double()
    folded = folded_copy(copied, ("seg",))
    with torch.no_grad():
        images = tiny.pictures(2, 64, 64)
        assert tiny.far(folded(images)["seg"], copied(images)["seg"]) < 1e-10
    assert list(adapted_sites(folded.backbone))


def test_owners_of_other_tasks_are_left_out():
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",))
    model.add(gn.Houlsby(), {"depth": gn.Depth(max_metres=10.0)})
    tiny.randomise_own(model)
    model.eval()
    copied = plain_copy(model).double()
    folded = folded_copy(copied, chosen_tasks(model, ["seg"]))
    assert list(folded.tasks) == ["seg"]
    assert not list(adapted_sites(folded.backbone))
    with torch.no_grad():
        images = tiny.pictures(2, 64, 64)
        assert tiny.far(folded(images)["seg"], copied(images)["seg"]) < 1e-10


def test_unknown_tasks_are_refused():
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",))
    with pytest.raises(gn.errors.OptionError, match="unknown task 'sag'"):
        chosen_tasks(model, ["sag"])
