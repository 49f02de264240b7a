"""LoRA, rsLoRA and DoRA against PEFT on the same timm trunk with the same matrices: outputs and gradients.

The trunk outside is timm's own model, run by timm's own code; only the weights and the matrices are carried over.
"""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import garnish
import tiny
from garnish import registry
from garnish.adapters.lora import LoRA
from garnish.model.model import Model

pytestmark = pytest.mark.reference
peft = pytest.importorskip("peft")

#: short name → picture size that timm builds the same windows for
SIZES = {"dinov2": (56, 84), "swin": (224, 224)}
BLOCKS = {
    "dinov2": r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))",
    "swin": r".*blocks\.\d+\.(attn|mlp)\.(qkv|proj|fc1|fc2)",
}
BOUND = 1e-5


def theirs_with(short: str, ours: Model, **options) -> nn.Module:
    """Timm's model with ``ours``' frozen weights and PEFT's layers, which take our matrices."""
    _, name, given = tiny.BACKBONES[short]
    size = {"img_size": SIZES[short]} if short == "swin" else {"dynamic_img_size": True}
    made = timm.create_model(name, num_classes=0, **{**given, **size})
    trunk = ours.backbone
    state = {trunk.source_names[n]: t for n, t in trunk.frozen_tensors().items()}
    made.load_state_dict(state, strict=False)
    config = peft.LoraConfig(lora_dropout=0.0, bias="none", **options)
    wrapped = peft.get_peft_model(made, config)
    return wrapped.eval()


@torch.no_grad()
def copy_matrices(ours: Model, theirs: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Give PEFT our A, B (and m); name → (our tensor, theirs). Every layer on both sides must find its partner."""
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in theirs.named_modules()
        if isinstance(module, peft.tuners.lora.layer.LoraLayer)
    }
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for at, adapter in ours.owners[0].placed():
        site = at.site.name
        source = ours.backbone.source_names[f"{site}.weight"].removesuffix(".weight")
        layer = layers.pop(source)
        pairs[f"{site}.A"] = (adapter.lora_a, layer.lora_A["default"].weight)
        pairs[f"{site}.B"] = (adapter.lora_b, layer.lora_B["default"].weight)
        if adapter.magnitude is not None:
            pairs[f"{site}.m"] = (adapter.magnitude, layer.lora_magnitude_vector["default"].weight)
    assert not layers, f"PEFT adapts {list(layers)}, we do not"
    for mine, other in pairs.values():
        other.copy_(mine.view(other.shape))
    return pairs


def run_theirs(theirs: nn.Module, x: Tensor) -> list[Tensor]:
    return theirs.base_model.model.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")


def adapted(short: str, method: LoRA) -> Model:
    specs = {"seg": registry.build("tasks", *tiny.TASKS["seg"])}
    torch.manual_seed(0)
    model = garnish.adapt(tiny.backbone(short), method, specs)
    tiny.randomise_own(model)
    return model.eval()


def assert_same(short: str, method: LoRA, **options) -> None:
    ours = adapted(short, method)
    theirs = theirs_with(short, ours, **options)
    pairs = copy_matrices(ours, theirs)
    x = torch.randn(2, 3, *SIZES[short], generator=torch.Generator().manual_seed(4))
    got, want = ours.backbone(x), run_theirs(theirs, x)
    for mine, other in zip(got, want, strict=True):
        assert tiny.far(mine, other) <= BOUND
    with torch.no_grad():
        plain = tiny.backbone(short)(x)
    assert tiny.far(want[-1], plain[-1]) > 1e-2, "the adapters do nothing, so equality would prove nothing"
    for maps in (got, want):
        tiny.one_loss({str(i): m for i, m in enumerate(maps)}).backward()
    for name, (mine, other) in pairs.items():
        assert other.grad.any(), name
        assert tiny.far(mine.grad.view(other.shape), other.grad) <= BOUND, name


@pytest.mark.parametrize("short", SIZES)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({}, {}), ({"rs": True}, {"use_rslora": True}), ({"dora": True}, {"use_dora": True})],
    ids=["lora", "rslora", "dora"],
)
def test_equals_peft_in_the_blocks(short, ours, theirs):
    assert_same(
        short,
        garnish.LoRA(rank=3, alpha=5.0, **ours),
        r=3,
        lora_alpha=5,
        target_modules=BLOCKS[short],
        **theirs,
    )


@pytest.mark.parametrize("short", SIZES)
@pytest.mark.parametrize(("ours", "theirs"), [({}, {}), ({"dora": True}, {"use_dora": True})], ids=["lora", "dora"])
def test_equals_peft_on_a_convolution(short, ours, theirs):
    method = garnish.LoRA(rank=3, alpha=5.0, layers=("stem.proj", "qkv"), **ours)
    assert_same(short, method, r=3, lora_alpha=5, target_modules=r"patch_embed\.proj|.*\.qkv", **theirs)


def test_equals_peft_on_the_merging_layers():
    method = garnish.LoRA(rank=3, alpha=5.0, layers=("enter.reduction",))
    assert_same("swin", method, r=3, lora_alpha=5, target_modules=r".*\.downsample\.reduction")


@pytest.mark.parametrize("ours", [{}, {"rs": True}, {"dora": True}], ids=["lora", "rslora", "dora"])
def test_merged_weights_equal_pefts(ours):
    from garnish.engine.folding import folded_trunk

    model = adapted("dinov2", garnish.LoRA(rank=3, alpha=5.0, **ours))
    options = {"use_rslora": ours.get("rs", False), "use_dora": ours.get("dora", False)}
    theirs = theirs_with("dinov2", model, r=3, lora_alpha=5, target_modules=BLOCKS["dinov2"], **options)
    copy_matrices(model, theirs)
    merged = theirs.merge_and_unload().state_dict()
    for name, tensor in folded_trunk(model.backbone, model.owners[0]).frozen_tensors().items():
        assert tiny.far(tensor, merged[model.backbone.source_names[name]]) <= BOUND, name


def test_initial_values_are_of_the_same_distribution():
    ours = garnish.adapt(
        garnish.backbone("vit_tiny_patch16_224"), garnish.LoRA(rank=16), {"seg": garnish.Semantic(classes=2)}
    )
    config = peft.LoraConfig(r=16, target_modules=BLOCKS["dinov2"])
    theirs = peft.get_peft_model(timm.create_model("vit_tiny_patch16_224", num_classes=0), config)
    a = torch.cat([x.lora_a.flatten() for _, x in ours.owners[0].placed() if x.lora_a.shape[1] == 192])
    layers = [m for m in theirs.modules() if isinstance(m, peft.tuners.lora.layer.LoraLayer)]
    other = torch.cat([w.flatten() for m in layers if (w := m.lora_A["default"].weight).shape[1] == 192])
    assert a.numel() == other.numel()
    assert a.std().item() == pytest.approx(other.std().item(), rel=0.02)
    assert a.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.01)
