from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as V

from garnish.data.augment import Augment, resize_sample
from garnish.data.dataset import DepthMap, NormalMap, Sample
from garnish.data.scenes.scenes import Scenes, render
from garnish.errors import DataError, OptionError
from garnish.targets.kernels import KERNELS, geometric_functionals, resize_map

#: arguments that make each functional of torchvision change a 12 × 12 map
ARGUMENTS = {
    "affine": {"angle": 30.0, "translate": [1, 2], "scale": 1.2, "shear": [0.0, 0.0]},
    "center_crop": {"output_size": [6, 6]},
    "crop": {"top": 1, "left": 2, "height": 5, "width": 6},
    "elastic": {"displacement": torch.full((1, 12, 12, 2), 0.3)},
    "five_crop": {"size": [5, 5]},
    "horizontal_flip": {},
    "pad": {"padding": [2, 2]},
    "perspective": {"startpoints": [[0, 0], [11, 0], [11, 11], [0, 11]], "endpoints": [[1, 1], [9, 0], [9, 9], [0, 9]]},
    "resize": {"size": [6, 8]},
    "resized_crop": {"top": 1, "left": 2, "height": 5, "width": 6, "size": [9, 9]},
    "rotate": {"angle": 40.0},
    "ten_crop": {"size": [5, 5]},
    "vertical_flip": {},
}


def unit_normals(height=12, width=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(3, height, width, generator=g), dim=0)


def sphere(size=129, radius=40.0):
    """Orthographic ball in the middle: normals are (x, y, -z)/r, depth is rotation symmetric around the middle."""
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    z2 = radius**2 - x**2 - y**2
    inside = z2 > 0
    n = torch.stack([x, y, -z2.clamp(min=0).sqrt()]) / radius * inside
    return n, inside


def test_lists_every_geometric_functional():
    """Whatever torchvision moves masks with must be known here: a new one in a later version fails this test."""
    from torchvision.transforms.v2.functional._utils import _KERNEL_REGISTRY as registry

    moves = {
        f.__name__
        for f, kernels in registry.items()
        if f.__module__.endswith("_geometry") and (tv_tensors.Mask in kernels or "crop" in f.__name__)
    }
    assert moves == set(geometric_functionals()) == set(ARGUMENTS)


@pytest.mark.parametrize("kind", [DepthMap, NormalMap])
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_every_functional_follows_or_refuses(name, kind):
    data = kind(unit_normals()[: 1 if kind is DepthMap else 3].abs() + 1)
    if name in KERNELS:
        out = getattr(V, name)(data, **ARGUMENTS[name])
        assert type(out) is kind
        assert out.shape[-2:] != data.shape[-2:] or not torch.equal(out, data)
    else:
        with pytest.raises(OptionError, match=f"transform '{name}' has no rule for {kind.__name__}"):
            getattr(V, name)(data, **ARGUMENTS[name])


def test_the_trap_exists_and_v2_classes_do_not_fall_into_it():
    class Bare(tv_tensors.TVTensor):
        pass

    bare = torch.rand(1, 12, 12).as_subclass(Bare)
    assert v2.Resize((6, 6))(bare).shape == (1, 12, 12)  # torchvision says nothing
    image, depth, normals = v2.Resize((6, 6))(
        tv_tensors.Image(torch.zeros(3, 12, 12)), DepthMap(torch.rand(1, 12, 12)), NormalMap(unit_normals())
    )
    assert image.shape[-2:] == depth.shape[-2:] == normals.shape[-2:] == (6, 6)
    with pytest.raises(OptionError, match="perspective"):
        v2.RandomPerspective(p=1.0)(tv_tensors.Image(torch.zeros(3, 12, 12)), depth)
    with pytest.raises(OptionError, match="elastic"):
        v2.ElasticTransform()(tv_tensors.Image(torch.zeros(3, 64, 64)), NormalMap(unit_normals(64, 64)))


@pytest.mark.parametrize("flip", [V.horizontal_flip, V.vertical_flip])
def test_flip_twice_is_identity(flip):
    for data in (DepthMap(torch.rand(1, 7, 9)), NormalMap(unit_normals(7, 9))):
        assert not torch.equal(flip(data), data)
        assert torch.equal(flip(flip(data)), data)


@pytest.mark.parametrize("flip", [V.horizontal_flip, V.vertical_flip])
def test_flipping_a_sphere_gives_the_same_sphere(flip):
    n, _ = sphere()
    torch.testing.assert_close(flip(NormalMap(n)).as_subclass(torch.Tensor), n)


@pytest.mark.parametrize("angle", [-130.0, -30.0, 20.0, 90.0])
def test_turning_a_sphere_gives_the_same_sphere(angle):
    n, inside = sphere()
    for out in (
        V.rotate(NormalMap(n), angle),
        V.affine(NormalMap(n), -angle, [0, 0], 1.0, [0.0, 0.0]),  # affine turns clockwise
    ):
        both = inside & (out.abs().sum(0) > 0)
        assert both.sum() > 0.98 * inside.sum()
        # nearest neighbour is up to 0.7 of a pixel off, at radius 40
        assert (out.as_subclass(torch.Tensor) - n)[:, both].norm(dim=0)[n[2][both] < -0.3].max() < 0.09


@pytest.mark.parametrize("angle", [25.0, -70.0])
def test_normals_turn_as_the_depth_does(angle):
    """Truth from the turned depth alone: a plane's normal by back-projecting it after the rotation."""
    size, focal = 65, 60.0
    axis = (torch.arange(size, dtype=torch.float64) - 32) / focal
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    n = torch.nn.functional.normalize(torch.tensor([0.5, -0.3, -0.8], dtype=torch.float64), dim=0)
    depth = -2.0 / (n[0] * x + n[1] * y + n[2])
    turned = V.rotate(DepthMap(depth.float()[None]), angle)[0].double()
    points = torch.stack([x, y, torch.ones_like(x)]) * turned
    chosen = points[:, 20:45, 20:45].reshape(3, -1).T
    centred = chosen - chosen.mean(0)
    fitted = torch.linalg.svd(centred, full_matrices=False).Vh[2]
    fitted = fitted * -torch.sign(fitted[2])
    given = V.rotate(NormalMap(n.float()[:, None, None].expand(3, size, size).contiguous()), angle)[:, 32, 32].double()
    assert torch.rad2deg(torch.arccos((fitted * given).sum().clamp(max=1))) < 1.0
    assert (given - n).norm() > 0.2


def test_quarter_turn_is_exact():
    n = unit_normals()
    out = V.rotate(NormalMap(n), 90.0).as_subclass(torch.Tensor)
    x, y, z = torch.rot90(n, 1, (1, 2))
    torch.testing.assert_close(out, torch.stack([y, -x, z]), atol=1e-6, rtol=0)


def test_no_label_stays_no_label_and_values_are_not_mixed():
    depth = torch.rand(1, 20, 20) + 1
    depth[:, 5:9] = 0
    n = unit_normals(20, 20)
    n[:, 3:7] = 0
    for out, source in (
        (V.resize(DepthMap(depth), [13, 31]), depth),
        (V.rotate(DepthMap(depth), 17.0), depth),
        (resize_map(DepthMap(depth), (13, 31)), depth),
        (V.affine(DepthMap(depth), 10.0, [1, 0], 1.3, [0.0, 0.0]), depth),
    ):
        assert torch.isin(out.as_subclass(torch.Tensor), torch.cat([source.reshape(-1), torch.zeros(1)])).all()
        assert (out == 0).any()
    lengths = V.rotate(NormalMap(n), 33.0).as_subclass(torch.Tensor).norm(dim=0)
    assert ((lengths == 0) | ((lengths - 1).abs() < 1e-5)).all()


@pytest.mark.parametrize("size", [(5, 7), (24, 30), (12, 31), (11, 3)])
def test_resize_map_equals_nearest_exact(size):
    x = torch.rand(1, 12, 15)
    expected = torch.nn.functional.interpolate(x[None], size=size, mode="nearest-exact")[0]
    assert torch.equal(resize_map(x, size), expected)
    ids = torch.randint(0, 256, (12, 15))
    assert resize_map(tv_tensors.Mask(ids), size).dtype == torch.int64


@pytest.mark.parametrize("along", [0, 1])
def test_labels_stay_on_the_picture(along):
    """An id map painted as a picture and resized agrees with the resized ids, with no shift either way."""
    ids = torch.zeros(64, 64, dtype=torch.long)
    ids[12:48] = 1
    ids = ids if along == 0 else ids.T.contiguous()
    image = (ids * 255).to(torch.uint8).expand(3, -1, -1).contiguous()
    sample = Sample(tv_tensors.Image(image), {"seg": tv_tensors.Mask(ids)}, "x")
    for size in ((16, 16), (32, 16), (128, 256)):  # the band's sides fall between pixels at each of them
        out = resize_sample(sample, size)
        assert torch.equal(out.image[0] > 127, out.targets["seg"] == 1)
    for size in ((40, 24), (100, 37)):
        out = resize_sample(sample, size)
        assert ((out.image[0].double() / 255 - out.targets["seg"]).abs() > 0.75).sum() == 0


def test_refuses_shear_and_invented_borders():
    n = NormalMap(unit_normals())
    with pytest.raises(OptionError, match="shear"):
        V.affine(n, 0.0, [0, 0], 1.0, [5.0, 0.0])
    with pytest.raises(OptionError, match="padding_mode 'reflect'"):
        V.pad(n, [1, 1], padding_mode="reflect")


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Scenes(1, size=64, seed=3, style="demo")[0]


@pytest.fixture(scope="module")
def options() -> Augment:
    return Augment(size=(48, 56), scale=(0.6, 1.4), flip=0.5, rotate_degrees=15.0, colour=0.3)


def same(a: Sample, b: Sample) -> bool:
    return torch.equal(a.image, b.image) and all(torch.equal(a.targets[t], b.targets[t]) for t in a.targets)


def test_augment_is_a_pure_function_of_its_seed(sample, options):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = options(sample, (1, 2, 3))
    torch.rand(5)
    assert same(first, options(sample, (1, 2, 3)))
    assert not same(first, options(sample, (1, 2, 4)))
    torch.manual_seed(0)
    options(sample, (9,))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_augment_keeps_formats_and_fills_without_labels(sample, options):
    filled = 0
    for seed in range(20):
        out = options(sample, (seed,))
        assert out.size == (48, 56) and type(out.image) is tv_tensors.Image and out.image.dtype == torch.uint8
        assert {t: (type(v), v.dtype) for t, v in out.targets.items()} == {
            t: (type(v), v.dtype) for t, v in sample.targets.items()
        }
        empty = out.targets["seg"] == 255
        filled += int(empty.any())
        assert torch.equal(empty, out.targets["depth"][0] == 0)
        assert torch.equal(empty, out.targets["edges"][0] == 255)
        assert torch.equal(empty, out.targets["normals"].abs().sum(0) == 0)
        assert set(out.targets["edges"].unique().tolist()) <= {0.0, 1.0, 255.0}
        assert torch.isin(out.targets["seg"], torch.tensor([*sample.targets["seg"].unique().tolist(), 255])).all()
    assert filled > 5


def test_augment_without_changes_is_identity(sample):
    still = Augment(scale=(1.0, 1.0), flip=0.0)
    assert same(still(sample, (0,)), sample)


def test_flipped_sample_is_a_valid_scene(sample):
    """A picture flipped by augment equals labels of the mirrored geometry: x of normals negated, columns reversed."""
    out = Augment(scale=(1.0, 1.0), flip=1.0)(sample, (0,))
    mirrored = sample.targets["normals"].flip(-1).as_subclass(torch.Tensor) * torch.tensor([-1.0, 1, 1])[:, None, None]
    torch.testing.assert_close(out.targets["normals"].as_subclass(torch.Tensor), mirrored)
    assert torch.equal(out.targets["seg"], sample.targets["seg"].flip(-1))


def test_rotation_of_a_scene_keeps_normals_true_to_depth():
    """Normals of a rotated scene against central differences of its rotated depth (principal point in the middle)."""
    scene = render(6, 2, 128, "pretrain")
    depth = V.rotate(DepthMap(torch.from_numpy(scene.depth)[None]), 90.0)[0].double().numpy()
    normals = V.rotate(NormalMap(torch.from_numpy(scene.normals).permute(2, 0, 1)), 90.0).permute(1, 2, 0).numpy()
    focal = scene.intrinsics[0, 0]
    v, u = (np.mgrid[:128, :128] - 63.5) / focal
    p = np.stack([u, v, np.ones_like(u)], -1) * depth[..., None]
    n = np.cross(p[2:, 1:-1] - p[:-2, 1:-1], p[1:-1, 2:] - p[1:-1, :-2])
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((n * normals[1:-1, 1:-1]).sum(-1), -1, 1)))
    assert np.median(angle) < 0.3


def test_colour_changes_the_picture_only(sample):
    out = Augment(scale=(1.0, 1.0), flip=0.0, colour=0.4)(sample, (3,))
    assert not torch.equal(out.image, sample.image)
    assert all(torch.equal(out.targets[t], sample.targets[t]) for t in sample.targets)


@pytest.mark.parametrize(
    "bad", [{"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)}, {"flip": 1.5}, {"size": (0, 4)}, {"colour": 1.0}]
)
def test_bad_options(bad):
    with pytest.raises(OptionError, match=f"(?i)augment.{next(iter(bad))}"):
        Augment(**bad)


def test_sample_sizes_must_agree():
    with pytest.raises(DataError, match=r"a\.png: label of task 'depth' is 4x4, the picture 5x5"):
        Sample(tv_tensors.Image(torch.zeros(3, 5, 5)), {"depth": DepthMap(torch.zeros(1, 4, 4))}, "a.png")


def test_rotate_angle_sign_matches_image():
    """The top of a picture turned a quarter counter-clockwise lies left; a normal that pointed up points left."""
    image = torch.zeros(1, 9, 9)
    image[:, 0] = 1
    assert V.rotate(tv_tensors.Image(image), 90.0, interpolation=InterpolationMode.NEAREST)[0, :, 0].sum() == 9
    up = NormalMap(torch.tensor([0.0, -1.0, 0.0])[:, None, None].expand(3, 9, 9).contiguous())
    torch.testing.assert_close(
        V.rotate(up, 90.0)[:, 4, 4].as_subclass(torch.Tensor), torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6, rtol=0
    )
    assert math.isclose(float(V.rotate(up, 45.0)[0, 4, 4]), -math.sqrt(0.5), abs_tol=1e-6)
