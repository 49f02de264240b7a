"""Pictures in memory are read, measured and refused as files are; only the name and the remedy differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.errors import DataError
from garnish.files.bytes_as_file import bytes_as_file
from garnish.files.pictures import OversizedPicture, PictureBytes, picture_size, read_picture
from picture_files import write_png, write_tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (33, 40, 3)).astype(np.uint8)


def same(file: Path) -> np.ndarray | None:
    """What both give; None where both refuse in the same words."""
    given = PictureBytes(file.read_bytes())
    try:
        want = read_picture(file)
    except DataError as refused:
        with pytest.raises(DataError) as told:
            read_picture(given)
        # nothing is a set that a picture could be removed from where one was sent
        words = str(refused).replace("replace the file or remove it from the set", "send another")
        assert str(told.value) == words.replace(str(file), "the picture")
        return None
    found = read_picture(given)
    assert found.dtype == np.uint8 and (found == want).all() and picture_size(given) == found.shape[:2]
    return found


@pytest.mark.parametrize("kind", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1", "I;16", "F"])
@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg", "bmp", "gif", "ppm", "avif", "jp2"])
def test_every_format_and_mode(tmp_path, kind, ending):
    file = tmp_path / f"picture.{ending}"
    deep = {"I;16": PIXELS[..., 0].astype(np.uint16) * 257, "F": PIXELS[..., 0].astype(np.float32) / 255}
    image = Image.fromarray(deep[kind]) if kind in deep else Image.fromarray(PIXELS).convert(kind)
    try:
        image.save(file)
    except (OSError, ValueError, KeyError):
        return  # the format has no such mode
    same(file)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif)
    found = same(tmp_path / "a.jpg")
    assert found is not None and found.shape[:2] == ((40, 33) if orientation >= 5 else (33, 40))
    deep = PIXELS.astype(np.uint16) * 257
    for file in (
        write_png(tmp_path / "b.png", deep, orientation=orientation),
        write_tiff(tmp_path / "c.tif", PIXELS, orientation=orientation),
    ):
        same(file)


def test_deep_colours_and_pages_and_damage(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    found = same(write_png(tmp_path / "deep.png", deep))
    assert found is not None and (np.abs(found - deep / 257) <= 0.5).all()
    assert same(write_png(tmp_path / "frames.png", PIXELS, 8, frames=2)) is None
    whole = (tmp_path / "deep.png").read_bytes()
    for length in (0, 1, 20, 40, len(whole) - 30):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        assert same(tmp_path / "cut.png") is None


def test_oversized_pictures(tmp_path):
    Image.new("1", (70_000, 1)).save(tmp_path / "wide.png")
    Image.new("1", (30_000, 30_000)).save(tmp_path / "vast.png")
    for name in ("wide", "vast"):
        for given in (tmp_path / f"{name}.png", PictureBytes((tmp_path / f"{name}.png").read_bytes())):
            with pytest.raises(OversizedPicture, match="cut it into smaller pictures"):
                picture_size(given)


def test_bytes_as_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        with bytes_as_file(b"abc") as path:
            assert Path(path).read_bytes() == b"abc"
        assert not Path(path).exists() and list(tmp_path.iterdir()) == []
        with pytest.raises(KeyError), bytes_as_file(b"abc") as path:
            raise KeyError
        assert list(tmp_path.iterdir()) == []
        monkeypatch.delattr("os.memfd_create", raising=False)
