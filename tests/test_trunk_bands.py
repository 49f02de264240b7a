"""Other bands than RGB enter a trunk at its first layer alone, as a plain convolution of all bands would take them."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor

import band_cases as cases
import garnish as gn
import tiny
from garnish.engine.banded import first_layer
from garnish.engine.input_pictures import prepared
from garnish.errors import OptionError, SiteError
from garnish.model.unchanged_start import begin, prefix_of
from garnish.pictures.bands import Bands
from garnish.pictures.given_bands import GivenBands

every_family = pytest.mark.parametrize("short", tiny.BACKBONES)


def rgb_twin(model: gn.Model, short: str, *added: object) -> gn.Model:
    """A model of RGB with the same adapters and heads."""
    made = tiny.model(short, list(added), tasks=tuple(model.tasks))
    ours = model.own_tensors()
    with torch.no_grad():
        for name, tensor in made.own_tensors().items():
            tensor.copy_(ours[name])
    return made


@every_family
def test_with_zeros_the_start_equals_the_trunk_on_red_green_and_blue(short):
    model = cases.model(short, gn.LoRA(rank=2), own=False, tasks=["seg"])
    images = cases.pictures(2, 70, 50)
    want = rgb_twin(model, short, gn.LoRA(rank=2))(images[:, cases.RGB])["seg"]
    assert torch.equal(model(images)["seg"], want)
    maps = model.backbone(model.prepare(images), model.owners[0])
    bare = tiny.bare_trunk(short)
    x = prepared(images[:, cases.RGB], model.mean, model.std, bare.multiple)
    assert all(torch.equal(a, b) for a, b in zip(maps, bare(x), strict=True))


@every_family
def test_it_is_a_plain_network_of_as_many_channels(short):
    model = cases.model(short, gn.Frozen(), tasks=["seg"]).double()
    owner, images = model.owners[0], cases.pictures(2, 70, 50)
    net, layer = cases.plain(tiny.bare_trunk(short), owner.others.weight)
    want = net(cases.normalised(net, images))
    got = model.backbone(model.prepare(images.double()), owner)
    assert max(map(tiny.far, got, want)) < 1e-5  # mean and std are held in float32
    assert (
        tiny.far(got[-1], model.backbone(model.prepare(cases.pictures(2, 70, 50).double().flip(0)), owner)[-1]) > 1e-3
    )
    for maps, of in ((got, owner.others.weight), (want, layer.weight)):
        sum((m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view(m.shape)).sum() for m in maps).backward()
        assert of.grad is not None
    assert tiny.far(owner.others.weight.grad, layer.weight.grad[:, cases.OTHERS]) < 1e-4


@pytest.mark.parametrize("level", ["fast", "lean", "least"])
@pytest.mark.parametrize("short", ["mit", "swin", "cnn"])
def test_memory_levels_keep_the_gradient(short, level):
    model = cases.model(short, gn.LoRA(rank=2), tasks=["seg"]).double()
    grads = {}
    for memory in ("fast", level):
        model.backbone.memory = memory
        model.zero_grad()
        tiny.one_loss(model(cases.pictures().double())).backward()
        grads[memory] = {n: p.grad.clone() for n, p in model.trained_parameters().items()}
    assert all(tiny.far(grads[level][n], g) < 1e-10 for n, g in grads["fast"].items() if g.any())
    assert grads[level]["bands.seg." + model.owners[0].others.site.name + ".weight"].any()


def test_red_green_and_blue_in_another_order_take_their_filters_and_train_nothing():
    other = Bands(names=("blue", "green", "red"))
    model = cases.model("swin", gn.LoRA(rank=2), bands=other)
    images = (cases.pictures(bands=3) * 255).to(torch.uint8)
    want = rgb_twin(model, "swin", gn.LoRA(rank=2))(images[:, [2, 1, 0]])
    assert all(torch.equal(out, want[task]) for task, out in model(images).items())
    assert model.owners[0].others is None and not any(n.startswith("bands.") for n in model.own_tensors())
    assert model.bands_of("seg") == other and not model.bands_of("seg").is_rgb


def test_missing_colours_are_the_trunks_mean_colour():
    model = cases.model("vit", gn.LoRA(rank=2), bands=Bands(names=("blue",)))
    images = cases.pictures(2, 40, 64, 1)
    mean = torch.tensor(model.backbone.mean).view(1, 3, 1, 1)
    full = mean.expand(2, 3, 40, 64).clone()
    full[:, 2:] = images
    want = rgb_twin(model, "vit", gn.LoRA(rank=2))(full)
    assert all(torch.equal(out, want[task]) for task, out in model(images).items())


def test_what_has_no_data_is_the_bands_mean():
    model = cases.model("swin", gn.LoRA(rank=2)).double()
    images = cases.pictures().double().clone()
    gaps = torch.rand(images.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    means = torch.tensor(cases.MEAN, dtype=torch.float64)
    means[cases.RGB] = torch.tensor(model.backbone.mean, dtype=torch.float64)
    filled = torch.where(gaps, means.view(1, 5, 1, 1), images)
    images[gaps] = torch.nan
    got, want = model(images), model(filled)
    assert all(tiny.far(got[task], out) < 1e-6 for task, out in want.items())
    assert not torch.isnan(got["seg"]).any()
    images[0, 0, 0, 0] = torch.inf  # is no gap: it stays to be found
    assert not torch.isfinite(model.prepare(images)).all()


@pytest.mark.parametrize(
    ("names", "share"), [(("nir", *"abcdefg"), 3 / 8), (("red", "nir", "swir"), 2 / 2), (cases.FIVE.names, 1 / 2)]
)
def test_filters_that_begin_as_the_mean_weigh_what_is_missing_or_one_plane(names, share):
    known = cases.statistics((0.5,) * len(names), (0.2,) * len(names))
    model = cases.model(
        "mit", gn.Frozen(), own=False, bands=Bands(names=names, range=(0, 1)), known=known, extra="mean"
    )
    _, layer = first_layer(model.backbone)
    others = model.owners[0].others.weight
    want = layer.weight.double().sum(1, keepdim=True) / 3 * share
    assert others.shape[1] == sum(name not in ("red", "green", "blue") for name in names)
    assert tiny.far(others.double(), want.expand_as(others)) < 1e-6


def test_numbers_of_files_are_read_as_bands_read_them():
    stored = torch.randint(0, 65536, (1, 5, 64, 64), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    bands = Bands(names=cases.FIVE.names, range=(0.0, 10000.0), scale=(0.5, 1, 1, 1, 2), offset=3.0, nodata=7)
    stored[0, :, :2] = 7
    model = cases.model("swin", gn.LoRA(rank=2), bands=bands, known=cases.statistics())
    values = bands.values(stored[0].permute(1, 2, 0).numpy().astype("uint16"), "x")
    want = model(torch.from_numpy(values)[None])["seg"]
    assert tiny.far(model(stored.to(torch.uint16))["seg"], want) < 1e-5
    assert tiny.far(model(stored)["seg"], want) < 1e-5
    assert torch.isnan(torch.from_numpy(values[:, :2])).all()


# ---- owners and passes --------------------------------------------------------------------------------------------


def test_rows_of_owners_with_the_same_bands_share_a_pass_and_equal_rows_alone():
    for whole in (False, True):
        model = cases.model("mit", gn.LoRA(rank=2, per_task=True)).double()
        x = cases.pictures().double()
        with torch.no_grad():
            alone = {task: model(x, [task])[task] for task in model.tasks}
            mixed = model(x, tiny.MIX)
            rows = {t: [i for i, names in enumerate(tiny.MIX) if t in names] for t in model.tasks}
            assert all(tiny.far(out, alone[task][rows[task]]) < 1e-9 for task, out in mixed.items())
            if whole:
                model.compile(backend="eager")
                compiled = model(x, tiny.MIX)
                assert all(tiny.far(out, alone[task][rows[task]]) < 1e-9 for task, out in compiled.items())


def test_owners_of_other_bands_or_statistics_never_share_a_pass():
    model = cases.model("vit", gn.LoRA(rank=2), tasks=["seg"])
    model.add(gn.LoRA(rank=2), {"far": gn.Depth()}, bands=cases.FIVE, statistics=cases.statistics((0.9,) * 5))
    model.add(gn.LoRA(rank=2), {"rgb": gn.Depth()})
    tiny.randomise_own(model)
    images, calls = cases.pictures(), []
    handle = model.backbone.register_forward_hook(lambda *_: calls.append(1))
    out = model(images, ["seg", "far"])
    handle.remove()
    assert len(calls) == 2
    assert torch.equal(out["seg"], model(images, ["seg"])["seg"])
    assert torch.equal(out["far"], model(images, ["far"])["far"])
    with pytest.raises(OptionError, match=r"seg, far: nir, blue, green, swir, red; rgb: red, green, blue\); ask for"):
        model(images)
    with pytest.raises(OptionError, match=r"must be \(N, 5, H, W\), got \(3, 3, 64, 64\); seg takes the bands nir"):
        model(images[:, :3], ["seg"])
    assert model(images[:, :3], ["rgb"])["rgb"].shape == (3, 1, 64, 64)
    with pytest.raises(OptionError, match="stack RGB pictures"):
        model(images, ["rgb"])
    with pytest.raises(OptionError, match="other statistics; name those of one owner"):
        model.prepare(images, ["seg", "far"])
    assert model(images[:0], ["seg"])["seg"].shape == (0, 5, 64, 64) and model(images[:0]) == {}


def test_another_owners_outputs_do_not_change_when_bands_come_and_go():
    model = tiny.model("swin", gn.LoRA(rank=2, layers=("enter.proj", "stem.proj")[1:]), tasks=["seg"])
    x = tiny.pictures()
    before = model(x)["seg"]
    model.add(gn.Partial(), {"five": gn.Depth()}, bands=cases.FIVE, statistics=cases.statistics(), extra="mean")
    assert torch.equal(model(x, ["seg"])["seg"], before)
    model.add(gn.LoRA(rank=2, layers=("stem.proj",)), {"late": gn.Depth()})  # a wrapper inside the one for bands
    assert torch.equal(model(x, ["seg"])["seg"], before)
    assert model(cases.pictures(), ["five"])["five"].shape[1] == 1
    model.check_sites()
    model.remove(["five"])
    assert torch.equal(model(x, ["seg"])["seg"], before)


def test_an_adapter_at_the_first_layer_and_filters_of_other_bands_add_up():
    model = cases.model("vit", gn.LoRA(rank=2, layers=("stem.proj",)), tasks=["seg"]).double()
    x = model.prepare(cases.pictures().double())
    owner = model.owners[0]
    _, layer = first_layer(model.backbone)
    ((_, adapter),) = owner.placed()
    weight = adapter.merged(layer.weight, layer.bias)[0]
    want = torch.conv2d(x, torch.cat([weight, owner.others.weight], 1), layer.bias, layer.stride)
    found: list[Tensor] = []
    site = next(module for at, module in model.backbone.sites_with_modules() if at.name == owner.others.site.name)
    handle = site.register_forward_hook(lambda *call: found.append(call[-1]))
    model.backbone(x, owner)
    handle.remove()
    assert tiny.far(found[0], want) < 1e-12


def test_a_method_that_rewrites_the_weight_may_sit_at_the_first_layer():
    method = gn.LoRA(rank=2, dora=True, layers=("stem.proj",))
    model = cases.model("vit", method, tasks=["seg"]).double()
    merged = cases.model("vit", gn.Frozen(), tasks=["seg"]).double()
    ((_, adapter),) = model.owners[0].placed()
    (_, layer), (_, other) = first_layer(model.backbone), first_layer(merged.backbone)
    with torch.no_grad():
        other.weight.copy_(adapter.merged(layer.weight, layer.bias)[0])
        for name, tensor in merged.own_tensors().items():
            tensor.copy_(model.own_tensors()[name])
    images = cases.pictures().double()
    assert tiny.far(model(images)["seg"], merged(images)["seg"]) < 1e-12


def test_side_networks_learn_the_filters_through_the_trunk():
    model = cases.model("vit", gn.SideTuning(), tasks=["seg"])
    tiny.one_loss(model.train()(cases.pictures())).backward()
    grad = model.owners[0].others.weight.grad
    assert grad is not None and grad.any()


def test_copies_and_other_types_keep_the_bands():
    model = cases.model("mit", gn.LoRA(rank=2), tasks=["seg"])
    images = cases.pictures()
    want = model(images)["seg"]
    copied = copy.deepcopy(model)
    assert torch.equal(copied(images)["seg"], want)
    copied.owners[0].others.weight.data.zero_()
    assert torch.equal(model(images)["seg"], want) and not torch.equal(copied(images)["seg"], want)
    assert tiny.far(model.double()(images.double())["seg"], want.double()) < 1e-4
    late = tiny.model("mit", gn.Frozen(), tasks=["seg"]).double()  # an owner without parameters, but with numbers
    late.add(gn.Frozen(), {"d": gn.Depth()}, bands=Bands(names=("red", "blue")))
    assert late(images[:, :2].double(), ["d"])["d"].dtype == torch.float64


def test_the_unchanged_part_of_a_trunk_ends_before_filters_of_other_bands():
    model = cases.model("vit", gn.Frozen(), tasks=["seg"])
    with pytest.raises(OptionError, match="Frozen \\+ the filters of further bands changes stem, which lies before"):
        prefix_of(model, ["seg"])
    model = cases.model("vit", gn.Frozen(), tasks=["seg"], bands=Bands(names=("blue", "green", "red")))
    images = cases.pictures(bands=3)
    prefix = prefix_of(model, ["seg"])
    state = begin(model, images, prefix)
    assert torch.equal(model(images, start=state)["seg"], model(images)["seg"])


# ---- what is told, and what is refused ----------------------------------------------------------------------------


def test_the_filters_are_counted_and_told():
    five, rgb = cases.model("mit", gn.LoRA(rank=2), tasks=["seg"]), tiny.model("mit", gn.LoRA(rank=2), tasks=["seg"])
    more = five.owners[0].others.weight.numel()
    assert more == 16 * 2 * 7 * 7
    told, before = five.report((64, 64)), rgb.report((64, 64))
    assert told["encoder_trainable"] == before["encoder_trainable"] + more
    assert told["macs"] == before["macs"] + more * 16 * 16  # 16 x 16 places of the first layer
    assert told["bands"] == {"seg": {"names": list(cases.FIVE.names), "filters": [16, 2, 7, 7]}} and not before["bands"]
    line = "takes 5 bands: nir, blue, green, swir, red; 2 of them by 1,568 of these parameters, at stages.0.enter.proj"
    assert line in repr(five)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bands": cases.FIVE}, "statistics: no trunk knows the mean of nir, swir; give statistics="),
        ({"statistics": cases.statistics()}, "8-bit red, green and blue are normalised as the trunk was trained"),
        ({"bands": cases.FIVE, "statistics": cases.statistics((0.5,), (1.0,))}, "of 1 bands, but 5 are given"),
        ({"extra": "mean"}, "extra: mean, but there is no band beside red, green and blue"),
        ({"bands": cases.FIVE, "statistics": cases.statistics(std=(0.0,) * 5)}, "band 'nir' is constant"),
        (
            {"bands": cases.FIVE, "statistics": cases.statistics(std=(0.0,) * 5, missing=1.0)},
            "band 'nir' holds no data",
        ),
        ({"bands": cases.FIVE, "statistics": cases.statistics(), "extra": "ones"}, "expected one of zero, mean"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, told):
    with pytest.raises(OptionError, match=told):
        gn.adapt(tiny.backbone("mit"), gn.Frozen(), {"seg": gn.Semantic(classes=2)}, **options)


def test_a_trunk_with_another_first_layer_is_refused():
    trunk = gn.backbone("test_nfnet")
    with pytest.raises(
        SiteError, match=r"first plain layer of test_nfnet is stages.0.*no convolution of red, green and blue"
    ):
        gn.adapt(trunk, gn.Frozen(), {"seg": gn.Semantic(classes=2)}, bands=cases.FIVE, statistics=cases.statistics())
    model = gn.adapt(trunk, gn.Frozen(), {"seg": gn.Semantic(classes=2)}, bands=Bands(names=("green", "red", "blue")))
    assert model(cases.pictures(1, 64, 64, 3))["seg"].shape == (1, 2, 64, 64)


def test_pictures_of_another_kind_are_refused():
    model = cases.model("mit", gn.Frozen(), tasks=["seg"])
    with pytest.raises(OptionError, match="bool; give the numbers of files, or floats"):
        model(cases.pictures() > 0)
    two = cases.statistics((0.5, 0.5), (1.0, 1.0))
    free = cases.model("mit", gn.Frozen(), tasks=["seg"], bands=Bands(names=("red", "nir")), known=two)
    with pytest.raises(OptionError, match=r"pictures: holds int32, of which nothing says what is black"):
        free(cases.pictures(bands=2).to(torch.int32))
    assert free(50 * cases.pictures(bands=2))["seg"].shape == (3, 5, 64, 64)  # values beyond 1 are the bands' business


def test_what_makes_the_same_input_is_equal_and_json_keeps_it():
    bands = Bands(names=("a", "red"), range=((0, 1), (0, 9)), nodata=float("inf"))
    given = GivenBands(bands=bands, statistics=cases.statistics((0.1, 0.2), (1.0, 2.0)), extra="mean")
    again = GivenBands.read(json.loads(json.dumps(given.facts(), allow_nan=False)), "x", OptionError)
    assert again == given and again.key == given.key
    other = GivenBands(bands=given.bands, statistics=cases.statistics((0.1, 0.9), (1.0, 5.0)))
    assert other.key == given.key  # of red the trunk's own are used
    assert Bands(names=("a",), nodata=float("nan")) == Bands(names=("a",))
