"""An :class:`Answer` as the body of a response, in the type that was asked for.

Shape letters: H W pixels.
"""

from __future__ import annotations

import base64
import io
import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from PIL import Image

from garnish.checking.plain_data import Json
from garnish.decodings.decoding import Decoding
from garnish.decodings.map_file import MapFile
from garnish.drawing.map_files import picture_bytes
from garnish.drawing.painting import eight_bits
from garnish.registry import describe, plain
from garnish.serving.asked import Answer, Ticket
from garnish.serving.http_refusals import HttpRefusal

#: What answers may be, the default first.
TYPES = ("application/json", "multipart/mixed", "application/x-npz", "image/png", "image/tiff")
#: Of deflate in PNGs that are answered: half the time of level 3 on noisy depth, for files that are 5 % larger.
_LEVEL = 1
#: Most characters of a header that tells the facts of a map; classes are left out beyond.
_LONGEST_HEADER = 4000


@final
@dataclass(frozen=True, eq=False)
class EncodedAnswer:
    """A response's body.

    Attributes:
        data: its bytes, to be sent one after the other.
        content_type: with a boundary where it has one.
        headers: further ones.
    """

    data: Sequence[bytes]
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


def encoded_answer(answer: Answer, kinds: Sequence[str], ticket: Ticket) -> EncodedAnswer:
    """Encode, and write the milliseconds that it took into the ticket.

    Args:
        answer: maps of one picture.
        kinds: of :data:`TYPES`, those that the client takes, the dearest first; the first that can hold it is made.
        ticket: has the timings of all before.

    Raises:
        HttpRefusal: 406, none of them can hold it.
    """
    refused = ""
    for kind in kinds:
        if kind in ("image/png", "image/tiff"):
            made, refused = _one_file(answer, kind, ticket)
            if made is not None:
                return made
        elif kind == "application/x-npz":
            return _npz(answer, ticket)
        else:
            return _json_or_mixed(answer, ticket, mixed=kind == "multipart/mixed")
    raise HttpRefusal(406, f"{refused}; or accept {', '.join(TYPES[:3])}")


def map_facts(decoding: Decoding, kind: str, decoded: np.ndarray, file: MapFile | None) -> dict[str, Json]:
    """What must be known of a map to read its file; None: to read the map itself."""
    height, width = decoded.shape[-2:]
    legend = decoding.legend()
    nothing = file.nothing if file else decoding.nothing
    facts: dict[str, Json] = {
        "task": kind,
        "decoding": plain(describe(decoding)),
        "width": width,
        "height": height,
        "classes": list(legend) or None,
        "palette": [list(colour) for colour in decoding.palette()] or None,
        "unit": decoding.unit,
        "axes": list(decoding.axes) or None,
        "scale": list(file.scale) if file and file.scale else None,
        "nothing": "nan" if nothing is not None and math.isnan(nothing) else nothing,
        "media_type": file.media_type if file else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _json_or_mixed(answer: Answer, ticket: Ticket, *, mixed: bool) -> EncodedAnswer:
    """Of both the files of all maps, once inside the JSON and once behind it."""
    began, files, bundles = time.monotonic(), dict[str, MapFile](), dict[str, dict[str, Json]]()
    for bundle, prediction in answer.predictions.items():
        bundles[bundle] = {}
        for task, decoded in prediction.maps.items():
            by = prediction.tasks[task]
            file = files[f"{bundle}/{task}"] = by.file(decoded, _LEVEL)
            facts = bundles[bundle][task] = map_facts(by, answer.kinds[bundle][task], decoded, file)
            if not mixed:
                facts["data"] = base64.b64encode(file.data).decode("ascii")
            if (shares := answer.confidence.get((bundle, task))) is not None:
                file = files[f"{bundle}/{task}.confidence"] = _shares_file(shares)
                facts["confidence"] = {"scale": list(file.scale or ()), "media_type": file.media_type}
                if not mixed:
                    facts["confidence"]["data"] = base64.b64encode(file.data).decode("ascii")
    if not mixed:
        return EncodedAnswer([_told(answer, bundles, ticket, began)], "application/json")
    boundary = secrets.token_hex(16)
    data = [_part_head(boundary, "answer.json", "application/json"), _told(answer, bundles, ticket, began)]
    for name, file in files.items():
        data += [b"\r\n", _part_head(boundary, name, file.media_type), file.data]
    return EncodedAnswer([*data, f"\r\n--{boundary}--\r\n".encode()], f"multipart/mixed; boundary={boundary}")


def _part_head(boundary: str, name: str, media_type: str) -> bytes:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'--{boundary}\r\nContent-Disposition: attachment; name="{quoted}"\r\nContent-Type: {media_type}\r\n\r\n'
    ).encode()


def _npz(answer: Answer, ticket: Ticket) -> EncodedAnswer:
    """Arrays as they are, not deflated: that would take longer than it saves on any network of a server."""
    began, arrays, bundles = time.monotonic(), dict[str, np.ndarray](), dict[str, dict[str, Json]]()
    for bundle, prediction in answer.predictions.items():
        bundles[bundle] = {}
        for task, decoded in prediction.maps.items():
            arrays[f"{bundle}/{task}"] = decoded
            bundles[bundle][task] = map_facts(prediction.tasks[task], answer.kinds[bundle][task], decoded, None)
            if (shares := answer.confidence.get((bundle, task))) is not None:
                arrays[f"{bundle}/{task}.confidence"] = shares
    data = io.BytesIO()
    told = np.frombuffer(_told(answer, bundles, ticket, began), np.uint8)
    np.savez(data, allow_pickle=False, **{"answer.json": told}, **arrays)
    ticket.timings["encode"] = (time.monotonic() - began) * 1000
    return EncodedAnswer([data.getvalue()], "application/x-npz")


def _one_file(answer: Answer, kind: str, ticket: Ticket) -> tuple[EncodedAnswer | None, str]:
    """The file of the only map; or why there is none."""
    began = time.monotonic()
    maps = [(bundle, task) for bundle, prediction in answer.predictions.items() for task in prediction.maps]
    if len(maps) != 1:
        return None, f"{kind} holds one map, and {len(maps)} were asked for; name one of tasks"
    ((bundle, task),) = maps
    prediction = answer.predictions[bundle]
    by, decoded = prediction.tasks[task], prediction.maps[task]
    if kind == "image/tiff":
        file = by.tiff(decoded, prediction.place)
    elif (file := by.file(decoded, _LEVEL)).media_type != kind:
        return None, f"the numbers of {bundle}/{task} fit into no PNG; accept image/tiff"
    facts = {"bundle": bundle, "name": task} | map_facts(by, answer.kinds[bundle][task], decoded, file)
    for left_out in ("", "palette", "decoding", "classes"):
        facts.pop(left_out, None)
        if len(header := json.dumps(facts, allow_nan=False)) <= _LONGEST_HEADER:
            break
    ticket.timings["encode"] = (time.monotonic() - began) * 1000
    return EncodedAnswer([file.data], kind, {"Garnish-Map": header}), ""


def _shares_file(shares: np.ndarray) -> MapFile:
    """(H, W) probabilities as a grey PNG of 8 bits."""
    return MapFile(picture_bytes(Image.fromarray(eight_bits(shares)), "PNG", _LEVEL), ".png", (1 / 255, 0.0))


def _told(answer: Answer, bundles: Mapping[str, Mapping[str, Json]], ticket: Ticket, began: float) -> bytes:
    """The JSON of an answer; what it takes to make it counts as encoding, too."""
    height, width = next(iter(answer.predictions.values())).picture.shape[:2]
    ticket.timings["encode"] = (time.monotonic() - began) * 1000
    timings = {name: round(value, 3) for name, value in ticket.timings.items()}
    told = {"picture": {"width": width, "height": height}, "bundles": bundles, "timings": timings}
    data = json.dumps(told, allow_nan=False).encode("ascii")
    ticket.timings["encode"] = (time.monotonic() - began) * 1000
    return data
