"""Facts from the header of a picture file, and which files Pillow would not read faithfully.

Pillow reduces many files: 16-bit colours to their upper 8 bits, five bands to three, several pages to the first. Files
that would lose something are refused in one line; ``docs/data.md`` has the table.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, final

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from garnish.errors import one_line
from garnish.files.band_names import GDAL_METADATA, RED_GREEN_BLUE, band_items, misplaced_band

#: Pillow's formats that are read → suffixes by which their files are found if a pattern names none.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (),  # a JPEG followed by previews, with a JPEG's suffix
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2",),
}

_PICTURE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
#: Pillow's modes of labels.
LABEL_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_EIGHT_BIT = ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")

# TIFF tags (TIFF 6.0, section 8 and appendix A)
_WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 338, 339
_SUBFILE = 254
#: Most directories of a TIFF that are looked at; finding the next one takes Pillow the longer, the more there were.
_MOST_DIRECTORIES = 64
_MOST_TEXT = 2**20
_WHITE_IS_ZERO, _YCBCR, _UNSIGNED, _SIGNED = 0, 6, 1, 2


@final
@dataclass(frozen=True, kw_only=True)
class Stored:
    """Facts from the header of a picture file.

    Attributes:
        format: one of :data:`FORMATS`.
        mode: Pillow's mode of the opened picture.
        size: (H, W) as stored, not turned.
        bits: per sample (one number of one band).
        bands: samples per pixel.
        pages: pages or frames, 2 for any number above 1; smaller copies, masks and a JPEG's previews do not count.
        orientation: EXIF orientation, 1 if there is none.
        unsigned: unsigned integers that Pillow reads as signed ones.
        strange: what Pillow changes in a label when opening it, with a remedy; None: nothing.
        fault: what Pillow loses or changes in any picture, with a remedy; None: nothing.
    """

    format: str
    mode: str
    size: tuple[int, int]
    bits: int
    bands: int
    pages: int
    orientation: int
    unsigned: bool = False
    strange: str | None = None
    fault: str | None = None

    def refused(self, *, label: bool) -> str | None:
        """Why the file is not read, and what to do; None if it is."""
        if self.fault:
            return self.fault
        if self.pages > 1:
            return "holds several pages or frames; save the one that is meant as a file of its own"
        if self.mode not in (LABEL_MODES if label else _PICTURE_MODES):
            return f"is stored as {self.mode}; save it as {'RGB or grey PNG' if label else 'RGB'}"
        return self.strange if label else None


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that the installed Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def stored(image: Image.Image, stream: BinaryIO) -> Stored:
    """The facts of a file that Pillow has just opened from ``stream`` and not yet decoded."""
    if image.format == "TIFF":
        return _tiff(image)
    place = stream.tell()
    stream.seek(0)
    facts = _others(image, stream)
    stream.seek(place)
    return facts


def _others(image: Image.Image, stream: BinaryIO) -> Stored:
    kind, mode = str(image.format), image.mode
    bits = 1 if mode == "1" else 8 if mode in _EIGHT_BIT else 16
    strange = None
    if kind == "PNG":
        bits = stream.read(25)[24]  # IHDR comes first: signature 8, length and name 8, width and height 8, depth
        if mode == "L" and bits in (2, 4):
            strange = (
                f"is grey of {bits} bits, whose numbers are 0 to {2**bits - 1} to some readers and 0 to 255 to others;"
                " save it with 8 bits"
            )
    elif kind in ("AVIF", "JPEG2000"):  # lossless settings exist, but the header does not tell
        strange = f"is {kind}, which need not keep single numbers; save the label as PNG or .npy"
    elif kind == "PPM" and mode != "1" and _is_scaled(image):
        strange = "has levels that are scaled while it is read; save it with a largest level of 255 or 65535, or as PNG"
    return Stored(
        format=kind,
        mode=mode,
        size=(image.height, image.width),
        bits=bits,
        bands=len(image.getbands()),
        # not n_frames, which reads a GIF to its end
        pages=1 if kind == "MPO" else 1 + bool(getattr(image, "is_animated", False)),
        orientation=_orientation(image.getexif().get(ExifTags.Base.Orientation)),
        strange=strange,
    )


def _is_scaled(image: Image.Image) -> bool:
    """Whether Pillow scales the levels of a PGM or PPM: where the largest fills neither 8 nor 16 bits."""
    decoder, *_, arguments = image.tile[0]  # type: ignore[attr-defined]
    return decoder != "raw" and arguments[1] not in (255, 65535)


def lossy(image: Image.Image, stream: BinaryIO) -> str | None:
    """The lossy compression of an opened picture, None if it is lossless."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "WEBP":
        return "lossy WebP" if _is_lossy_webp(stream) else None
    if image.format == "TIFF":
        found = {"jpeg": "JPEG", "tiff_jpeg": "JPEG", "webp": "WebP"}.get(str(image.info.get("compression")))
        return found or ("YCbCr" if image.tag_v2.get(_PHOTOMETRIC) == _YCBCR else None)  # type: ignore[attr-defined]
    return None


def _tiff(image: Image.Image) -> Stored:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = max(tags.get(_BITS, (1,)))
    samples, extra = int(tags.get(_SAMPLES, 1)), tuple(tags.get(_EXTRA, ()))
    number, photometric = tags.get(_FORMAT, (1,))[0], tags.get(_PHOTOMETRIC)
    bands = len(image.getbands())
    fault = strange = None
    # without ExtraSamples the meaning of a fourth band is unknown
    if samples > bands or (image.mode == "RGBA" and not extra):
        fault = f"holds {samples} bands, not all of which would be read; save {'one band' if samples < 3 else 'RGB'}"
    elif found := _misplaced(tags, samples):
        fault = (
            f"calls a band {found[0]!r} that would be read as {found[1]}; save red, green and blue in this order, or"
            " correct what the file says"
        )
    elif number == _SIGNED and bits == 8:
        fault = "holds signed numbers of 8 bits, which would be read as unsigned; save 16 bits, or 8 unsigned"
    elif photometric == _WHITE_IS_ZERO and bits > 8:
        fault = "says that white is zero, which is not followed at this depth; save it with black as zero"
    elif photometric == _WHITE_IS_ZERO and bits > 1:
        strange = "says that white is zero, so its numbers would be inverted; save it with black as zero"
    elif image.mode == "L" and bits in (2, 4):
        strange = f"is grey of {bits} bits, whose numbers would be scaled to 255; save it with 8 bits"
    elif bits > 8 and image.mode in _EIGHT_BIT:
        strange = f"holds {samples} bands of {bits} bits, of which 8 would be read; save one band, a PNG or .npy"
    return Stored(
        format="TIFF",
        mode=image.mode,
        size=(int(tags[_LENGTH]), int(tags[_WIDTH])),
        bits=bits,
        bands=samples,
        pages=_pages(image),
        orientation=_orientation(tags.get(ExifTags.Base.Orientation)),
        unsigned=number == _UNSIGNED and bits == 32,
        strange=strange,
        fault=fault,
    )


def _misplaced(tags: ImageFileDirectory_v2, samples: int) -> tuple[str, str] | None:
    """As :func:`misplaced_band`, of a file whose first three bands would be read as red, green and blue."""
    text = tags.get(GDAL_METADATA)
    if samples < 3 or not isinstance(text, str):
        return None
    items = band_items(text[:_MOST_TEXT])
    found = misplaced_band([items.get((band, "description")) for band in range(3)], RED_GREEN_BLUE)
    return None if found is None else (one_line(found[0], 60), found[1])


def _pages(image: Image.Image) -> int:
    """2 for a TIFF of several pages, without smaller copies of others (bit 0 of NewSubfileType) and masks (bit 2)."""
    if not image.is_animated:  # type: ignore[attr-defined]
        return 1
    whole = 0
    for number in range(_MOST_DIRECTORIES):
        try:
            image.seek(number)
        except EOFError:
            break
        whole += not int(image.tag_v2.get(_SUBFILE, 0)) & 0b101  # type: ignore[attr-defined]
        if whole > 1:
            break
    else:
        whole = 2  # no picture has as many smaller copies
    image.seek(0)
    return max(whole, 1)


def _orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_lossy_webp(stream: BinaryIO) -> bool:
    """Whether the first picture of a WebP file is in a chunk ``VP8 `` and not ``VP8L`` (RFC 9649)."""
    stream.seek(12)  # "RIFF", size, "WEBP"
    while len(head := stream.read(8)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        # a frame holds 16 bytes of its own, then chunks
        stream.seek(16 if name == b"ANMF" else size + size % 2, 1)
    return True


def unread(stream: BinaryIO) -> str | None:
    """What kind of file it is that Pillow cannot identify, and what to do; None if unknown."""
    stream.seek(0)
    head = stream.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "is HEIC, which is not read; convert it to JPEG or PNG"
    if head.startswith(b"\x93NUMPY"):
        return "is a NumPy array and no picture; save it as PNG"
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        tags = ImageFileDirectory_v2(head[:8])
        stream.seek(tags.next)
        tags.load(stream)
        bits = "/".join(str(b) for b in sorted(set(tags[_BITS])))
        kind = {1: "whole", 2: "signed", 3: "floating-point"}.get(tags.get(_FORMAT, (1,))[0], "other")
        samples = int(tags.get(_SAMPLES, 1))
    except Exception:  # as in pictures.to_rgb
        return None
    # a label has one number a pixel, so that several bands are a picture
    bands = "describe them under `channels` of the data set that the model is trained on, or " if samples > 1 else ""
    return (
        f"is a TIFF of {samples} band{'s' * (samples != 1)} of {bits}-bit {kind} numbers, which is no ordinary picture;"
        f" {bands}save RGB of 8 bits, or one band of 8, 16 or 32 bits"
    )
