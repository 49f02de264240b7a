"""Which layers an entry of ``layers`` chooses: a role in the blocks, a place and a role anywhere, or one site."""

from __future__ import annotations

import pytest
from torch import nn

import tiny
from garnish.engine.adapter import select_layers

BLOCKS = [f"stages.{s}.blocks.{b}" for s in range(4) for b in range(2)]
REDUCTIONS = [f"stages.{s}.enter.reduction" for s in (1, 2, 3)]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (("proj",), [f"{b}.attn.proj" for b in BLOCKS]),  # the patch embedding's is called proj too, and is in no block
        (("stem.proj",), ["stem.patch_embed.proj"]),
        (("stem.patch_embed.proj",), ["stem.patch_embed.proj"]),
        (("attn.proj", "mlp.fc1"), [f"{b}.{name}" for b in BLOCKS for name in ("attn.proj", "mlp.fc1")]),
        (("mlp.fc1", "attn.proj", "fc1"), [f"{b}.{name}" for b in BLOCKS for name in ("attn.proj", "mlp.fc1")]),
        (("enter.reduction",), REDUCTIONS),
        (("stages.1.blocks.0.mlp.fc2",), ["stages.1.blocks.0.mlp.fc2"]),
        ((), [f"{b}.{n}" for b in BLOCKS for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]),
    ],
)
def test_layers_of_a_swin_are_chosen_in_forward_order_and_once(wanted, names):
    chosen = [site.name for site, _ in select_layers(tiny.backbone("swin"), wanted, (nn.Linear,), "LoRA")]
    order = [site.name for site, _ in select_layers(tiny.backbone("swin"), (), (nn.Module,), "LoRA")]
    assert chosen == sorted(names, key=lambda name: (order.index(name) if name in order else -1, name))
