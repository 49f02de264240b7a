"""Pictures as callers and command lines give them: files, folders, arrays; and that no map of them hides another.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from garnish.errors import DataError, OptionError
from garnish.files import pictures
from garnish.output import logger

_log = logger(__name__)

#: A picture without torch: a file, a PIL image, or a numpy (H, W, 3) or grey (H, W) uint8.
PlainPicture = str | Path | Image.Image | np.ndarray


def pixels_of(picture: PlainPicture) -> pictures.RGB:
    """(H, W, 3) uint8 RGB, as data sets are read: see :func:`garnish.files.pictures.read_picture`.

    Raises:
        DataError: a file that is missing or cannot be read, or an array of the wrong shape or dtype.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
            code = conversion(picture.shape, str(picture.dtype), is_float=picture.dtype.kind == "f", channels=-1)
            got = f"{picture.shape} {picture.dtype}{code}"
            raise DataError(f"a picture array must be (H, W, 3) RGB or (H, W) grey, uint8; got {got}")
        grey = picture.ndim == 2
        return some_pixels(np.repeat(picture[..., None], 3, axis=2) if grey else picture.copy())
    if isinstance(picture, Image.Image):
        if 0 in picture.size:
            raise DataError(f"the picture has no pixels: {picture.size[0]}x{picture.size[1]}")
        return pictures.to_rgb(picture, "picture")
    if Path(picture).is_file():
        return pictures.read_picture(Path(picture))
    if Path(picture).is_dir():
        raise DataError(
            f"{picture}: is a folder; one call a picture: give a file of it (garnish predict takes folders)"
        )
    raise DataError(f"{picture}: no such picture; check the path")


def some_pixels(pixels: np.ndarray) -> np.ndarray:
    """The (H, W, 3) picture itself; raises DataError if it has no pixels."""
    if not pixels.size:
        raise DataError(f"the picture has no pixels: {pixels.shape[1]}x{pixels.shape[0]}")
    return pixels


def conversion(shape: tuple[int, ...], dtype: str, *, is_float: bool, channels: int) -> str:
    """The code that makes a valid picture of an array or a tensor, for the end of a message; empty if not known.

    Args:
        shape: of what was given.
        dtype: its name.
        is_float: whether it is one of the floats.
        channels: axis of the colours: 0 of torch, -1 of NumPy.
    """
    if not (is_float or dtype.endswith("uint8")):
        return ""
    of_torch, several = channels == 0, len(shape) == 4
    shape, code = (shape[1:], "picture[0]") if several else (shape, "picture")
    other = -1 if of_torch else 0
    if len(shape) == 3 and shape[channels] == 4:
        code += "[:3]" if of_torch else "[..., :3]"
    elif len(shape) == 3 and shape[channels] != 3 and shape[other] == 3:
        code += ".permute(2, 0, 1)" if of_torch else ".transpose(1, 2, 0)"
    elif (len(shape), *shape[channels:][:1]) != (3, 3) and (of_torch or len(shape) != 2):
        return ""
    if is_float:
        code = f"({code} * 255).round().{'to(torch.uint8)' if of_torch else 'astype(numpy.uint8)'}"
    return f"; give {code}{' (one call a picture)' if several else ''}{' where 1 is white' if is_float else ''}"


def picture_files(given: Iterable[str]) -> dict[str, Path]:
    """Name (of the maps to write) → file, for given pictures and all pictures in given folders.

    Raises:
        DataError: a path that does not exist, a folder without pictures.
    """
    files: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            held = sorted(p for p in path.iterdir() if pictures.is_picture_file(p))
            others = {p.suffix for p in path.iterdir() if p.is_file() and not p.name.startswith(".")}
            others = {ending for ending in others if ending.lower() not in pictures.PICTURE_SUFFIXES}
            if others:
                _log.info("%s: files that end in %s are no pictures and were left out", path, ", ".join(sorted(others)))
            if not held:
                known = ", ".join(pictures.PICTURE_SUFFIXES)
                raise DataError(f"{path}: holds no picture ({known}); give another folder")
            files += held
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such picture; check the path")
    files = list(dict.fromkeys(files))
    found: dict[str, Path] = {}
    for file in files:
        name, number = file.stem, 2
        while name in found:
            name, number = f"{file.stem}_{number}", number + 1
        found[name] = file
    return found


def check_map_names(files: Mapping[str, Path], tasks: Iterable[str], out: Path) -> None:
    """Raise OptionError where one map would be written over another, or over a picture that is to be read.

    Args:
        files: name → picture.
        tasks: whose maps are written, as ``NAME_TASK.png``.
        out: the folder that they are written to.
    """
    folders = {file.parent: file.parent.resolve() == out.resolve() for file in files.values()}
    kept = {file.stem: file for file in files.values() if folders[file.parent] and file.suffix.lower() == ".png"}
    taken: dict[str, Path] = {}
    kinds = (*tasks, "sheet")
    for name, file in files.items():
        for kind in kinds:
            made = f"{name}_{kind}"
            if made in kept:
                raise OptionError(f"--out {out}: {kind} of {file} would replace {kept[made]}; choose another folder")
            if made in taken:
                raise OptionError(
                    f"--out {out}: {made}.png would be {kind} of {file}, and another map of {taken[made]}; "
                    "predict them one by one into folders of their own, or name other --tasks"
                )
            taken[made] = file


def folder_to_write(out: str) -> None:
    """Raise OptionError if the output folder, or a parent of it, is a file."""
    taken = next((p for p in (Path(out), *Path(out).parents) if p.exists()), None)
    if taken is not None and not taken.is_dir():
        raise OptionError(f"--out {out}: {taken} is a file; choose a folder")
