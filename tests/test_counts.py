"""Numbers of parameters against published ones, counted from built models; encoder and decoder apart.

The truths are printed figures, or formulas over S1 = Σ width and S2 = Σ width² of the blocks, both by hand.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

import garnish as gn
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Method
from garnish.engine.blocks import FeatureInfo
from garnish.model.model import Model
from garnish.model.report import report_without_macs

SWIN_T = "swin_tiny_patch4_window7_224"
DIMS, DEPTHS = (96, 192, 384, 768), (2, 2, 6, 2)
S1 = sum(d * n for d, n in zip(DIMS, DEPTHS, strict=True))
S2 = sum(d * d * n for d, n in zip(DIMS, DEPTHS, strict=True))
BLOCKS = sum(DEPTHS)
MERGING_NORMS = sum(2 * 4 * d for d in DIMS[:3])
OUTPUTS = (21, 7, 1, 3)
D = 2_549_024
H = 1_946_624
EXTRAS, REDUCTIONS = 51_258, 1_548_288


def uninitialised(name: str = SWIN_T) -> Backbone:
    """A trunk whose values were never written: enough to count, and at once."""
    with torch.device("meta"):
        return gn.backbone(name).to_empty(device="cpu")


def adapted(trunk: Backbone, methods: list[Method], *, channels: int = 256) -> Model:
    """Four tasks of 21, 7, 1 and 3 outputs behind SegFormer heads with a norm for each map."""
    tasks = {"seg": gn.Semantic(classes=21), "parts": gn.Semantic(classes=7), "sal": gn.Saliency(), "nrm": gn.Normals()}
    assert tuple(t.channels for t in tasks.values()) == OUTPUTS
    return gn.adapt(trunk, methods, tasks, gn.SegFormerHead(channels=channels, norm=True))


@cache
def counted(*methods: Method) -> dict[str, int]:
    return report_without_macs(adapted(uninitialised(), list(methods)))


def test_the_sums_are_swin_t_s():
    # methods.md 2.0: LoRA on all linears is 16 r S1, 1.13 M at r = 16
    assert (S1, S2, BLOCKS) == (4_416, 2_156_544, 12)
    assert counted(gn.Frozen())["total"] == 27_517_818  # the final norm, 1,536, is left out


def test_segformer_heads():
    assert counted(gn.Frozen()) | {"total": 0, "bytes": 0} == {"encoder": 0, "heads": D, "total": 0, "bytes": 0}


def test_hrnet_heads():
    merged = [FeatureInfo(c, s) for c, s in ((192, 8.0), (384, 16.0), (768, 32.0), (768, 32.0))]
    heads = [gn.HRNetHead().build(merged, n) for n in OUTPUTS]
    assert sum(p.numel() for head in heads for p in head.parameters()) == H
    by_hand = 18 * 192 + 36 * 384 + 72 * 768 + 144 * 768 + 270 * 1080 + 1080 + 2 * 1080
    assert sum(by_hand + 1081 * n for n in OUTPUTS) == H


@pytest.mark.parametrize(
    ("methods", "published"),
    [
        ([gn.BitFit(tables=True, per_task=True)], 2_848_136),
        ([gn.LoRA(rank=4, layers=("qkv",), per_task=True), gn.NormTuning(places=("mlp",), per_task=True)], 2_866_976),
        ([gn.Pfeiffer(reduction=2, per_task=True), gn.NormTuning(places=("mlp",), per_task=True)], 11_237_024),
        ([gn.VPT(prompts=50, deep=False, per_task=True)], 2_568_224),
        ([gn.VPT(prompts=50, per_task=True)], 3_432_224),
    ],
    ids=["BitFit", "LoRA r=4 on qkv", "Adapter rho=2", "VPT shallow", "VPT deep"],
)
def test_published_totals_of_four_tasks(methods, published):
    found = counted(*methods)
    assert found["heads"] == D
    assert found["encoder"] == published - D
    assert found["heads"] + found["encoder"] == published


@pytest.mark.parametrize(
    ("method", "published"),
    [
        (gn.MTLoRA(rank=16), 4_953_146),
        (gn.MTLoRA(rank=32), 6_083_642),
        (gn.MTLoRA(rank=64), 8_344_634),
        (gn.MTLoRA(rank=4, task_rank=4, plus=True), 2_573_114),
        (gn.MTLoRA(rank=8, task_rank=8, plus=True), 3_148_346),
        (gn.MTLoRA(rank=16, task_rank=16, plus=True), 4_298_810),
    ],
    ids=["r=16", "r=32", "r=64", "plus 4", "plus 8", "plus 16"],
)
def test_published_totals_of_mtlora_with_its_decoders(method, published):
    with torch.device("meta"):
        trunk = gn.backbone(SWIN_T, taps="merged").to_empty(device="cpu")
    tasks = {f"t{n}": gn.Semantic(classes=n) for n in (21, 7, 3)} | {"sal": gn.Saliency()}
    found = report_without_macs(gn.adapt(trunk, method, tasks, gn.HRNetHead()))
    assert found["heads"] == H
    assert found["encoder"] == published - H


def test_vmt_adapter_has_the_count_of_our_reconstruction():
    found = counted(gn.VMTAdapter())
    assert found["encoder"] == 1_095_312 == 2 * S2 // 4 + S1 + S1 // 4 + 2 * 4 * sum(DIMS)
    assert counted(gn.PolyhistorLite())["encoder"] == 383_408  # our sizes, as its docstring says
    # Lite: one matrix instead of two, and a gate a channel
    assert counted(gn.VMTAdapterLite())["encoder"] == S2 // 4 + 2 * S1 + S1 // 4 + 2 * 4 * sum(DIMS)


@pytest.mark.parametrize(
    ("name", "published"),
    [("swin_base_patch4_window7_224", 3_107_328), ("swin_large_patch4_window7_224", 4_659_456)],
)
def test_two_adapters_a_block_on_larger_swins(name, published):
    model = adapted(uninitialised(name), [gn.Houlsby(bottleneck=64)], channels=8)
    assert report_without_macs(model)["encoder"] == published


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # embed: convolution and norm; the published 51,456 and 24,768 hold the final norm's 768 and 1,536
        (gn.BitFit(), 11 * S1 + 2 * 96 + MERGING_NORMS // 2),
        (gn.NormTuning(), 24_768 - 1_536),
        (gn.NormTuning(places=("mlp",)), 2 * S1),
        (gn.SSF(), 22 * S1 + 4 * 96 + MERGING_NORMS),
        (gn.Mona(), 2 * (133 * S1 + BLOCKS * 9_728)),
        (gn.Convpass(), 2 * ((2 * 8 + 1) * S1 + BLOCKS * (8 + 9 * 8 * 8 + 8))),
        (gn.Extras(), EXTRAS + REDUCTIONS),
        (gn.Extras(reductions=False), EXTRAS),
        (gn.Partial(), 12 * 768**2 + 13 * 768 + 13**2 * 24),
        (gn.AdaptFormer(bottleneck=64), (2 * 64 + 1) * S1 + BLOCKS * 64),
        (gn.LoRA(rank=16), 16 * 16 * S1),
        (gn.FullFineTuning(), 27_517_818),
    ],
    ids=lambda value: str(value).replace("per_task=False, ", "") if isinstance(value, Method) else "",
)
def test_formulas_on_swin_t(method, expected):
    assert counted(method)["encoder"] == expected


@pytest.mark.parametrize(
    ("method", "printed", "digits"),
    [
        (gn.Mona(), 1.41, 2),
        (gn.Partial(), 7.1, 1),
        (gn.LoRA(rank=16), 1.13, 2),
        (gn.AdaptFormer(bottleneck=64), 0.57, 2),
        (gn.Pfeiffer(reduction=8), 0.54, 2),
        (gn.Houlsby(reduction=16), 0.55, 2),
    ],
    ids=["Mona", "Partial", "LoRA", "AdaptFormer", "Pfeiffer", "Houlsby"],
)
def test_printed_millions(method, printed, digits):
    assert round(counted(method)["encoder"] / 1e6, digits) == printed


def test_the_report_says_the_same():
    report = adapted(gn.backbone(SWIN_T), [gn.BitFit(tables=True, per_task=True)]).report()
    assert report["encoder_trainable"] == 4 * (51_456 + 23_322)
    assert report["decoder_trainable"] == D == sum(report["decoder_by_task"].values())
    assert report["encoder_total"] == 27_517_818
