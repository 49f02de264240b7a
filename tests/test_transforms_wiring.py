"""Transforms as samples go through them: every kind of label moves with its picture, by its own rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as V

from garnish.data.augment import Augment, resize_sample
from garnish.data.dataset import DepthMap, NormalMap, Sample

HEIGHT, WIDTH = 40, 50


def plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(torch.Tensor)


def numbered() -> Sample:
    """Pixel (r, c) has the id 1000 + 50 r + c; every other label follows from the id, the picture's colours too."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    ids = 1000 + WIDTH * rows + columns
    image = torch.stack([rows * 6, columns * 5, torch.full_like(rows, 77)]).to(torch.uint8)
    targets = {
        "seg": tv_tensors.Mask(ids),
        "edges": tv_tensors.Mask((ids % 2).float()[None]),
        "saliency": tv_tensors.Mask((ids % 3 == 0).float()[None]),
        "depth": DepthMap(ids.float()[None] / 8),
        "normals": NormalMap(vectors(ids)),
    }
    return Sample(tv_tensors.Image(image), targets, "numbered")


def vectors(ids: torch.Tensor) -> torch.Tensor:
    angle = ids.double() * 0.7
    return torch.stack([0.6 * angle.cos(), 0.6 * angle.sin(), torch.full_like(angle, -0.8)]).float()


def follows_from_ids(sample: Sample, turned: torch.Tensor) -> None:
    """Every label of a moved sample is that of the pixel whose id stands there; ``turned``: (2, 2) for x and y."""
    ids, targets = plain(sample.targets["seg"]), {k: plain(v) for k, v in sample.targets.items()}
    known = ids != 255
    assert torch.equal(targets["edges"][0], torch.where(known, (ids % 2).float(), 255.0))
    assert torch.equal(targets["saliency"][0], torch.where(known, (ids % 3 == 0).float(), 255.0))
    assert torch.equal(targets["depth"][0], torch.where(known, ids.float() / 8, 0.0))
    wanted = vectors(ids)
    wanted[:2] = torch.einsum("ij,jhw->ihw", turned.float(), wanted[:2])
    torch.testing.assert_close(targets["normals"], wanted * known, atol=1e-5, rtol=0)


def lies_on_the_picture(sample: Sample, off: float) -> None:
    """Rows and columns told by the picture's colours are those of the ids, within ``off`` pixels of the source."""
    ids = plain(sample.targets["seg"])
    known = ids != 255
    # away from the fill, which bilinear pixels mix in, and from the border, beyond which it may lie
    inside = F.max_pool2d(F.pad((~known).float()[None], (2, 2, 2, 2), value=1.0), 5, 1)[0] == 0
    rows, columns = (ids - 1000) // WIDTH, (ids - 1000) % WIDTH
    assert inside.any()
    assert float((sample.image[0] / 6 - rows)[inside].abs().max()) <= off
    assert float((sample.image[1] / 5 - columns)[inside].abs().max()) <= off


@pytest.mark.parametrize("size", [(40, 71), (23, 50), (17, 21), (80, 100), (97, 33), (2, 3)])
def test_resize_sample_takes_the_nearest_pixel_of_every_kind(size):
    sample = numbered()
    out = resize_sample(sample, size)
    assert out.size == size
    for task, target in sample.targets.items():
        values = plain(target).double().reshape(1, -1, HEIGHT, WIDTH)
        wanted = F.interpolate(values, size=size, mode="nearest-exact").reshape(*target.shape[:-2], *size)
        assert torch.equal(plain(out.targets[task]).double(), wanted), task
        assert (type(out.targets[task]), out.targets[task].dtype) == (type(target), target.dtype)
    wanted = F.interpolate(plain(sample.image)[None].float(), size=size, mode="bilinear", antialias=True)[0]
    assert (out.image - wanted).abs().max() <= 1
    follows_from_ids(out, torch.eye(2))


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.8), (1.2, 1.9)])
def test_scaled_cropped_flipped_samples_stay_together(scale, flip):
    turned = torch.diag(torch.tensor([1.0 - 2 * flip, 1.0]))
    places = set()
    for seed in range(6):
        out = Augment(size=(36, 44), scale=scale, flip=flip)(numbered(), (seed,))
        follows_from_ids(out, turned)
        lies_on_the_picture(out, 1.2)
        seen = plain(out.targets["seg"])[plain(out.targets["seg"]) != 255]
        places.add((int(seen.min()), int(seen.max())))
        columns = (plain(out.targets["seg"]) - 1000) % WIDTH
        middle = columns[18][plain(out.targets["seg"])[18] != 255]
        assert bool(middle[-1] > middle[0]) is not bool(flip)
    assert len(places) > 1 or scale[1] < 1  # windows are drawn anew; one that covers the picture shows all of it


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("degrees", [20.0, 170.0])
def test_turned_samples_stay_together(degrees, flip):
    """The angle is read off the ids: by how the source's columns run across the turned picture."""
    angles = []
    for seed in range(6):
        out = Augment(size=(40, 50), scale=(1.0, 1.0), flip=flip, rotate_degrees=degrees)(numbered(), (seed,))
        lies_on_the_picture(out, 1.5)
        ids = plain(out.targets["seg"])
        columns, rows = ((ids - 1000) % WIDTH).double(), ((ids - 1000) // WIDTH).double()
        v, u = torch.nonzero(ids != 255, as_tuple=True)
        at = torch.stack([u, v, torch.ones_like(u)], -1).double()
        source = torch.stack([columns[v, u], rows[v, u]], -1)
        fitted = torch.linalg.lstsq(at, source).solution[:2].T  # a step in the new picture → a step in the old one
        angles.append(math.degrees(math.atan2(float(fitted[1, 0]), float(fitted[0, 0]))))
        turned = torch.linalg.inv(fitted)
        exact = turned / torch.linalg.svdvals(turned).mean()
        assert float(torch.linalg.det(exact)) == pytest.approx(1 - 2 * flip, abs=0.05)
        known = ids != 255
        wanted = torch.einsum("ij,jhw->ihw", exact.float(), vectors(ids)[:2])
        assert float((plain(out.targets["normals"])[:2] - wanted)[:, known].abs().max()) < 0.02
        assert torch.equal(plain(out.targets["depth"])[0], torch.where(known, ids.float() / 8, 0.0))
        assert torch.equal(plain(out.targets["edges"])[0], torch.where(known, (ids % 2).float(), 255.0))
    assert len({round(a) for a in angles}) > 3


# each kernel of depth and normals, called as users of torchvision call it


NUMBERS = np.arange(1, 1 + 12 * 15, dtype=np.float32).reshape(1, 12, 15)


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("crop", {"top": 2, "left": 5, "height": 4, "width": 7}, NUMBERS[:, 2:6, 5:12]),
        (
            "crop",
            {"top": 8, "left": 10, "height": 6, "width": 6},
            np.pad(NUMBERS[:, 8:, 10:], ((0, 0), (0, 2), (0, 1))),
        ),
        ("center_crop", {"output_size": [6, 7]}, NUMBERS[:, 3:9, 4:11]),
        ("pad", {"padding": [1, 2, 3, 4], "fill": 9}, np.pad(NUMBERS, ((0, 0), (2, 4), (1, 3)))),
        ("horizontal_flip", {}, NUMBERS[:, :, ::-1]),
        ("vertical_flip", {}, NUMBERS[:, ::-1]),
        ("resize", {"size": [6, 5]}, NUMBERS[:, 1::2, 1::3]),
        ("resized_crop", {"top": 0, "left": 3, "height": 6, "width": 6, "size": [2, 2]}, NUMBERS[:, 1:6:3, 4:9:3]),
        ("rotate", {"angle": 90, "expand": True}, np.rot90(NUMBERS, 1, (1, 2))),
        ("rotate", {"angle": 180}, NUMBERS[:, ::-1, ::-1]),
        (
            "affine",
            {"angle": 0, "translate": [2, 3], "scale": 1, "shear": [0, 0]},
            np.pad(NUMBERS[:, :-3, :-2], ((0, 0), (3, 0), (2, 0))),
        ),
    ],
)
def test_kernels_move_depth_and_normals_to_the_same_place(name, arguments, wanted):
    wanted = torch.from_numpy(wanted.copy())
    assert torch.equal(plain(getattr(V, name)(DepthMap(torch.from_numpy(NUMBERS)), **arguments)), wanted)
    away = torch.zeros(3, 12, 15)  # towards the camera only, which no roll or flip turns
    away[2] = -torch.from_numpy(NUMBERS[0])
    moved = plain(getattr(V, name)(NormalMap(away), **arguments))
    torch.testing.assert_close(moved, torch.cat([torch.zeros_like(wanted).repeat(2, 1, 1), -wanted]))


@pytest.mark.parametrize("center", [None, [3.0, 4.0]])
@pytest.mark.parametrize("name", ["rotate", "affine"])
def test_turned_places_are_those_of_torchvision(name, center):
    """Places only: what a turn does to the vectors is held by the sphere in test_transforms."""
    more = {} if name == "rotate" else {"translate": [1, 0], "scale": 1.3, "shear": [0.0, 0.0]}
    turned = getattr(V, name)(DepthMap(torch.from_numpy(NUMBERS)), angle=25.0, center=center, **more)
    mask = getattr(V, name)(tv_tensors.Mask(torch.from_numpy(NUMBERS)), angle=25.0, center=center, fill=0, **more)
    assert torch.equal(plain(turned), plain(mask))
    straight = torch.zeros(3, 12, 15)
    straight[2] = torch.from_numpy(NUMBERS[0])
    placed = getattr(V, name)(NormalMap(straight), angle=25.0, center=center, **more)
    assert torch.equal(plain(placed)[2], plain(mask)[0])
