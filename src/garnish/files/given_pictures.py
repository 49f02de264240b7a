"""Pictures as callers and command lines give them: files, folders, arrays; and that no map of them hides another.

Shape letters: H W pixels.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from garnish.errors import DataError, OptionError
from garnish.files import pictures
from garnish.output import logger

_log = logger(__name__)

#: Endings of map files that a picture may have too.
_WRITTEN = (".png", ".tif", ".npy", ".npz")
#: Arrays, which hold pictures of other bands than RGB, and are taken only where a name or a pattern says so.
_ARRAYS = (".npy", ".npz")

#: Suffixes of the videos that are taken for such; PyAV reads more.
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
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
    if not isinstance(picture, str | Path):
        raise no_picture(picture)
    if Path(picture).is_file():
        return pictures.read_picture(Path(picture))
    if Path(picture).is_dir():
        raise DataError(f"{picture}: is a folder; one call a picture: give a file of it, or call predict_many")
    raise DataError(f"{picture}: no such picture; check the path")


def no_picture(given: object) -> DataError:
    """The error for what is of no type that pictures have."""
    return DataError(f"a {type(given).__name__} is no picture; give a file, a PIL picture or an array (H, W, C)")


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


def picture_files(given: Iterable[str], out: Path | None = None) -> dict[str, Path]:
    """Name (of the maps to write) → file, for given files, all in given folders and below them, and patterns.

    A file is named by its stem; one of a folder or a pattern by its path below that, so ``pictures/a/b.png`` of
    ``pictures`` is ``a/b``. Names that repeat are numbered. Videos are among them, :func:`is_video_file`; their frames
    lie in a folder of their name, so that is numbered too where pictures of such a folder are given.

    Args:
        given: files, folders, or patterns with ``*``, ``?``, ``[…]`` and ``**`` where no file has that name.
        out: the folder that maps are written to, which is not looked into below a folder.

    Raises:
        DataError: a path that does not exist, a folder without pictures, a pattern that fits none.
    """
    files: dict[Path, str] = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            found = _below(path, out)
            if not found:
                known = ", ".join((*pictures.PICTURE_SUFFIXES, *VIDEO_SUFFIXES))
                raise DataError(f"{path}: holds no picture ({known}); give another folder")
        elif path.is_file():
            found = {path: path.stem}
        elif glob.has_magic(text):
            found = _fitting(text, out)
        else:
            raise DataError(f"{path}: no such picture; check the path")
        files |= {file: name for file, name in found.items() if file not in files}
    names: dict[str, Path] = {}
    folders = {str(above) for stem in files.values() for above in PurePosixPath(stem).parents}
    for file, stem in files.items():
        name, number = stem, 2
        while name in names or (is_video_file(file) and name in folders):  # where its frames would lie among others
            name, number = f"{stem}_{number}", number + 1
        names[name] = file
    return names


def is_video_file(path: Path) -> bool:
    """Whether a file counts as a video: by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_given(path: Path) -> bool:
    """By its suffix, and not hidden; a link that leads nowhere is among them, so that it is told as what is damaged."""
    known = path.suffix.lower() in (*pictures.PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    return known and not path.name.startswith(".") and not path.is_dir()


def _below(folder: Path, out: Path | None) -> dict[Path, str]:
    """Pictures and videos in a folder and below it → names; links to folders and hidden ones are not followed."""
    avoided = None if out is None or out.resolve() == folder.resolve() else out.resolve()
    found: dict[Path, str] = {}
    others: set[str] = set()
    for here, inner, names in os.walk(folder):
        place = Path(here)
        if avoided is not None and any((place / name).resolve() == avoided for name in inner):
            _log.info("%s: is where maps are written; what lies there is not predicted", out)
        inner[:] = sorted(n for n in inner if not n.startswith(".") and (place / n).resolve() != avoided)
        for name in sorted(names):
            file = place / name
            if _is_given(file):
                found[file] = file.relative_to(folder).with_suffix("").as_posix()
            elif not name.startswith("."):
                others.add(file.suffix)
    others = {ending for ending in others if ending.lower() not in (*pictures.PICTURE_SUFFIXES, *VIDEO_SUFFIXES)}
    if others:
        _log.info("%s: files that end in %s are no pictures and were left out", folder, ", ".join(sorted(others)))
    return found


def _fitting(pattern: str, out: Path | None) -> dict[Path, str]:
    """Pictures and videos whose paths fit a pattern → names, below the part of it that has no wildcard."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:first])
    avoided = None if out is None else out.resolve()
    files = [Path(text) for text in sorted(glob.iglob(pattern, recursive=True))]  # noqa: PTH207 (hidden ones left out)
    found = {
        file: file.relative_to(base).with_suffix("").as_posix()
        for file in files
        if (_is_given(file) or file.suffix == Path(pattern).suffix in _ARRAYS)
        and (avoided is None or "**" not in pattern or avoided not in file.resolve().parents)
    }
    if not found:
        raise DataError(f"{pattern}: no picture has such a name; check the pattern")
    return found


def check_map_names(files: Mapping[str, Path], stems: Iterable[str], out: Path) -> None:
    """Raise OptionError where one map would be written over another, or over a picture that is to be read.

    Args:
        files: name → picture.
        stems: what follows ``NAME_`` in the names of the files of each: the tasks, ``sheet`` and others.
        out: the folder that they are written to.
    """
    real = {folder: folder.resolve() for folder in {file.parent for file in files.values()}}
    kept = {real[file.parent] / file.name: file for file in files.values()}
    taken: dict[Path, Path] = {}
    stems, base = tuple(stems), out.resolve()
    for name, file in files.items():
        if is_video_file(file):
            if (there := next((file for place, file in kept.items() if place.parent == base / name), None)) is not None:
                raise OptionError(f"--out {out}: maps of {file} would lie beside {there}; choose another folder")
            continue
        for stem in stems:
            made = base / f"{name}_{stem}"
            for ending in _WRITTEN:
                if (there := kept.get(made.with_name(made.name + ending))) is not None:
                    raise OptionError(f"--out {out}: {stem} of {file} would replace {there}; choose another folder")
            if made in taken:
                raise OptionError(
                    f"--out {out}: {made.name}.png would be {stem} of {file}, and another map of {taken[made]}; "
                    "predict them one by one into folders of their own, or name other --tasks"
                )
            taken[made] = file


def folder_to_write(out: str) -> None:
    """Raise OptionError if the output folder, or a parent of it, is a file."""
    taken = next((p for p in (Path(out), *Path(out).parents) if p.exists()), None)
    if taken is not None and not taken.is_dir():
        raise OptionError(f"--out {out}: {taken} is a file; choose a folder")
