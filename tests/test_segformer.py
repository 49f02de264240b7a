"""Finished SegFormers: logits of transformers', names of NVlabs and both transformers, label sets, bundles, commands.

Truths: transformers' SegformerForSemanticSegmentation on the same weights; NVlabs' names written by hand.
"""

from __future__ import annotations

import copy
import json
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import garnish as gn
from garnish.backbones.mit import NVIDIA_LICENCE, MiT
from garnish.backbones.segformer import dialects
from garnish.backbones.segformer.config import config_classes
from garnish.backbones.segformer.finished_names import FINISHED
from garnish.cli import main
from garnish.errors import GarnishError, OptionError, WeightsError
from garnish.heads import segformer_names
from garnish.heads.segformer import SegFormerDecoder
from garnish.recipes.recipe import read_recipe
from test_mit import TINY, randomise

CLASSES = ["road", "sky", "tree", "car", "wall"]
WIDTH = 12
TINY_OPTIONS = {key: list(value) for key, value in TINY.items()}


def whole(options: dict = TINY, width: int = WIDTH, classes: list[str] = CLASSES) -> nn.Module:
    """transformers' model, every parameter and running statistic random."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        hidden_sizes=list(options["embed_dims"]),
        depths=list(options["depths"]),
        num_attention_heads=list(options["num_heads"]),
        decoder_hidden_size=width,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = SegformerForSemanticSegmentation(config).eval()
    randomise(model)
    norm = model.decode_head.batch_norm
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(width, generator=generator) * 0.3)
        norm.running_var.copy_(torch.rand(width, generator=generator) + 0.5)
    return model


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return whole()


@pytest.fixture
def folder(theirs, tmp_path) -> Path:
    """As transformers saves it: the names of 4.57, and a config.json."""
    theirs.save_pretrained(tmp_path / "ade")
    return tmp_path / "ade"


def finished(weights, **options):
    return gn.finished("segformer_b0", str(weights), options=TINY_OPTIONS, **options)


def pictures(*size: int) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_at_stride(model, images: torch.Tensor) -> torch.Tensor:
    x = (images - model.mean) / model.std
    return model.head("seg")(model.backbone(x))


@torch.no_grad()
def assert_same_logits(model, theirs: nn.Module, size: tuple[int, int]) -> None:
    """At the decoder's stride on the bare picture, and at the picture's size on the padded one."""
    images = pictures(*size)
    x = (images - model.mean) / model.std
    expected = theirs(x).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits_at_stride(model, images), expected, atol=1e-4, rtol=0)
    padded = F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32))
    expected = F.interpolate(theirs(padded).logits, padded.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(images)["seg"], expected[..., : size[0], : size[1]], atol=1e-4, rtol=0)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("size", [(97, 131), (65, 70), (64, 96)])
@pytest.mark.parametrize("dialect", ["transformers4", "transformers5"])
def test_logits_are_those_of_transformers(dialect, size, theirs, folder):
    if dialect == "transformers5":
        save_file(theirs.state_dict(), folder / "model.safetensors")  # the names in memory
    names = load_file(folder / "model.safetensors")
    assert any((".linear_c." if dialect == "transformers4" else ".linear_projections.") in name for name in names)
    model = finished(folder)
    assert_same_logits(model, theirs, size)
    assert model.tasks["seg"].names == tuple(CLASSES) and not model.training


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "depths", "dims", "width"),
    [("segformer_b0", (2, 2, 2, 2), (32, 64, 160, 256), 256), ("segformer_b2", (3, 4, 6, 3), (64, 128, 320, 512), 768)],
)
def test_whole_sizes_equal_transformers(name, depths, dims, width, tmp_path):
    theirs = whole({"embed_dims": dims, "depths": depths, "num_heads": (1, 2, 5, 8)}, width)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(gn.finished(name, str(tmp_path)), theirs, (64, 96))


@pytest.mark.parametrize("number", range(6))
def test_every_size_has_a_name(number):
    with torch.device("meta"):
        encoder, trunk = (MiT.create(f"{family}_b{number}", None, {}) for family in ("mit", "segformer"))
    assert trunk.features == encoder.features and trunk.name == list(FINISHED)[number] == f"segformer_b{number}"
    assert sum(p.numel() for p in trunk.parameters()) == sum(p.numel() for p in encoder.parameters())


@pytest.mark.reference
def test_names_of_transformers_4_are_those_on_disk(theirs, folder):
    """transformers 5 converts the names of 4.57 when it loads a file: its converter is the witness."""
    from transformers import SegformerForSemanticSegmentation

    model = finished(folder)
    encoder = dialects.write(model.backbone.frozen_tensors(), "transformers4")
    decoder = segformer_names.write_decoder(model.head("seg").state_dict(), "transformers4")
    save_file(encoder | decoder, folder / "model.safetensors", metadata={"format": "pt"})
    again, info = SegformerForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_same_logits(model, again.eval(), (97, 131))


# ---- names -----------------------------------------------------------------------------------------------------------

#: ours → NVlabs', written by hand from the names that its checkpoints are known to hold
NVLABS = {
    **{f"projections.{i}.{leaf}": f"linear_c{i + 1}.proj.{leaf}" for i in range(4) for leaf in ("weight", "bias")},
    "fuse.weight": "linear_fuse.conv.weight",
    "norm.weight": "linear_fuse.bn.weight",
    "norm.bias": "linear_fuse.bn.bias",
    "norm.running_mean": "linear_fuse.bn.running_mean",
    "norm.running_var": "linear_fuse.bn.running_var",
    "norm.num_batches_tracked": "linear_fuse.bn.num_batches_tracked",
    "classifier.weight": "linear_pred.weight",
    "classifier.bias": "linear_pred.bias",
}


def nvlabs_file(model, file: Path, **more: torch.Tensor) -> Path:
    """As NVlabs' training wrote it: encoder, decoder and a leftover of its base class, beside facts of the run."""
    state = model.head("seg").state_dict()
    tensors = dialects.write(model.backbone.frozen_tensors(), "nvlabs")
    tensors |= {f"decode_head.{theirs}": state[ours].clone() for ours, theirs in NVLABS.items()}
    tensors |= {"decode_head.conv_seg.weight": torch.zeros(5, 128, 1, 1), "decode_head.conv_seg.bias": torch.zeros(5)}
    torch.save({"meta": {"epoch": 160, "CLASSES": tuple(CLASSES)}, "state_dict": tensors | more}, file)
    return file


@pytest.mark.reference
def test_nvlabs_file_computes_with_its_own_epsilons(theirs, folder):
    nv = copy.deepcopy(theirs)
    for name, parameter in nv.named_parameters():
        if "patch_embeddings.layer_norm" in name:
            parameter.data *= 0.01  # a stream so small that epsilons show
    nv.save_pretrained(folder)
    file = nvlabs_file(finished(folder), folder.parent / "segformer.b0.pth")
    model = finished(file)
    assert model.tasks["seg"].names == tuple(CLASSES)  # no config.json beside it, but the notes of the training
    with torch.no_grad():
        x = (pictures(97, 131) - model.mean) / model.std
        assert (nv(x).logits - logits_at_stride(model, pictures(97, 131))).abs().max() > 1e-3
    for name, module in nv.named_modules():
        if isinstance(module, nn.LayerNorm) and not re.search("patch_embeddings|sequence_reduction", name):
            module.eps = 1e-6
    assert_same_logits(model, nv, (97, 131))
    tensors = torch.load(file, weights_only=True)["state_dict"]
    torch.save(tensors, file)
    assert finished(file).tasks["seg"].names[0] == "class 0"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    assert finished(file, classes=CLASSES).tasks["seg"].names == tuple(CLASSES)


@pytest.mark.parametrize("dialect", list(segformer_names.DECODER_DIALECTS))
@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip(dialect, prefix, folder):
    model = finished(folder)
    state = model.head("seg").state_dict()
    written = segformer_names.write_decoder(state, dialect)
    assert all(name.startswith("decode_head.") for name in written)
    if dialect == "nvlabs":
        assert set(written) == {f"decode_head.{name}" for name in NVLABS.values()}
    encoder = dialects.write(model.backbone.frozen_tensors(), dialect)
    file = folder.parent / "whole.safetensors"
    save_file({prefix + name: tensor for name, tensor in (encoder | written).items()}, file)
    assert segformer_names.decoder_dialect(list(written)) == dialect
    again = segformer_names.read_decoder(str(file))
    assert list(again) == list(segformer_names.names_in(dialect, again))
    assert set(again) == set(state) and all(torch.equal(again[name], state[name]) for name in state)
    told = pytest.warns(UserWarning, match=r"without their prefix 'module\.'$") if prefix else nullcontext()
    with told:
        assert finished(file).backbone.fingerprint() == model.backbone.fingerprint()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"1": "b", "0": "a", "10": "c"}, None),
        ({"1": "b", "0": "a"}, ("a", "b")),
        ({0: "screen", 1: "door", 2: "screen"}, ("screen 0", "door", "screen 2")),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
        ({"x": "a"}, None),
        (["a", "b"], None),
        ({}, None),
    ],
)
def test_class_names(labels, expected):
    assert config_classes({"id2label": labels}) == expected
    assert config_classes({}) is None


def test_a_label_list_of_another_length_is_not_taken(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    assert finished(folder).tasks["seg"].names[4] == "class 4"


# ---- another label set, further tasks --------------------------------------------------------------------------------


def test_another_label_set_keeps_what_fits(folder):
    torch.manual_seed(3)
    before = finished(folder).head("seg").state_dict()
    model = finished(folder, classes=["a", "b", "c"], method=gn.LoRA(rank=2))
    after = model.head("seg").state_dict()
    for name, tensor in after.items():
        kept = not name.startswith("classifier.")
        assert torch.equal(tensor, before[name]) if kept else tensor.shape[0] == 3, name
    assert 0 < after["classifier.weight"].std() < 0.05  # as a new head's
    (line,) = model.decoders.started.values()
    assert line.endswith("kept projections, fuse, norm; new: classifier (3 outputs, 5 there)") and line in repr(model)
    same = finished(folder, classes=["v", "w", "x", "y", "z"])
    assert torch.equal(same.head("seg").state_dict()["classifier.weight"], before["classifier.weight"])
    assert same.decoders.started["seg"].endswith("kept projections, fuse, norm, classifier (5 outputs)")


def test_adapters_and_a_new_label_set_train(folder):
    model = finished(folder, classes=3, method=gn.LoRA(rank=2)).train()
    frozen = {name: tensor.clone() for name, tensor in model.backbone.frozen_tensors().items()}
    target = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=1e-2)
    start = {name: p.detach().clone() for name, p in model.trained_parameters().items()}
    losses = []
    for _ in range(8):
        task = model.tasks["seg"]
        loss = task.loss(task.sums(model(pictures(64, 64))["seg"], target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    still = [name for name, p in model.trained_parameters().items() if torch.equal(p, start[name])]
    assert not still and any(name.startswith("adapters.") for name in start)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.backbone.frozen_tensors().items())


@torch.no_grad()
def test_a_task_is_added_beside_and_the_finished_one_stays(folder):
    model = finished(folder)
    images = pictures(70, 90)
    before = model(images)["seg"]
    heads = {"depth": gn.SegFormerHead(channels=WIDTH, init="published"), "normals": gn.SegFormerHead(channels=8)}
    tasks = {"depth": gn.Depth(max_metres=10), "normals": gn.Normals()}
    model.add(gn.LoRA(rank=2), tasks, heads, freeze_others=True)
    for parameter in model.trained_parameters().values():
        parameter.add_(0.1)
    assert not any(name.startswith("heads.seg.") for name in model.trained_parameters())
    out = model(images)
    assert torch.equal(out["seg"], before) and set(out) == {"seg", "depth", "normals"}
    assert (
        "new: classifier (1 outputs, 5 there)" in model.decoders.started["depth"]
        and model.decoders.started["normals"] == ""
    )
    assert "heads.depth.fuse.weight" in model.trained_parameters()


def test_a_head_of_any_model_starts_from_the_published_decoder(folder):
    trunk = gn.backbone("segformer_b0", str(folder), options=TINY_OPTIONS)
    head = gn.SegFormerHead(channels=WIDTH, init="published")
    model = gn.adapt(trunk, gn.LoRA(rank=2), {"seg": gn.Semantic(classes=5)}, head).eval()
    with torch.no_grad():
        assert torch.equal(model(pictures(64, 64))["seg"], finished(folder)(pictures(64, 64))["seg"])
    assert model.decoders.options["seg"] == gn.SegFormerHead(channels=WIDTH)


# ---- bundles ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_bundle_needs_the_encoder_alone(folder, tmp_path):
    model = finished(folder)
    model.save(tmp_path / "seg", dtype="float32")
    images = pictures(70, 90)
    expected = model(images)["seg"]
    facts = json.loads((tmp_path / "seg" / "bundle.json").read_text())
    assert facts["backbone"]["name"] == "segformer_b0" and facts["tasks"]["seg"]["labels"] == CLASSES
    assert facts["tasks"]["seg"]["head"]["options"]["init"] == "random"
    encoder = {n: t for n, t in load_file(folder / "model.safetensors").items() if "decode_head" not in n}
    save_file(encoder, folder / "model.safetensors")
    again = gn.load(tmp_path / "seg")
    assert torch.equal(again(images)["seg"], expected) and again.decoders.started == {"seg": ""}
    again.save(tmp_path / "again")
    encoder["segformer.encoder.layer_norm.0.bias"] += 1
    save_file(encoder, folder / "model.safetensors")
    with pytest.raises(GarnishError, match=r"fingerprint .* but that of .* is"):
        gn.load(tmp_path / "seg")


def test_a_bundle_of_another_label_set_with_adapters(folder, tmp_path):
    model = finished(folder, classes=3, method=gn.LoRA(rank=2))
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.05)
    model.save(tmp_path / "b", dtype="float32")
    with torch.no_grad():
        assert torch.equal(gn.load(tmp_path / "b")(pictures(64, 64))["seg"], model(pictures(64, 64))["seg"])


# ---- refused, in one line --------------------------------------------------------------------------------------------


def refused(folder, **options) -> str:
    with pytest.raises(GarnishError) as raised:
        finished(folder, **options)
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_wrong_tensors_are_refused(folder):
    file = folder / "model.safetensors"
    good = load_file(file)

    def changed(**more) -> str:
        save_file({n: t for n, t in (good | more).items() if t is not None}, file)
        return refused(folder)

    bias, fuse = "decode_head.linear_c.2.proj.bias", "decode_head.linear_fuse.weight"
    assert f"lacks {bias}" in changed(**{bias: None})
    assert "holds the unknown decode_head.convs.0.conv.weight" in changed(
        **{"decode_head.convs.0.conv.weight": torch.zeros(1)}
    )
    line = changed(**{"decode_head.linear_c.1.proj.weight": torch.zeros(WIDTH, 17)})
    assert "projections.1.weight of its decoder is (12, 17), but (12, 16) on this trunk" in line
    assert "norm.running_var of its decoder is (3,)" in changed(
        **{"decode_head.batch_norm.running_var": torch.zeros(3)}
    )
    assert "fuse.weight of its decoder is (12, 36, 1, 1)" in changed(**{fuse: torch.zeros(WIDTH, 36, 1, 1)})
    save_file({n: t for n, t in good.items() if not n.startswith("decode_head.")}, file)
    assert "holds no decode_head, only an encoder" in refused(folder)
    save_file({n: t for n, t in good.items() if n != "decode_head.batch_norm.num_batches_tracked"}, file)
    assert finished(folder).head("seg").state_dict()["norm.num_batches_tracked"] == 0


def test_a_pickled_object_is_refused(folder):
    file = folder.parent / "evil.pth"
    torch.save({"state_dict": {"decode_head.linear_pred.weight": Path("x")}}, file)
    assert "holds objects other than tensors" in refused(file)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"num_attention_heads": [1, 2, 3, 8]},
            "by their config.json they are of another architecture; give gn.backbone(",
        ),
        ({"hidden_act": "relu"}, "hidden_act 'relu', not 'gelu'"),
        ({"strides": [4, 2, 2, 1]}, "strides [4, 2, 2, 1]"),
    ],
)
def test_a_config_that_computes_something_else_is_refused(entry, said, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entry))
    assert said in refused(folder)


def test_a_damaged_config_is_refused(folder):
    for text in ("{", "[]", "[" * 10_000):
        (folder / "config.json").write_text(text)
        assert "config.json: " in refused(folder)


def test_options_that_do_not_fit_are_refused(folder, tmp_path):
    def raised(make, error=OptionError) -> str:
        with pytest.raises(error) as found:
            make()
        assert "\n" not in str(found.value)
        return str(found.value)

    assert "did you mean 'segformer_b0'" in raised(lambda: gn.finished("segformer-b0", str(folder)))
    assert "a finished model has weights" in raised(lambda: gn.finished("segformer_b0", False))
    assert "no such weights file" in raised(lambda: gn.finished("segformer_b0", "./nowhere.pth"), WeightsError)
    assert "expected one of random, published" in raised(lambda: gn.SegFormerHead(init="ade"))
    assert "set norm=False" in raised(lambda: gn.SegFormerHead(init="published", norm=True))
    seg, head = {"seg": gn.Semantic(classes=5)}, gn.SegFormerHead(channels=16, init="published")
    trunk = gn.backbone("segformer_b0", str(folder), options=TINY_OPTIONS)
    assert "16, but the decoder in" in (line := raised(lambda: gn.adapt(trunk, gn.LoRA(), seg, head)))
    assert line.endswith("set channels to 12")
    bare = gn.backbone("segformer_b0", options=TINY_OPTIONS)
    assert "the trunk's weights are random" in raised(lambda: gn.adapt(bare, gn.LoRA(), seg, head))


def test_the_published_weights_are_named(monkeypatch, folder):
    asked = []

    def fetched(source: str) -> Path:
        asked.append(source)
        return folder / "model.safetensors"

    for place in ("garnish.backbones.weights", "garnish.model.finished"):
        monkeypatch.setattr(f"{place}.weights_file", fetched)
    model = gn.finished("segformer_b0", options=TINY_OPTIONS)
    assert asked[0] == model.backbone.weights_source == "nvidia/segformer-b0-finetuned-ade-512-512"
    assert model.backbone.licence == NVIDIA_LICENCE and isinstance(model.head("seg"), SegFormerDecoder)
    gn.backbone("segformer_b5", True, options=TINY_OPTIONS)
    assert asked[-1] == "nvidia/segformer-b5-finetuned-ade-640-640"


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def b0(tmp_path_factory) -> Path:
    """A whole B0 (commands take no options of a finished model), random, with the scenes' classes."""
    names = list(gn.Scenes(1, seed=0).tasks["seg"].names)
    folder = tmp_path_factory.mktemp("b0")
    model = whole({"embed_dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2), "num_heads": (1, 2, 5, 8)}, 256, names)
    model.save_pretrained(folder)
    return folder


def test_predict_and_eval_without_training(b0, tmp_path, capsys):
    picture = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(picture)
    given = ["--weights", str(b0), "--device", "cpu"]
    assert main(["predict", "segformer_b0", str(picture), "--out", str(tmp_path / "maps"), *given]) == 0
    with Image.open(tmp_path / "maps" / "street_seg.png") as found:
        ids = np.array(found)
    expected = gn.finished("segformer_b0", str(b0)).predict(picture).maps["seg"]
    assert (
        ids.shape == (50, 70)
        and np.array_equal(ids, expected.numpy())
        and (tmp_path / "maps/street_sheet.png").exists()
    )
    capsys.readouterr()
    scenes = ["--data", "scenes", "--data.test", "2", "--data.size", "32"]
    assert main(["eval", "segformer_b0", *scenes, *given, "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["seg"]["miou"] <= 1
    assert main(["eval", f"segformer_b0,{tmp_path}", *scenes, *given]) == 2
    assert "cannot be joined with bundles" in capsys.readouterr().err


def test_the_example_of_the_documentation_runs(b0, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / "segformer.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "segformer-b0-ade").symlink_to(b0)
    Image.new("RGB", (64, 48)).save("street.jpg")
    names: dict[str, object] = {}
    exec(compile(example, "docs/segformer.md", "exec"), names)  # the block as it stands
    said = re.sub(r"\d+ there", "150 there", capsys.readouterr().out.strip())
    assert f"# {said}\n" in example
    assert names["model"].decoders.started["depth"] and (tmp_path / "my-streets" / "bundle.json").exists()
    assert [yaml.safe_load(block)["head"]["init"] for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)] == [
        "published"
    ]


RECIPE = """\
backbone: {{name: segformer_b0, weights: {weights}}}
adapter: {{name: LoRA, rank: 2}}
head: {{name: SegFormerHead, init: published}}
tasks: [{task}]
data: {{name: scenes, train: 2, val: 1, test: 1, size: 32}}
train: {{steps: 1, batch_size: 2, lr: 1e-3, log: []}}
out: {out}
"""


def test_train_starts_from_the_published_decoder(b0, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(weights=b0, task="seg", out=tmp_path / "run"))
    assert read_recipe(file).resolved()["head"]["init"] == "published"
    assert main(["train", "--config", str(file)]) == 0
    assert "kept projections, fuse, norm, classifier" in capsys.readouterr().err
    assert gn.load(tmp_path / "run" / "best").tasks["seg"].channels > 2


def test_train_onto_a_finished_model(b0, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(weights=b0, task="depth", out=tmp_path / "run"))
    file.write_text(file.read_text() + "onto: segformer_b0\n")
    assert main(["train", "--config", str(file), "--quiet"]) == 0
    model = gn.load(tmp_path / "run" / "best")
    assert set(model.tasks) == {"seg", "depth"}
    published = gn.finished("segformer_b0", str(b0))
    with torch.no_grad():
        got, expected = (m(pictures(64, 64), tasks=["seg"])["seg"] for m in (model, published))
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=1e-2)  # stored in float16
