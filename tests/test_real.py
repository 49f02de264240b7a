"""Real pictures and real weights: what needs ../shared, and is skipped where it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

import garnish as gn
from garnish.cli import main
from garnish.errors import WeightsError

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "depth_anything_v2_vits_encoder" / "model.safetensors"
PICTURE = next(iter(sorted((SHARED / "data" / "camvid" / "images" / "test").glob("*.jpg"))), None)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not WEIGHTS.exists() or PICTURE is None, reason="../shared with its weights and data is missing"
    ),
]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    picture = Image.open(PICTURE).convert("RGB").resize((280, 224))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def test_real_encoder_gives_timms_features(pixels):
    trunk = gn.backbone("vit_small_patch14_dinov2", str(WEIGHTS))
    assert trunk.licence.startswith("upstream") or "Apache-2.0" in trunk.licence
    other = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True).eval()
    other.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items() if k != "mask_token"})
    x = (pixels - torch.tensor(trunk.mean).view(1, 3, 1, 1)) / torch.tensor(trunk.std).view(1, 3, 1, 1)
    with torch.no_grad():
        mine = trunk(x)
        theirs = other.forward_intermediates(x, indices=[2, 5, 8, 11], norm=False, intermediates_only=True)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a, b)


def test_wrong_weights_are_refused_in_one_line():
    with pytest.raises(WeightsError, match="right architecture") as caught:
        gn.backbone("vit_small_patch16_dinov3", str(WEIGHTS))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["camvid", "replica", "replica_small", "crackforest", "parts"])
def test_recipes_train_measure_and_predict(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / recipe
    words = ["--config", f"recipes/{recipe}.yaml", "--train.steps", "2", "--train.eval_limit", "2", "--out", str(out)]
    assert main(["train", *words, "--train.check_pictures", "4", "--train.eval_every", "2"]) == 0
    capsys.readouterr()
    facts = json.loads((out / "best" / "bundle.json").read_text())
    assert facts["backbone"]["licence"] and facts["sizes"]["weights_bytes"] < 8e6
    assert main(["predict", str(out / "best"), str(PICTURE), "--out", str(tmp_path / "maps")]) == 0
    written = {p.name for p in (tmp_path / "maps").iterdir()}
    assert f"{PICTURE.stem}_sheet.png" in written and len(written) == len(facts["tasks"]) + 1


@pytest.mark.slow
def test_a_task_added_beside_another_leaves_it_bit_identical(tmp_path, monkeypatch, pixels):
    monkeypatch.chdir(ROOT)
    quick = ["--train.steps", "2", "--train.eval_limit", "2", "--train.check_pictures", "4", "--train.eval_every", "2"]
    first, second = tmp_path / "camvid", tmp_path / "parts"
    assert main(["train", "--config", "recipes/camvid.yaml", *quick, "--out", str(first)]) == 0
    onto = ["--onto", str(first / "best"), "--out", str(second)]
    assert main(["train", "--config", "recipes/parts.yaml", *quick, *onto]) == 0
    before, after = gn.load(first / "best"), gn.load(second / "best")
    with torch.no_grad():
        assert torch.equal(before(pixels, ["seg"])["seg"], after(pixels, ["seg"])["seg"])
        both, alone = after(pixels), before(pixels)["seg"]
    assert set(both) == {"seg", "parts"}
    assert float((both["seg"] - alone).abs().max()) <= 1e-6 * max(1.0, float(alone.abs().max()))
