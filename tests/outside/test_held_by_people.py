"""A model of timm's that no family here builds is taken once a package outside has its family."""

from __future__ import annotations

import garnish as gn
from garnish import registry
from garnish.backbones import given_model
from outside.pvt import PVTv2
from test_given_timm import model_of, refused, same


def test_another_family_takes_its_models(monkeypatch):
    known = registry.classes("backbones")
    options = {"embed_dims": (16, 32, 48, 64), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
    model = model_of("pvt_v2_b0", **options)
    assert "no family builds pvt_v2_b0 (PyramidVisionTransformerV2 of timm.models.pvt_v2)" in refused(model)
    monkeypatch.setattr(registry, "classes", lambda kind: {**known, "PVTv2": PVTv2} if kind == "backbones" else {})
    assert given_model.READERS
    trunk = gn.backbone(model, options={key: list(value) for key, value in options.items()})
    same(trunk, model, (64, 96))
