"""Swin and SwinV2 at sizes that windows do not divide: equal to transformers', and opposite borders stay apart."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel, Swinv2Config, Swinv2Model

import garnish
import tiny
from garnish.backbones.backbone import Backbone

TINY = {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]}
#: of Swin-T and SwinV2-T
FULL = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
#: windows of 7 divide every map of the first; of the others they divide none, or some
SIZES = [(224, 224), (256, 320), (480, 640)]


def ours(name: str, options: dict) -> Backbone:
    trunk = garnish.backbone(name, options=options)
    tiny.randomise_trunk(trunk)
    return trunk


def tensors_for(theirs: nn.Module, trunk: Backbone) -> dict[str, Tensor]:
    """The trunk's tensors by the names of transformers 5: ``SwinModel`` and ``Swinv2Model`` name attention apart."""
    frozen, second = trunk.frozen_tensors(), isinstance(theirs, Swinv2Model)
    block = {
        "attention.output.dense": "attn.proj",
        "attention.o_proj": "attn.proj",
        "attention.relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
        "attention.self.logit_scale": "attn.logit_scale",
        "attention.self.continuous_position_bias_mlp": "attn.cpb_mlp",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "layernorm_before": "attn.norm",
        "layernorm_after": "mlp.norm",
    }
    found = {}
    for name, wanted in theirs.state_dict().items():
        at = re.fullmatch(r"encoder\.layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.(.+?)(\.weight|\.bias|)", name)
        if name.startswith("layernorm."):  # behind the last map
            found[name] = wanted
        elif at is None:
            parts = {"embeddings.patch_embeddings.projection": "proj", "embeddings.norm": "norm"}
            layer, leaf = name.rsplit(".", 1)
            found[name] = frozen[f"stem.patch_embed.{parts[layer]}.{leaf}"]
        elif at[2] is None:
            found[name] = frozen[f"stages.{int(at[1]) + 1}.enter.{at[3]}{at[4]}"]
        else:
            here, role, leaf = f"stages.{at[1]}.blocks.{at[2]}", at[3], at[4]
            which = re.fullmatch(r"attention\.(?:self\.)?(query|key|value|[qkv]_proj)", role)
            if which is None:
                mlp = re.fullmatch(r"attention\.self\.continuous_position_bias_mlp\.(\d)", role)
                own = f"attn.cpb_mlp.{mlp[1]}" if mlp else block.get(role, role)
                found[name] = frozen[f"{here}.{own}{leaf}"]
            elif second and leaf == ".bias":  # keys have none
                found[name] = frozen[f"{here}.attn.{which[1][0]}_bias"]
            else:
                found[name] = frozen[f"{here}.attn.qkv{leaf}"].chunk(3)["qkv".index(which[1][0])]
    return found


def maps_of(theirs: nn.Module, x: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """What leaves the last block of each stage, (R, C, H, W)."""
    kept: list[Tensor] = []
    hooks = [
        layer.blocks[-1].register_forward_hook(lambda _m, _i, out: kept.append(out if torch.is_tensor(out) else out[0]))
        for layer in theirs.encoder.layers
    ]
    with torch.no_grad():
        theirs(x)
    for hook in hooks:
        hook.remove()
    return [
        m.unflatten(1, (size[0] // 4 // 2**i, size[1] // 4 // 2**i)).permute(0, 3, 1, 2) for i, m in enumerate(kept)
    ]


def equals(theirs: nn.Module, trunk: Backbone, size: tuple[int, int]) -> None:
    theirs.load_state_dict(tensors_for(theirs, trunk))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        got = trunk(x)
    want = maps_of(theirs.eval(), x, size)
    assert len(got) == len(want) == len(trunk.stages)
    for one, other in zip(got, want, strict=True):
        assert tiny.far(one, other) <= 1e-5


def swin_equals(options: dict, size: tuple[int, int]) -> None:
    config = SwinConfig(window_size=7, **options)
    equals(SwinModel(config, add_pooling_layer=False), ours("swin_tiny_patch4_window7_224", options), size)


def swin_v2_equals(options: dict, size: tuple[int, int]) -> None:
    # its rule of shifts looks at the size of the configuration: one at which no map is as small as a window
    config = Swinv2Config(window_size=8, image_size=512, **options)
    equals(Swinv2Model(config, add_pooling_layer=False), ours("swinv2_tiny_window8_256", options), size)


@pytest.mark.reference
@pytest.mark.parametrize("size", SIZES)
def test_swin_equals_transformers(size):
    swin_equals(TINY, size)


@pytest.mark.reference
@pytest.mark.parametrize("size", [(512, 512), (288, 352), (480, 640)])
def test_swin_v2_equals_transformers(size):
    """Windows of 8 divide every map of the first, and of the others some or none."""
    swin_v2_equals(TINY, size)


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("size", [(480, 640), (512, 512)])
def test_whole_trunks_equal_transformers(size):
    swin_equals(FULL, size)
    swin_v2_equals(FULL, size)


def seeing(rows: set[int], side: int, window: int) -> set[int]:
    """The rows of a map that two blocks move where ``rows`` are changed: windows from 0 on, then from their middle."""
    for shift in (0, window // 2 if side > window else 0):
        windows = [set(range(max(at, 0), min(at + window, side))) for at in range(shift - window, side, window)]
        rows = set().union(*(own for own in windows if own & rows))
    return rows


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
@pytest.mark.parametrize("side", [288, 480])
@pytest.mark.parametrize("end", ["first", "last"])
@pytest.mark.parametrize("along", ["rows", "columns"])
def test_opposite_borders_do_not_reach_each_other(name, side, end, along):
    """The four outermost rows of pixels, one row of patches, are changed: the windows that hold it move, no others."""
    trunk = ours(name, TINY)
    window = trunk.stages[0].blocks[0]["attn"].branch.layer.size[0]
    x = torch.randn(1, 3, side, side)
    changed = x.clone()
    changed[:, :, slice(0, 4) if end == "first" else slice(-4, None)] += 3.0
    if along == "columns":
        x, changed = x.mT, changed.mT
    rows = {0 if end == "first" else side // 4 - 1}
    with torch.no_grad():
        for one, other in zip(trunk(changed), trunk(x), strict=True):
            moved = (one - other).abs().amax((0, 1, 3 if along == "rows" else 2)) / other.abs().max()
            rows = seeing(rows, len(moved), window)
            assert {i for i, far in enumerate(moved.tolist()) if far > 1e-5} <= rows
            assert moved[0 if end == "first" else -1] > 1e-2
            # at the last maps of the smaller picture windows reach from border to border, as they should
            assert end == "last" or side == 288 or len(moved) - 1 not in rows
            rows = {row // 2 for row in rows}


@pytest.mark.export
@pytest.mark.parametrize("short", ["swin", "swinv2"])
def test_one_exported_graph_runs_at_every_size(short):
    """Exported where windows do not divide the maps; one window alone, one along a side and whole ones run too."""
    name = tiny.BACKBONES[short][1]
    trunk = ours(name, {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2]})
    window = trunk.stages[0].blocks[0]["attn"].branch.layer.size[0]
    many, some = torch.export.Dim("pictures", min=1), torch.export.Dim("high", min=2, max=64)
    sizes = {"images": {0: many, 2: 8 * some, 3: 8 * torch.export.Dim("wide", min=2, max=64)}}
    program = torch.export.export(trunk, (torch.randn(2, 3, 72, 104),), dynamic_shapes=sizes).module()
    whole = 8 * window
    for size in [
        (3, 72, 104),
        (2, whole, 2 * whole),
        (1, whole // 2 // 8 * 8, 2 * whole),
        (2, 16, 24),
        (1, 136, whole),
    ]:
        x = torch.randn(size[0], 3, *size[1:])
        with torch.no_grad():
            for got, want in zip(program(x), trunk(x), strict=True):
                assert torch.equal(got, want)
