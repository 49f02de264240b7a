"""How targets follow torchvision's geometric transforms: kernels for every kind, and an error for all others.

A tensor type without a kernel passes through torchvision's geometric transforms **unchanged and without a warning**.
So every geometric functional gets a kernel for the tensor type of every kind: a correct one, or one that raises.

- Labels are resampled by nearest neighbour: between two ids, across a depth step, or between a normal and "no label"
  there is no meaningful mean, and "no label" must stay exactly that. The grid is that of "nearest-exact", whose pixel
  centres are those of the picture's bilinear resize (torchvision's own ``Mask`` kernel is up to half a pixel off:
  resize masks with :func:`resize_map`).
- A resize or crop does not change values: depth and normals stay correct for the same scene with the resized camera
  matrix. For a network that does not see the camera matrix this is ambiguous: a zoom by s looks like a depth divided
  by s.
- A flip or a rotation is one of the camera: a kind defines in ``Target.turned`` how its values change. Normals turn
  with the picture; planar depth and curvature stay the same.
- Areas outside the picture get no label.

Shape letters: H W pixels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from garnish.errors import OptionError, shown, suggest
from garnish.files.orientation import Matrix

_NEAREST = InterpolationMode.NEAREST


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


def resize_target(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a target with the kernel of its own tensor type if it has one, else with :func:`resize_map`."""
    if isinstance(target, tv_tensors.TVTensor) and not isinstance(target, tv_tensors.Mask):
        resized: Tensor = V.resize(target, list(size), interpolation=_NEAREST)
        return resized
    return resize_map(target, size)


def window(values: Tensor, top: int, left: int, height: int, width: int, missing: float) -> Tensor:
    """Crop rows ``top`` to ``top + height`` and columns alike from (…, H, W); ``missing`` fills what lies outside."""
    right, bottom = left + width - values.shape[-1], top + height - values.shape[-2]
    around = [max(-left, 0), max(right, 0), max(-top, 0), max(bottom, 0)]
    if any(around):
        values = torch.nn.functional.pad(values, around, value=missing)
        top, left = max(top, 0), max(left, 0)
    return values[..., top : top + height, left : left + width]


def _crop(x: Tensor, top: int, left: int, height: int, width: int, *, missing: float) -> Tensor:
    return window(x, top, left, height, width, missing)


def _center_crop(x: Tensor, output_size: int | Sequence[int], *, missing: float) -> Tensor:
    height, width = ([*([output_size] if isinstance(output_size, int) else output_size)] * 2)[:2]
    # as torchvision rounds: halves to the even number when cropping, to the end when padding
    top, left = (
        round((have - want) / 2) if have >= want else -((want - have) // 2)
        for have, want in zip(x.shape[-2:], (height, width), strict=True)
    )
    return window(x, top, left, height, width, missing)


def _resize(x: Tensor, size: Sequence[int], *, max_size: int | None = None, missing: float, **_: object) -> Tensor:
    if not (isinstance(size, list | tuple) and len(size) == 2):
        # torchvision works out the output size (one side given, max_size), on a mask of the same size
        size = V.resize_mask(x.new_zeros(1, *x.shape[-2:]), size, max_size=max_size).shape[-2:]
    return resize_map(x, (size[0], size[1]))


def _resized_crop(
    x: Tensor, *, top: int, left: int, height: int, width: int, size: list[int], missing: float, **_: object
) -> Tensor:
    return _resize(window(x, top, left, height, width, missing), size, missing=missing)


def _pad(x: Tensor, padding: list[int], *, padding_mode: str = "constant", missing: float, **_: object) -> Tensor:
    if padding_mode != "constant":
        raise OptionError(f"padding_mode {padding_mode!r} invents labels outside the picture; use 'constant'")
    out: Tensor = V.pad_image(x, padding, fill=missing, padding_mode="constant")
    return out


def _rotate(
    x: Tensor, angle: float, *, expand: bool = False, center: list[float] | None = None, missing: float, **_: object
) -> Tensor:
    out: Tensor = V.rotate_image(x, angle, interpolation=_NEAREST, expand=expand, center=center, fill=missing)
    return out


def _affine(
    x: Tensor,
    angle: float,
    translate: list[float],
    scale: float,
    shear: float | Sequence[float],
    *,
    center: list[float] | None = None,
    missing: float,
    **_: object,
) -> Tensor:
    if any(shear if isinstance(shear, list | tuple) else [shear]):
        raise OptionError(f"shear {shear} is no motion of a camera, so labels cannot follow it; use 0")
    still = [0.0, 0.0]
    out: Tensor = V.affine_image(x, angle, translate, scale, still, interpolation=_NEAREST, fill=missing, center=center)
    return out


def _rolled(degrees: float) -> Matrix:
    """Counter-clockwise as seen in the picture, where y points down."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((c, s), (-s, c))


#: Geometric functional → kernel that moves values; it gets torchvision's options and uses those it needs.
KERNELS: dict[str, Callable[..., Tensor]] = {
    "horizontal_flip": lambda x, missing: x.flip(-1),
    "vertical_flip": lambda x, missing: x.flip(-2),
    "resize": _resize,
    "crop": _crop,
    "center_crop": _center_crop,
    "resized_crop": _resized_crop,
    "pad": _pad,
    "rotate": _rotate,
    "affine": _affine,
}
#: Functionals that mirror or roll the camera → the matrix of this, from the same options.
_TURNS: dict[str, Callable[..., Matrix]] = {
    "horizontal_flip": lambda: ((-1.0, 0.0), (0.0, 1.0)),
    "vertical_flip": lambda: ((1.0, 0.0), (0.0, -1.0)),
    "rotate": lambda angle, **_: _rolled(angle),
    "affine": lambda angle, *_, **__: _rolled(-angle),  # torchvision's affine turns clockwise
}


def geometric_functionals() -> dict[str, Callable[..., Tensor]]:
    """Every dispatching functional of the installed torchvision that moves pixels, by name, aliases left out."""
    found: dict[str, Callable[..., Tensor]] = {}
    for function in vars(V).values():
        if not (inspect.isfunction(function) and function.__module__.endswith("functional._geometry")):
            continue
        parameters = list(inspect.signature(function).parameters)
        # kernels take "image", "mask", …; dispatchers take "inpt"
        is_kernel = function.__name__.endswith(("_image", "_mask", "_video", "_bounding_boxes", "_keypoints"))
        if parameters[:1] == ["inpt"] and not is_kernel and function.__name__ not in ("hflip", "vflip"):
            found[function.__name__] = function
    return found


def register(
    tensor: type[Tensor],
    missing: float,
    turned: Callable[[Tensor, Matrix], Tensor],
    own: Mapping[str, Callable[..., Tensor]],
    kind: str,
) -> None:
    """Give every geometric functional a kernel for a tensor type.

    Args:
        tensor: a subclass of torchvision's ``TVTensor`` that has none yet.
        missing: fill value outside the picture.
        turned: changes values when the camera is mirrored or rolled.
        own: functional → kernel in place of the default one: called with a plain tensor and torchvision's options.
        kind: name of the kind of target, for messages.

    Raises:
        OptionError: a tensor type that has kernels already or is no ``TVTensor``, or an unknown functional.
    """
    functionals = geometric_functionals()
    for name in own:
        if name not in functionals:
            raise OptionError(f"{kind}.kernels: no geometric functional {shown(name)}{suggest(name, functionals)}")
    known = {**KERNELS, **own}
    for name, functional in functionals.items():
        if name in own:
            kernel = _typed(own[name])
        elif name in KERNELS:
            kernel = _typed(_moved(name, missing, turned))
        else:
            kernel = _refusal(name, sorted(known))
        try:
            V.register_kernel(functional, tensor)(kernel)
        except ValueError:
            told = f"{tensor.__name__} is another kind's, or no subclass of torchvision's TVTensor"
            raise OptionError(f"{kind}.tensor: {told}; define a type for this kind alone") from None


def _moved(name: str, missing: float, turned: Callable[[Tensor, Matrix], Tensor]) -> Callable[..., Tensor]:
    def move(x: Tensor, *args: object, **options: object) -> Tensor:
        out = KERNELS[name](x, *args, missing=missing, **options)
        return turned(out, _TURNS[name](*args, **options)) if name in _TURNS else out

    return move


def _typed(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run ``kernel`` on plain tensors and give its result the input's type."""

    def run(inpt: Tensor, *args: object, **options: object) -> Tensor:
        wrapped: Tensor = tv_tensors.wrap(kernel(inpt.as_subclass(Tensor), *args, **options), like=inpt)
        return wrapped

    return run


def _refusal(name: str, known: list[str]) -> Callable[..., Tensor]:
    def refuse(inpt: Tensor, *args: object, **options: object) -> Tensor:
        raise OptionError(f"transform {name!r} has no rule for {type(inpt).__name__}; use one of {', '.join(known)}")

    return refuse
