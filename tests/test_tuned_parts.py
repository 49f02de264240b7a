"""Which parameters and places the published methods take, against timm's own names; refusals; prefix tokens.

A timm name that holds "bias" or "norm" is the filter of released codes; where ours differs from it, the test says so.
"""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import garnish as gn
import tiny
from garnish.backbones.backbone import Backbone
from garnish.engine.context import ForwardContext
from garnish.engine.folding import merge_adapters
from garnish.errors import OptionError, SiteError


def tuned(short: str, method) -> set[str]:
    """Names of what a method tunes, as timm calls them."""
    trunk = tiny.backbone(short)
    return {trunk.source_names[name] for name in method.plan(trunk).tuned}


def timm_model(short: str) -> nn.Module:
    _, name, options = tiny.BACKBONES[short]
    extra = {"always_partition": True, "strict_img_size": False} if short == "swin" else {"dynamic_img_size": True}
    return timm.create_model(name, num_classes=0, **options, **extra)


def timm_names(short: str) -> set[str]:
    """Of the trunk's parameters, without the final norm that is left out here."""
    return {n for n, _ in timm_model(short).named_parameters() if not n.startswith(("norm.", "fc_norm."))}


def timm_norms(short: str) -> set[str]:
    found = {
        f"{n}.{leaf}"
        for n, m in timm_model(short).named_modules()
        if isinstance(m, nn.LayerNorm) and n not in ("norm", "fc_norm")
        for leaf, _ in m.named_parameters()
    }
    assert len(found) >= 16
    return found


@pytest.mark.parametrize("short", ["vit", "dinov2", "dinov3", "swin"])
def test_bitfit(short):
    names = timm_names(short)
    with_tables = {n for n in names if "bias" in n}
    plain = {n for n in with_tables if "table" not in n}
    assert len(plain) > 16 and (plain != with_tables) == (short == "swin")
    assert tuned(short, gn.BitFit()) == plain
    assert tuned(short, gn.BitFit(tables=True)) == with_tables


def test_bitfit_takes_biases_that_attention_keeps_itself():
    trunk = gn.backbone("vit_small_patch16_dinov3_qkvb", options=tiny.BACKBONES["dinov3"][2])
    names = gn.BitFit().plan(trunk).tuned
    assert sum(n.endswith(("attn.q_bias", "attn.v_bias")) for n in names) == 2 * 4
    assert not any(n.endswith("k_bias") for n in names)  # a buffer of zeros


@pytest.mark.parametrize("short", ["vit", "dinov2", "dinov3", "swin"])
def test_norm_tuning(short):
    norms = timm_norms(short)
    assert tuned(short, gn.NormTuning()) == norms
    assert tuned(short, gn.NormTuning(places=("mlp",))) == {n for n in norms if ".norm2." in n}
    assert tuned(short, gn.NormTuning(places=("attn", "mlp"))) == {n for n in norms if "blocks." in n}


def test_partial_counts_blocks_from_the_end():
    names = timm_names("swin")
    last = [f"layers.3.blocks.{b}." for b in (0, 1)]
    before = "layers.2.blocks.1."
    assert tuned("swin", gn.Partial()) == {n for n in names if n.startswith(last[1])}
    assert tuned("swin", gn.Partial(blocks=2)) == {n for n in names if n.startswith(tuple(last))}
    assert tuned("swin", gn.Partial(blocks=3)) == {n for n in names if n.startswith((*last, before))}
    every = tuned("swin", gn.Partial(blocks=8))
    assert every == {n for n in names if ".blocks." in n}


def test_extras():
    kept = {n for n in timm_names("swin") if "patch_embed" in n or "table" in n} | timm_norms("swin")
    reductions = {n for n in timm_names("swin") if "reduction" in n}
    assert len(reductions) == 3
    assert tuned("swin", gn.Extras()) == kept | reductions
    assert tuned("swin", gn.Extras(reductions=False)) == kept
    assert tuned("vit", gn.Extras()) == {n for n in timm_names("vit") if "patch_embed" in n} | timm_norms("vit")
    trunk = tiny.backbone("mit")
    more = set(gn.Extras().plan(trunk).tuned) - set(gn.Extras(reductions=False).plan(trunk).tuned)
    assert more == {f"stages.{s}.enter.proj.{leaf}" for s in (1, 2, 3) for leaf in ("weight", "bias")}
    assert "stages.0.enter.proj.weight" in gn.Extras(reductions=False).plan(trunk).tuned


@pytest.mark.parametrize("short", list(tiny.BACKBONES))
def test_ssf_stands_at_its_places(short):
    trunk = tiny.backbone(short)
    sites = set(gn.SSF().plan(trunk).adapters)
    left_out = {s.name for s in trunk.sites() if s.kind in ("layer", "norm")} - sites
    if short == "cnn":  # a batch norm with its activation is one module there
        assert left_out and all(name.rsplit(".", 1)[-1].startswith("bn") for name in left_out)
        assert "stem.body.conv_stem" in sites
        return
    if short == "convnext":
        assert left_out == {n for n in left_out if n.endswith((".grn", "enter.conv"))} and "stem.convs.0" in sites
        return
    reductions = {"mit": "stages.{}.enter.proj"}.get(short, "stages.{}.enter.reduction" * ("swin" in short))
    assert left_out == ({reductions.format(s) for s in (1, 2, 3)} if reductions else set())
    assert ("stages.0.enter.proj" if short == "mit" else "stem.patch_embed.proj") in sites


def test_ssf_merged_gives_layers_without_bias_one():
    # DINOv3's qkv has none
    model = tiny.model("dinov3", gn.SSF()).double()
    qkv = merge_adapters(model.backbone, model.owners[0]).stages[0].blocks[0]["attn"].branch.layer.qkv
    adapter = next(a for at, a in model.owners[0].placed() if at.site.name.endswith("attn.qkv"))
    assert torch.equal(qkv.bias, adapter.shift)


@pytest.mark.parametrize(("short", "num_prefix"), [("vit", 1), ("dinov3", 5)])
def test_convpass_convolves_each_prefix_token_as_a_map_of_its_own(short, num_prefix):
    trunk = tiny.backbone(short)
    adapter = gn.Convpass(init="xavier").plan(trunk).adapters["stages.1.blocks.0.attn.beside"].double().eval()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ctx = ForwardContext(grid=(3, 5), num_prefix=num_prefix)
    assert trunk.num_prefix == num_prefix
    x = torch.randn(2, num_prefix + 15, 48, dtype=torch.float64)
    y = torch.zeros_like(x)
    got = adapter.after(x, y, ctx)
    alone = ForwardContext(grid=(1, 1))
    for i in range(num_prefix):
        torch.testing.assert_close(got[:, i : i + 1], adapter.after(x[:, i : i + 1], y[:, i : i + 1], alone))
    body = adapter.after(x[:, num_prefix:], y[:, num_prefix:], ForwardContext(grid=(3, 5)))
    torch.testing.assert_close(got[:, num_prefix:], body)


def test_mona_leaves_prefix_tokens_out_of_its_convolutions():
    adapter = gn.Mona(bottleneck=8).plan(tiny.backbone("vit")).adapters["stages.0.blocks.0.attn"].double().eval()
    y = torch.randn(2, 16, 48, dtype=torch.float64)
    got = adapter.after(y, y, ForwardContext(grid=(3, 5), num_prefix=1))
    u = adapter.gamma * adapter.norm(y) + adapter.gamma_x * y
    plain = y + adapter.up(F.gelu(adapter.down(u)))
    torch.testing.assert_close(got[:, :1], plain[:, :1])
    assert tiny.far(got[:, 1:] - y[:, 1:], plain[:, 1:] - y[:, 1:]) > 0.1


@pytest.mark.parametrize("name", ["Convpass", "Mona"])
def test_dropout_acts_in_training_only(name):
    method = gn.Convpass(dropout=0.5) if name == "Convpass" else gn.Mona(dropout=0.5)
    model = tiny.model("swin", method)
    x = tiny.pictures()
    with torch.no_grad():
        quiet = model(x)["seg"]
        assert torch.equal(model(x)["seg"], quiet)
        assert tiny.far(model.train()(x)["seg"], quiet) > 1e-3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: gn.Partial(blocks=0), "Partial.blocks: expected a whole number from 1 to 4,096, got int 0"),
        (lambda: gn.Convpass(bottleneck=0), "Convpass.bottleneck: expected a whole number from 1 to 4,096, got int 0"),
        (lambda: gn.Convpass(dropout=1.0), "Convpass.dropout: expected a number from 0 to below 1, got float 1.0"),
        (lambda: gn.Convpass(scale=0.0), "Convpass.scale"),
        (lambda: gn.Convpass(init="zero"), "expected one of identity, xavier; got 'zero'"),
        (lambda: gn.Mona(bottleneck=0), "Mona.bottleneck: expected a whole number from 1 to 4,096, got int 0"),
        (lambda: gn.Mona(dropout=-0.1), "Mona.dropout: expected a number from 0 to below 1, got float -0.1"),
        (lambda: gn.Partial(blocks=9).plan(tiny.backbone("swin")), "has 8 blocks, not 9; use 8 or less"),
        (lambda: gn.NormTuning(places=("mpl",)).plan(tiny.backbone("swin")), "'mpl'; .* stem, attn, mlp, enter"),
        (lambda: gn.NormTuning(places=("enter",)).plan(tiny.backbone("vit")), "no norm at 'enter'; .* attn, mlp"),
    ],
)
def test_bad_options_are_refused(make, match):
    with pytest.raises((OptionError, SiteError), match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["SSF", "BitFit", "NormTuning", "Partial", "Extras", "Convpass", "Mona"])
def test_a_trunk_without_anything_to_adapt_is_refused(name, monkeypatch):
    trunk = tiny.backbone("vit")
    monkeypatch.setattr(Backbone, "sites_with_modules", lambda self: iter(()))
    monkeypatch.setattr(Backbone, "named_slots", lambda self: iter(()))
    monkeypatch.setattr(Backbone, "stages", ())
    with pytest.raises(SiteError, match=rf"{name}.*vit_tiny_patch16_224") as caught:
        getattr(gn, name)().plan(trunk)
    assert "\n" not in str(caught.value)
