"""Label types that geometric transforms can move: depth and normals, with their torchvision v2 kernels.

torchvision hands a tensor type it has no kernel for through a geometric transform **unchanged and without a word**.
So every geometric functional has a kernel here for :class:`DepthMap` and :class:`NormalMap`: one that is right, or one
that refuses. They are registered where the types are defined, so that neither can be had without the other.

- Labels are resampled by nearest neighbour: between two ids, across a depth step, or between a normal and "no label"
  there is no meaningful mean, and "no label" must stay exactly that. The grid is that of "nearest-exact", whose pixel
  centres are those of the picture's bilinear resize (torchvision's own ``Mask`` kernel is up to half a pixel off:
  resize masks with :func:`resize_map`).
- A resize or crop leaves depth and normals as they are: they stay true of the same scene seen with the resized
  camera matrix. What a network that is blind to the camera matrix sees is ambiguous: a zoom by s looks like a depth
  divided by s.
- A flip negates the normal's component along the flipped axis; a rotation turns (x, y) with the picture, as a roll of
  the camera would. Planar depth does not change under either.
- Uncovered area gets no label: depth 0, normals 0.

Shape letters: H W pixels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from garnish.errors import OptionError

_NEAREST = InterpolationMode.NEAREST


@final
class DepthMap(tv_tensors.TVTensor):  # type: ignore[misc]
    """(1, H, W) float32 planar depth in metres; 0: no label."""

    def __new__(cls, data: Any) -> DepthMap:
        """Wrap ``data`` without a copy where it is a tensor."""
        return torch.as_tensor(data).as_subclass(cls)


@final
class NormalMap(tv_tensors.TVTensor):  # type: ignore[misc]
    """(3, H, W) float32 unit normals, camera frame x right, y down, z forward; zero vector: no label."""

    def __new__(cls, data: Any) -> NormalMap:
        """Wrap ``data`` without a copy where it is a tensor."""
        return torch.as_tensor(data).as_subclass(cls)


def resize_map(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (…, H, W) labels of any kind to ``size`` by nearest neighbour; keeps type and dtype."""
    height, width = target.shape[-2:]
    if (height, width) == size:
        return target
    # index arithmetic keeps int64 ids exact; half-pixel centres as in the picture's bilinear resize
    rows = ((torch.arange(size[0]) + 0.5) * (height / size[0])).long().clamp(max=height - 1)
    columns = ((torch.arange(size[1]) + 0.5) * (width / size[1])).long().clamp(max=width - 1)
    plain = target.as_subclass(Tensor)
    out = plain[..., rows.to(plain.device)[:, None], columns.to(plain.device)]
    return tv_tensors.wrap(out, like=target) if isinstance(target, tv_tensors.TVTensor) else out


def _turned(normals: Tensor, degrees: float) -> Tensor:
    """Turn the vectors of (…, 3, H, W) counter-clockwise as seen in the picture; y points down."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, z = normals.unbind(-3)
    return torch.stack([c * x + s * y, c * y - s * x, z], -3)


def _scaled(normals: Tensor, factors: tuple[float, float, float]) -> Tensor:
    return normals * normals.new_tensor(factors)[:, None, None] + 0.0  # + 0.0: no negative zeros


def _resize(inpt: Tensor, size: list[int] | None, *, max_size: int | None = None, **_: Any) -> Tensor:
    # the output size is torchvision's to work out (one side given, max_size); a mask of the same size finds it
    shape = V.resize_mask(inpt.new_zeros(1, *inpt.shape[-2:]), size, max_size=max_size).shape
    return resize_map(inpt, (shape[-2], shape[-1]))


def _resized_crop(inpt: Tensor, *, top: int, left: int, height: int, width: int, size: list[int], **_: Any) -> Tensor:
    return _resize(V.crop_image(inpt, top, left, height, width), size)


def _pad(inpt: Tensor, padding: list[int], *, padding_mode: str = "constant", **_: Any) -> Tensor:
    if padding_mode != "constant":
        raise OptionError(
            f"padding_mode {padding_mode!r} invents depth and normals outside the picture; use 'constant'"
        )
    out: Tensor = V.pad_image(inpt, padding, fill=0.0, padding_mode="constant")
    return out


def _rotate(inpt: Tensor, angle: float, *, expand: bool = False, center: Any = None, **_: Any) -> Tensor:
    out: Tensor = V.rotate_image(inpt, angle, interpolation=_NEAREST, expand=expand, center=center, fill=0.0)
    return out


def _affine(
    inpt: Tensor, angle: float, translate: Any, scale: float, shear: Any, *, center: Any = None, **_: Any
) -> Tensor:
    if any(shear if isinstance(shear, list | tuple) else [shear]):
        raise OptionError(f"shear {shear} is no motion of a camera, so depth and normals cannot follow it; use 0")
    still = [0.0, 0.0]
    out: Tensor = V.affine_image(inpt, angle, translate, scale, still, interpolation=_NEAREST, fill=0.0, center=center)
    return out


def _rotate_normals(inpt: Tensor, angle: float, **options: Any) -> Tensor:
    return _turned(_rotate(inpt, angle, **options), angle)


def _affine_normals(inpt: Tensor, angle: float, *args: Any, **options: Any) -> Tensor:
    # torchvision's affine turns clockwise, its rotate counter-clockwise
    return _turned(_affine(inpt, angle, *args, **options), -angle)


#: geometric functional → (kernel of depth, kernel of normals); they get its options by name and take those they need
KERNELS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "horizontal_flip": (V.horizontal_flip_image, lambda x: _scaled(x.flip(-1), (-1.0, 1.0, 1.0))),
    "vertical_flip": (V.vertical_flip_image, lambda x: _scaled(x.flip(-2), (1.0, -1.0, 1.0))),
    "resize": (_resize, _resize),
    "crop": (V.crop_image, V.crop_image),
    "center_crop": (V.center_crop_image, V.center_crop_image),
    "resized_crop": (_resized_crop, _resized_crop),
    "pad": (_pad, _pad),
    "rotate": (_rotate, _rotate_normals),
    "affine": (_affine, _affine_normals),
}


def geometric_functionals() -> dict[str, Callable[..., Any]]:
    """Every dispatching functional of the installed torchvision that moves pixels, by name, aliases left out."""
    found: dict[str, Callable[..., Any]] = {}
    for function in vars(V).values():
        if not (inspect.isfunction(function) and function.__module__.endswith("functional._geometry")):
            continue
        parameters = list(inspect.signature(function).parameters)
        # kernels take "image", "mask", …; dispatchers take "inpt"
        is_kernel = function.__name__.endswith(("_image", "_mask", "_video", "_bounding_boxes", "_keypoints"))
        if parameters[:1] == ["inpt"] and not is_kernel and function.__name__ not in ("hflip", "vflip"):
            found[function.__name__] = function
    return found


def _refusal(name: str) -> Callable[..., Tensor]:
    def refuse(inpt: Tensor, *args: Any, **options: Any) -> Tensor:
        raise OptionError(
            f"transform {name!r} has no rule for {type(inpt).__name__}; use one of {', '.join(sorted(KERNELS))}"
        )

    return refuse


def _register() -> None:
    for name, functional in geometric_functionals().items():
        kernels = KERNELS.get(name, (_refusal(name), _refusal(name)))
        for kind, kernel in zip((DepthMap, NormalMap), kernels, strict=True):
            try:
                V.register_kernel(functional, kind)(_unwrapped(kernel, keep=name in KERNELS))
            except ValueError:  # an alias that dispatches to another functional and has no registry of its own
                continue


def _unwrapped(kernel: Callable[..., Tensor], keep: bool) -> Callable[..., Tensor]:
    """Run ``kernel`` on plain tensors and give its result the input's type; refusals see the typed input."""

    def run(inpt: Tensor, *args: Any, **options: Any) -> Tensor:
        if not keep:
            return kernel(inpt, *args, **options)
        out = kernel(inpt.as_subclass(Tensor), *args, **options)
        wrapped: Tensor = tv_tensors.wrap(out, like=inpt)
        return wrapped

    return run


_register()
