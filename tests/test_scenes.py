from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from garnish.data.scenes.composition import STYLES, arrange
from garnish.data.scenes.render import CLASSES, Scene, _render, render
from garnish.data.scenes.scenes import Scenes
from garnish.data.scenes.shapes import SHAPES
from garnish.data.scenes.solids import Solid
from garnish.errors import OptionError


@pytest.fixture(scope="module", params=["pretrain", "demo"])
def scenes(request) -> tuple[str, list[Scene]]:
    return request.param, [render(5, i, 96, request.param) for i in range(6)]


def rays(scene: Scene) -> np.ndarray:
    height, width = scene.depth.shape
    v, u = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([u, v, np.ones_like(u)], -1)
    return pixels @ np.linalg.inv(scene.intrinsics).T


def test_formats_and_ranges(scenes):
    style, items = scenes
    for s in items:
        assert s.image.shape == (96, 96, 3) and s.image.dtype == np.uint8
        assert s.ids.dtype == s.instances.dtype == s.edges.dtype == s.saliency.dtype == np.uint8
        assert s.depth.dtype == s.normals.dtype == np.float32
        assert s.ids.max() < len(CLASSES[style])
        assert s.depth.min() > 0.7 and s.depth.max() < 8
        assert set(np.unique(s.edges)) == {0, 1}
        np.testing.assert_allclose(np.linalg.norm(s.normals, axis=-1), 1, atol=1e-4)
        # every visible surface faces its ray
        assert ((s.normals * rays(s)).sum(-1) < 2e-3).all()


def test_normals_are_those_of_the_depth(scenes):
    """Central differences of the back-projected depth, inside instances, away from creases."""
    checked = 0
    for s in scenes[1]:
        p = rays(s) * s.depth[..., None].astype(np.float64)
        du, dv = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]
        n = np.cross(dv, du)
        n /= np.linalg.norm(n, axis=-1, keepdims=True)
        given = s.normals.astype(np.float64)
        smooth = np.ones_like(s.instances[1:-1, 1:-1], bool)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                here = np.s_[1 + dy : 95 + dy, 1 + dx : 95 + dx]
                smooth &= s.instances[here] == s.instances[1:-1, 1:-1]
                smooth &= (given[here] * given[1:-1, 1:-1]).sum(-1) > 0.97
        angle = np.degrees(np.arccos(np.clip((n * given[1:-1, 1:-1]).sum(-1)[smooth], -1, 1)))
        assert np.median(angle) < 0.3
        assert np.quantile(angle, 0.99) < 4
        checked += smooth.sum()
    assert checked > 0.6 * len(scenes[1]) * 96 * 96


def test_edges_are_where_instances_change(scenes):
    for s in scenes[1]:
        padded = np.pad(s.instances, 1, mode="edge")
        four = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        np.testing.assert_array_equal(s.edges == 1, np.any([n != s.instances for n in four], 0))


def test_saliency_is_one_solid(scenes):
    style, items = scenes
    for s in items:
        chosen = np.unique(s.instances[s.saliency == 1])
        assert len(chosen) == 1
        np.testing.assert_array_equal(s.saliency == 1, s.instances == chosen[0])
        assert s.ids[s.saliency == 1].min() >= len(STYLES[style].background)


def test_one_class_an_instance(scenes):
    for s in scenes[1]:
        for number in np.unique(s.instances):
            assert len(np.unique(s.ids[s.instances == number])) == 1


def test_styles_share_nothing():
    a, b = STYLES["pretrain"], STYLES["demo"]
    assert not set(a.classes) & set(b.classes)
    assert not set(a.textures) & set(b.textures)


@pytest.mark.parametrize("style", ["pretrain", "demo"])
def test_all_classes_turn_up(style):
    seen = np.zeros(len(CLASSES[style]), int)
    for i in range(24):
        seen[np.unique(render(2, i, 48, style).ids)] += 1
    assert (seen >= 2).all(), seen


@pytest.mark.slow
def test_same_in_another_process():
    code = (
        "import hashlib; from garnish.data.scenes.render import render; s = render(7, 3, 64, 'demo');"
        "print(hashlib.sha256(s.image.tobytes() + s.depth.tobytes() + s.ids.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    s = render(7, 3, 64, "demo")
    assert run.stdout.strip() == hashlib.sha256(s.image.tobytes() + s.depth.tobytes() + s.ids.tobytes()).hexdigest()


def test_same_everywhere_and_other_for_other_seeds():
    """Figures written down once: where they change, so does every result reported on scenes."""
    s = render(7, 3, 64, "demo")
    np.testing.assert_allclose(np.bincount(s.ids.ravel(), minlength=7), [1457, 1887, 0, 372, 48, 332, 0], atol=2)
    np.testing.assert_allclose(s.image.mean((0, 1)), [159.1, 145.67, 128.22], atol=0.05)
    for other in (render(8, 3, 64, "demo"), render(7, 4, 64, "demo"), render(7, 3, 64, "pretrain")):
        assert (other.image != s.image).mean() > 0.5


def test_layout_does_not_depend_on_size():
    small, large = render(1, 1, 48, "demo"), render(1, 1, 144, "demo")
    # pixel (i, j) of the small picture is pixel (3i + 1, 3j + 1) of the large one
    np.testing.assert_array_equal(small.ids, large.ids[1::3, 1::3])
    np.testing.assert_allclose(small.depth, large.depth[1::3, 1::3], atol=2e-3)


def test_oblong_pictures():
    assert render(0, 0, (48, 80), "demo").image.shape == (48, 80, 3)


def _inside(solid: Solid, kind: str, p: np.ndarray) -> np.ndarray:
    """Signed membership in float64, from each shape's definition and not from the caster's intersections."""
    x, y, z = p
    if kind == "torus":
        return (np.hypot(x, y) - solid.ring) ** 2 + z**2 <= solid.tube**2
    if kind == "capsule":
        return x**2 + y**2 + (z - np.clip(z, -solid.half, solid.half)) ** 2 <= solid.radius**2
    ok = np.ones_like(x, bool)
    if solid.planes is not None:
        ok &= (solid.planes[:, :3].astype(float) @ p <= solid.planes[:, 3:]).all(0)
    if solid.quadric is not None:
        (a, b, c), l, k = solid.quadric
        ok &= a * x**2 + b * y**2 + c * z**2 + l * z + k <= 0
    return ok


@pytest.mark.parametrize("kind", list(SHAPES))
def test_hits_equal_marching(kind):
    """Fine float64 steps along random rays find the same entry as the closed form."""
    rng = np.random.default_rng(1)
    solid = SHAPES[kind](0.5, 0.4, 0.6)
    origin = rng.normal(size=(3, 300))
    origin *= 2.5 / np.linalg.norm(origin, axis=0)
    aim = rng.uniform(-0.55, 0.55, (3, 300))
    direction = (aim - origin) * rng.uniform(0.3, 1.0, 300)
    with np.errstate(all="ignore"):
        found = solid.hit(origin.astype(np.float32), direction.astype(np.float32))
    steps = np.linspace(0, 4 / np.linalg.norm(direction, axis=0), 4001)
    inside = np.stack([_inside(solid, kind, origin + t * direction) for t in steps])
    expected = np.where(inside.any(0), steps[inside.argmax(0), np.arange(300)], np.inf)
    # rays that only graze fall between the steps
    depth_inside = inside.sum(0)
    assert (np.isfinite(found) == np.isfinite(expected))[(depth_inside == 0) | (depth_inside > 40)].mean() > 0.985
    both = np.isfinite(found) & np.isfinite(expected) & (depth_inside > 40)
    assert both.sum() > 60
    spacing = steps[1] - steps[0]
    assert (np.abs(found[both] - expected[both]) <= 2 * spacing[both] + 1e-4).all()
    # nothing reaches out of the ball that stands for the solid
    p = origin[:, both] + found[both] * direction[:, both]
    assert np.linalg.norm(p, axis=0).max() <= solid.reach + 1e-3
    # normals point out of the solid: a hair outwards is outside, a hair inwards inside
    n = solid.normal(p.astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(n, axis=0), 1, atol=1e-4)
    assert (~_inside(solid, kind, p + 2e-3 * n)).mean() > 0.99
    assert _inside(solid, kind, p - 2e-3 * n).mean() > 0.97


def test_light_comes_with_shadow():
    """Under the same lamp, ground that is hidden from it is darker: turning the solids off brightens the picture."""
    brighter = []
    for i in range(4):
        setting = arrange(np.random.default_rng(i), STYLES["demo"])
        setting = dataclasses.replace(setting, noise=0.0)
        with np.errstate(all="ignore"):
            full = _render(setting, "demo", 64, 64, np.random.default_rng(0))
            empty = _render(dataclasses.replace(setting, solids=()), "demo", 64, 64, np.random.default_rng(0))
        ground = (full.ids == 0) & (full.edges == 0)
        gain = empty.image[ground].astype(float).mean(-1) - full.image[ground].astype(float).mean(-1)
        assert gain.min() > -12  # blur mixes in neighbours; nothing on the ground gets lighter by a solid
        brighter.append((gain > 25).mean())
    assert max(brighter) > 0.02


def test_dataset_samples():
    data = Scenes(3, size=32, seed=4, style="demo", keep=True)
    assert len(data) == 3 and list(data.tasks) == ["seg", "depth", "normals", "edges", "saliency"]
    sample = data[1]
    assert data[1] is sample
    assert isinstance(sample.image, tv_tensors.Image) and sample.image.shape == (3, 32, 32)
    assert sample.targets["seg"].dtype == torch.int64 and sample.targets["seg"].shape == (32, 32)
    assert {k: tuple(v.shape) for k, v in sample.targets.items() if k != "seg"} == {
        "depth": (1, 32, 32),
        "normals": (3, 32, 32),
        "edges": (1, 32, 32),
        "saliency": (1, 32, 32),
    }
    for name, task in data.tasks.items():
        task.check_target(sample.targets[name], sample.name)
    assert list(Scenes(1, size=32, tasks=("depth",))[0].targets) == ["depth"]
    with pytest.raises(IndexError):
        data[3]


def test_refusals():
    with pytest.raises(OptionError, match="did you mean 'demo'"):
        render(0, 0, 32, "demos")
    with pytest.raises(OptionError, match="size 4x4"):
        render(0, 0, 4)
    with pytest.raises(OptionError, match="unknown task 'dept'"):
        Scenes(1, tasks=("dept",))


@pytest.mark.slow
@pytest.mark.parametrize("style", ["pretrain", "demo"])
def test_fifty_pictures_a_second(style):
    render(0, 0, 128, style)
    start = time.process_time()
    for i in range(100):
        render(1, i, 128, style)
    assert 100 / (time.process_time() - start) > 50
