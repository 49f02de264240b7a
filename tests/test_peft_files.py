"""Folders of PEFT's: it loads what we write and computes what we do, and we load what it writes.

Truths: timm's and transformers' own models, run by their own code under PEFT; transformers' own reader of the names of
4.57 for the dialect that the installed version has no models of.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import garnish
import peft_trunks
import tiny
from garnish.bundles.peft import layer_names as peft_names
from garnish.bundles.peft.low_rank_updates import LowRank, stacked_rows, within_rank
from garnish.errors import BundleError
from garnish.model.model import Model
from peft_trunks import INSTALLED, adapted

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.reference

BOUND = 1e-5
CASES = [
    *((s, "timm") for s in ("vit", "dinov2", "dinov3", "swin")),
    *((s, INSTALLED) for s in peft_trunks.SIZES),
]
METHODS = {"lora": {}, "rslora": {"rs": True}, "dora": {"dora": True}}


def products(cases: Sequence[Any]) -> list[Any]:
    """Every case with LoRA and DoRA, whose tensors differ; rsLoRA, which is a number, with two."""
    return [(*case, kind) for i, case in enumerate(cases) for kind in METHODS if kind != "rslora" or i in (0, 2)]


def base_of(short: str, dialect: str, trunk, folder: Path):
    if dialect == "timm":
        return peft_trunks.timm_model(short, trunk)
    return peft_trunks.transformers_model(short, trunk, folder)


@torch.no_grad()
def assert_same(ours, theirs, bound: float = BOUND) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert tiny.far(mine, other) <= bound


@torch.no_grad()
def assert_acts(maps, plain) -> None:
    assert tiny.far(maps[-1], plain[-1]) > 1e-2, "the adapters do nothing, so equality would prove nothing"


@torch.no_grad()
def randomise(theirs: nn.Module) -> None:
    """Every tensor of PEFT's away from its start; B is zero there."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = 30 if parameter.ndim == 1 or "magnitude" in name else parameter[0].numel()
            parameter.add_(0.5 * noise / fan_in**0.5)


# ---- we write, PEFT reads; PEFT writes, we read ----------------------------------------------------------------------


@pytest.mark.parametrize(("short", "dialect", "kind"), products(CASES))
def test_peft_loads_ours_and_we_load_its_copy(short, dialect, kind, tmp_path):
    ours = adapted(short, garnish.LoRA(rank=3, alpha=5.0, **METHODS[kind]))
    written = garnish.export_peft(ours, tmp_path / "adapter", dialect=dialect)
    base, runner = base_of(short, dialect, ours.backbone, tmp_path / "base")
    x = peft_trunks.pictures(short)
    with torch.no_grad():
        want, plain = ours.backbone(x), runner(base)(x)
        theirs = peft.PeftModel.from_pretrained(base, str(written)).eval()
        got = runner(theirs)(x)
    assert_acts(want, plain)
    assert_same(want, got)

    theirs.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy" / "task.json").exists()
    back = garnish.import_peft(tmp_path / "copy", backbone=peft_trunks.trunk_of(short), tasks=ours.tasks)
    with torch.no_grad():
        assert_same(back.backbone(x), want)
    again = garnish.import_peft(written, backbone=peft_trunks.trunk_of(short))
    for name, tensor in ours.own_tensors().items():
        torch.testing.assert_close(again.own_tensors()[name], tensor, atol=0, rtol=0)


SOME = {
    "vit": ["q_proj", "v_proj", "mlp.fc1", "patch_embeddings.projection"],
    "dinov2": ["q_proj", "v_proj", "mlp.fc1", "patch_embeddings.projection"],
    "dinov2_gated": ["k_proj", "up_proj", "down_proj"],
    "swin": ["q_proj", "k_proj", "v_proj", "reduction"],
    "mit": ["q_proj", "v_proj", "sequence_reduction.sequence_reduction", "o_proj"],
}
SOME_4 = {
    "vit": ["query", "value", "intermediate.dense", "patch_embeddings.projection"],
    "dinov2": ["query", "value", "mlp.fc1", "patch_embeddings.projection"],
    "dinov2_gated": ["key", "weights_in", "weights_out"],
    "swin": ["query", "key", "value", "reduction"],
    "mit": ["query", "value", "sr", "output.dense"],
}


def imported_in_part(short: str, folder: Path, **given: Any) -> Any:
    """Imported, and it is said that a part of a fused layer has no adapter; of Swin all have one."""
    if short == "swin":
        return garnish.import_peft(folder, **given)
    with pytest.warns(UserWarning, match="of rank .* zero at the others"):
        return garnish.import_peft(folder, **given)


@pytest.mark.parametrize(("short", "kind"), products([(short,) for short in peft_trunks.SIZES]))
def test_we_load_what_peft_trained(short, kind, tmp_path):
    """Its own start: each part has its own A, some parts have none, ranks and alphas differ by name."""
    trunk = peft_trunks.trunk_of(short)
    base, runner = peft_trunks.transformers_model(short, trunk, tmp_path / "base")
    named = (SOME if INSTALLED == "transformers5" else SOME_4)[short]
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=named,
        rank_pattern={named[0]: 2, r".*0\..*" + named[1]: 3},
        alpha_pattern={named[-1]: 3},
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
    )
    x = peft_trunks.pictures(short)
    with torch.no_grad():
        plain = runner(base)(x)
    theirs = peft.get_peft_model(base, config).eval()
    randomise(theirs)
    with torch.no_grad():
        want = runner(theirs)(x)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = imported_in_part(
        short,
        tmp_path / "adapter",
        backbone=trunk,
        tasks={"seg": garnish.Semantic(classes=5)},
        head=garnish.LinearHead(),
    )
    with torch.no_grad():
        got = ours.backbone(x)
    assert_acts(want, plain)
    assert_same(got, want)
    assert {type(m) for m in ours.owners[0].methods} == {garnish.LoRA}
    ours.check_sites()

    # and out again into the other library's names, from there into PEFT
    garnish.export_peft(ours, tmp_path / "out", dialect=INSTALLED)
    base, runner = peft_trunks.transformers_model(short, peft_trunks.trunk_of(short), tmp_path / "base2")
    with torch.no_grad():
        assert_same(runner(peft.PeftModel.from_pretrained(base, str(tmp_path / "out")).eval())(x), want)


@pytest.mark.parametrize(
    "target", ["all-linear", r".*blocks\.\d+\.(attn|mlp)\.(qkv|fc2)", ["qkv", "patch_embed.proj"]], ids=str
)
def test_targets_of_every_form(target, tmp_path):
    trunk = peft_trunks.trunk_of("dinov2")
    base, runner = peft_trunks.timm_model("dinov2", trunk)
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=target)).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = garnish.import_peft(tmp_path, backbone=trunk, tasks={"seg": garnish.Semantic(classes=5)})
    x = peft_trunks.pictures("dinov2")
    with torch.no_grad():
        assert_same(ours.backbone(x), runner(theirs)(x))
    if target == "all-linear":
        assert [m.layers for m in ours.owners[0].methods] == [("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]


# ---- the dialect that is not installed -------------------------------------------------------------------------------


@pytest.mark.parametrize(("short", "kind"), products([(short,) for short in peft_trunks.SIZES]))
def test_names_of_transformers_4_are_those_of_its_checkpoints(short, kind, tmp_path):
    """Our folder is merged by its own names into a checkpoint of 4.57, which transformers reads and runs."""
    conv = {"mit": "sr", "swin": "enter.reduction"}.get(short, "stem.proj")
    layers = tuple(
        m for m in ("qkv", "q", "kv", "proj", "fc1", "fc2") if (m in ("q", "kv")) == (short == "mit") or m[0] in "pf"
    )
    ours = adapted(short, garnish.LoRA(rank=3, alpha=5.0, layers=(conv, *layers), **METHODS[kind]))
    folder = garnish.export_peft(ours, tmp_path / "adapter", dialect="transformers4")
    before = peft_trunks.checkpoint(short, ours.backbone)
    changed = merged_by_hand(folder, before)
    assert len(changed) > 10
    model, runner = peft_trunks.transformers_model(short, ours.backbone, tmp_path / "base", changed=changed)
    x = peft_trunks.pictures(short)
    with torch.no_grad():
        assert_same(ours.backbone(x), runner(model)(x))
    back = garnish.import_peft(folder, backbone=peft_trunks.trunk_of(short))
    for name, tensor in ours.own_tensors().items():
        torch.testing.assert_close(back.own_tensors()[name], tensor, atol=0, rtol=0)


def merged_by_hand(folder: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name of a weight → the weight with its adapter, by PEFT's formulas (α/r, α/√r; DoRA's norm over inputs)."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {
        n.removeprefix("base_model.model."): t for n, t in load_file(folder / "adapter_model.safetensors").items()
    }
    changed = {}
    for name in {n.split(".lora_")[0] for n in tensors}:
        a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        r = config["rank_pattern"].get(name, config["r"])
        alpha = config["alpha_pattern"].get(name, config["lora_alpha"])
        assert a.shape[0] == r
        scale = alpha / (r**0.5 if config["use_rslora"] else r)
        weight = weights[f"{name}.weight"]
        new = weight + scale * (b.flatten(1) @ a.flatten(1)).view_as(weight)
        if config["use_dora"]:
            norm = new.flatten(1).norm(dim=1)
            new = new * (tensors[f"{name}.lora_magnitude_vector"].flatten() / norm).view(-1, *[1] * (new.ndim - 1))
        changed[f"{name}.weight"] = new.contiguous()
    return changed


NAMES = {
    ("vit", "transformers4"): "encoder.layer.3.attention.attention.value",
    ("vit", "transformers5"): "layers.3.attention.v_proj",
    ("dinov2", "transformers4"): "encoder.layer.3.attention.attention.value",
    ("dinov2", "transformers5"): "encoder.layer.3.attention.v_proj",
    ("swin", "transformers4"): "encoder.layers.3.blocks.0.attention.self.value",
    ("swin", "transformers5"): "encoder.layers.3.blocks.0.attention.v_proj",
    ("mit", "transformers4"): "encoder.block.3.0.attention.self.value",
    ("mit", "transformers5"): "stages.3.blocks.0.attention.v_proj",
}


@pytest.mark.parametrize(("short", "dialect"), NAMES)
def test_names_by_hand(short, dialect):
    """As read off models of 4.57.6 and 5.23.0."""
    trunk = peft_trunks.trunk_of(short)
    names = peft_names.module_names(trunk, dialect)
    assert NAMES[short, dialect] in [parts[-1] for parts in names.values()]
    flat = [part for parts in names.values() for part in parts]
    assert len(set(flat)) == len(flat)
    if dialect == INSTALLED:
        real = {n for n, m in peft_trunks.fresh(short, trunk).named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        assert set(flat) <= real
        assert {n.split(".")[0] for n in real - set(flat)} <= {"pooler"}


# ---- heads -----------------------------------------------------------------------------------------------------------


def whole_segformer(model: Model, folder: Path, labels: int) -> nn.Module:
    import transformers

    bare, _ = peft_trunks.transformers_model("mit", model.backbone, folder)
    bare.config.decoder_hidden_size = 16
    bare.config.num_labels = labels
    whole = transformers.SegformerForSemanticSegmentation(bare.config)
    whole.segformer.load_state_dict(bare.state_dict())
    return whole.eval()


def test_a_whole_segmentation_model_with_its_head(tmp_path):
    ours = adapted("mit", garnish.LoRA(rank=3), tasks=("seg", "depth"), head=garnish.SegFormerHead(channels=16))
    with torch.no_grad():
        ours.head("seg").norm.running_mean.normal_()
    folder = garnish.export_peft(ours, tmp_path / "adapter", dialect=INSTALLED, decode_head="seg")
    theirs = peft.PeftModel.from_pretrained(whole_segformer(ours, tmp_path / "base", 5), str(folder)).eval()
    x = peft_trunks.pictures("mit")
    with torch.no_grad():
        want = ours.head("seg")(list(ours.backbone(x)))
        assert tiny.far(theirs(x).logits, want) <= BOUND

    # trained on in PEFT: its copy has no task.json, and a head that differs from ours
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            if "modules_to_save" in name:
                tensor.add_(0.05 * torch.randn_like(tensor))
        after = theirs(x).logits
    theirs.save_pretrained(tmp_path / "copy")
    back = garnish.import_peft(
        tmp_path / "copy", backbone=peft_trunks.trunk_of("mit"), tasks={"mine": garnish.Semantic(classes=5)}
    )
    with torch.no_grad():
        assert tiny.far(back.head("mine")(list(back.backbone(x))), after) <= BOUND
    assert tiny.far(after, want) > 1e-2
    with pytest.raises(BundleError, match="give the head's channels and the task's classes"):
        garnish.import_peft(
            tmp_path / "copy", backbone=peft_trunks.trunk_of("mit"), tasks={"mine": garnish.Semantic(classes=6)}
        )
    left = garnish.import_peft(
        tmp_path / "copy",
        backbone=peft_trunks.trunk_of("mit"),
        tasks={"d": garnish.Depth(max_metres=5.0)},
        leave_out=["decode_head"],
    )
    assert left.tasks.keys() == {"d"}


def test_heads_and_tasks_travel_beside(tmp_path):
    ours = adapted("swin", garnish.LoRA(rank=3), tasks=("seg", "depth"), head=garnish.SegFormerHead(channels=16))
    garnish.export_peft(ours, tmp_path / "a", dialect="timm")
    back = garnish.import_peft(tmp_path / "a", backbone=peft_trunks.trunk_of("swin"))
    images = tiny.pictures(2, 64, 64)
    with torch.no_grad():
        want, got = ours(images), back(images)
    assert want.keys() == got.keys()
    for task in want:
        torch.testing.assert_close(got[task], want[task], atol=0, rtol=0)
    assert back.tasks == ours.tasks and back.decoders.options == ours.decoders.options
    with pytest.raises(BundleError, match="fingerprint"):
        garnish.import_peft(tmp_path / "a", backbone=garnish.backbone(ours.backbone.name, options=peft_trunks.SWIN))
    with pytest.raises(BundleError, match="random weights"):
        garnish.import_peft(tmp_path / "a")
    garnish.export_peft(back, tmp_path / "a", dialect="transformers4")  # its own folder is replaced
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="not replaced"):
        garnish.export_peft(back, tmp_path / "mine")


def test_a_classifier_is_left_out_only_by_name(tmp_path):
    import transformers

    trunk = peft_trunks.trunk_of("vit")
    bare, _ = peft_trunks.transformers_model("vit", trunk, tmp_path / "base")
    whole = transformers.ViTForImageClassification(bare.config)
    whole.vit.load_state_dict({n: t for n, t in bare.state_dict().items() if not n.startswith("pooler")})
    named = ["q_proj", "query", "v_proj", "value"]
    theirs = peft.get_peft_model(whole, peft.LoraConfig(r=3, target_modules=named, modules_to_save=["classifier"]))
    randomise(theirs)
    theirs.save_pretrained(tmp_path / "nested" / "mine")
    task = {"seg": garnish.Semantic(classes=5)}
    with pytest.raises(BundleError, match=r"classifier.*leave_out"):
        garnish.import_peft(tmp_path / "nested", backbone=peft_trunks.trunk_of("vit"), tasks=task)
    with pytest.raises(BundleError, match="'pooler'"):
        garnish.import_peft(tmp_path / "nested", backbone=trunk, tasks=task, leave_out=["classifier", "pooler"])
    ours = imported_in_part("vit", tmp_path / "nested", backbone=trunk, tasks=task, leave_out=["classifier"])
    x = peft_trunks.pictures("vit")
    with torch.no_grad():
        assert_same(ours.backbone(x), peft_trunks.runner_of("vit")(theirs.eval().base_model.model.vit)(x))
    # out again, for the same kind of model
    garnish.export_peft(ours, tmp_path / "out", dialect=INSTALLED, prefix="vit")
    fresh = transformers.ViTForImageClassification(bare.config)
    fresh.vit.load_state_dict({n: t for n, t in bare.state_dict().items() if not n.startswith("pooler")})
    again = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "out")).eval()
    with torch.no_grad():
        assert_same(ours.backbone(x), peft_trunks.runner_of("vit")(again.base_model.model.vit)(x))


# ---- what lies in the folder -----------------------------------------------------------------------------------------


def test_config_and_card(tmp_path):
    ours = adapted("dinov2", [garnish.LoRA(rank=4, layers=("qkv",)), garnish.LoRA(rank=2, alpha=3.0, layers=("fc1",))])
    ours.backbone.licence = "apache-2.0"
    garnish.export_peft(ours, tmp_path, base_model="facebook/dinov2-small", dialect="transformers4", prefix="dinov2")
    text = (tmp_path / "adapter_config.json").read_text()
    config = json.loads(text)
    assert text == json.dumps(config, sort_keys=True, indent=2) + "\n"
    assert config["peft_type"] == "LORA" and config["task_type"] is None and config["inference_mode"] is True
    assert config["r"] == 4 and config["lora_alpha"] == 16
    assert config["rank_pattern"]["dinov2.encoder.layer.2.mlp.fc1"] == 2
    assert config["alpha_pattern"]["dinov2.encoder.layer.2.mlp.fc1"] == 3
    assert "dinov2.encoder.layer.0.attention.attention.key" in config["target_modules"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peft.PeftConfig.from_pretrained(str(tmp_path))
    card = (tmp_path / "README.md").read_text()
    front = card.split("---")[1]
    for line in ("library_name: peft", "base_model: facebook/dinov2-small", "license: apache-2.0", '- "lora"'):
        assert line in front
    assert "pipeline_tag: image-segmentation" in front
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    at = "base_model.model.dinov2.encoder.layer.0.attention.attention."
    q, v = tensors[f"{at}query.lora_A.weight"], tensors[f"{at}value.lora_A.weight"]
    assert q.shape == (4, 48) and torch.equal(q, v)


def test_two_loras_at_one_layer_become_one(tmp_path):
    ours = adapted("vit", [garnish.LoRA(rank=2, rs=True), garnish.LoRA(rank=3, alpha=7.0, layers=("proj", "qkv"))])
    garnish.export_peft(ours, tmp_path / "a")
    base, runner = peft_trunks.timm_model("vit", ours.backbone)
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "a")).eval()
    x = peft_trunks.pictures("vit")
    with torch.no_grad():
        assert_same(ours.backbone(x), runner(theirs)(x))


@pytest.mark.filterwarnings("ignore:.*groups")
def test_a_grouped_convolution(tmp_path):
    """PEFT's A reads the channels of all groups; ours is the one of them with zeros between the groups."""
    layers = ("stages.0.blocks.0.mlp.dw",)
    ours = adapted("mit", [garnish.LoRA(rank=64, layers=layers), garnish.LoRA(rank=2, layers=("q",))])
    garnish.export_peft(ours, tmp_path / "a", dialect=INSTALLED)
    base, runner = peft_trunks.transformers_model("mit", ours.backbone, tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "a")).eval()
    x = peft_trunks.pictures("mit")
    with torch.no_grad():
        assert_same(ours.backbone(x), runner(theirs)(x))
    back = garnish.import_peft(tmp_path / "a", backbone=peft_trunks.trunk_of("mit"))
    for name, tensor in ours.own_tensors().items():
        torch.testing.assert_close(back.own_tensors()[name], tensor, atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (6, 2, 3, 3)])
@pytest.mark.parametrize("rs", [False, True])
def test_a_rank_above_the_layers_loses_nothing(shape, rs):
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    update = LowRank(a=normal(9, *shape[1:]), b=normal(shape[0], 9), alpha=5.0, rs=rs)
    small = within_rank(update)
    assert small.rank == min(shape[0], torch.Size(shape[1:]).numel())
    torch.testing.assert_close(small.update(), update.update(), atol=1e-12, rtol=0)
    parts = [LowRank(a=normal(r, *shape[1:]), b=normal(2, r), alpha=al, rs=rs) for r, al in ((2, 3.0), (1, 8.0))]
    joined = stacked_rows([parts[0], None, parts[1]], normal(6, *shape[1:]))
    want = torch.cat([parts[0].update(), torch.zeros_like(parts[0].update()), parts[1].update()])
    torch.testing.assert_close(joined.update(), want, atol=1e-12, rtol=0)
    assert joined.rank == 3
