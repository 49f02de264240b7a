"""``bundle.json``: what it holds, and reading it without trusting it. Nothing here needs torch.

Keys of format 1 (those with ``?`` may be absent):

- ``format`` 1; ``versions`` of garnish, torch and timm that wrote it; ``dtype`` of the floating-point tensors.
- ``tuned_as``: how ``tuned.*`` tensors are stored: ``difference`` to the frozen parameter of that name (float16), or
  the ``value`` itself (float32, since a difference need not give the value back exactly).
- ``backbone``: ``name``, ``options``, ``taps?`` ("stage" where absent), ``fingerprint``, ``licence``,
  ``non_commercial``, ``weights_source``.
- ``owners``: in order, ``tasks`` and the ``methods`` (name and options) whose tensors they share.
- ``tasks``: by name: the task's ``name`` and ``options``, its ``head``, ``channels``, ``labels`` in the order of their
  ids and ``palette`` (label → RGB in 0 … 255; empty for continuous maps).
- ``decoders?``: lists of tasks that share a decoder, in the order it was built for.
- ``preprocessing``: ``input`` "RGB in [0,1]", then ``mean`` and ``std``, then padding to ``multiple`` pixels.
- ``metrics``: task → metric → value reached (null: nothing was seen).
- ``metrics_rounding?``: task → metric → value with the stored, rounded tensors minus ``metrics``, as training measured
  it on at most 200 validation pictures.
- ``sizes``: ``weights_bytes``, ``encoder_parameters``, ``decoder_parameters``; ``sha256`` of weights.safetensors.
- ``extra?``: whatever the caller of save added.

Beside it ``SHA256SUMS`` lists both files (:mod:`garnish.files.checksums`); bundles of versions before it have none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garnish.errors import BundleError, one_line, suggest
from garnish.files.atomic import present
from garnish.files.checksums import check_sum

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "weights.safetensors"
#: The bundle of the best step, in the folder of a run.
BEST = "best"
#: A description is some kilobytes; more than this is not read.
MOST_BYTES = 16 * 2**20
INPUT = "RGB in [0,1]"

_HEX64 = re.compile(r"[0-9a-f]{64}")
_TASK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NUMBER = (int, float)
_SPEC = {"name": str, "options": {"*": object}}
_METRICS = {"*": {"*": (int, float, type(None))}}
#: A type, a tuple of types, a pattern, ``[of each]``, or ``{key: …}`` with ``*`` for any key and ``?`` for optional.
_SCHEMA: Mapping[str, Any] = {
    "format": int,
    "versions": {"*": str},
    "dtype": re.compile("float16|float32"),
    "tuned_as": re.compile("difference|value"),
    "backbone": {
        "name": str,
        "options": {"*": object},
        "taps?": re.compile("stage|merged"),
        "fingerprint": _HEX64,
        "licence": str,
        "non_commercial": bool,
        "weights_source": str,
    },
    "owners": [{"tasks": [_TASK_NAME], "methods": [_SPEC]}],
    "tasks": {"*": {**_SPEC, "head": _SPEC, "channels": int, "labels": [str], "palette": {"*": [int]}}},
    "decoders?": [[_TASK_NAME]],
    "preprocessing": {"input": str, "mean": [_NUMBER], "std": [_NUMBER], "multiple": int},
    "metrics": _METRICS,
    "metrics_rounding?": _METRICS,
    "sizes": {"weights_bytes": int, "encoder_parameters": int, "decoder_parameters": int},
    "sha256": _HEX64,
    "extra?": {"*": object},
}


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The validated ``bundle.json`` of a bundle; its weights are not read.

    Args:
        path: a bundle's folder.

    Returns:
        The dictionary described above.

    Raises:
        BundleError: no such folder, not a bundle, damaged, or of another format.
    """
    file = bundle_folder(path) / DESCRIPTION
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BundleError(f"{file}: {file.stat().st_size} bytes are more than a description can have")
        data = file.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); save the bundle again") from error
    check_sum(file, data)
    found = parse_json(text, str(file))
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise BundleError(f"{file}: is not a bundle's description (it has no format number); give another folder")
    if found["format"] != FORMAT:
        raise BundleError(f"{file}: has format {found['format']}, this garnish reads {FORMAT}; install the newer one")
    _check(found, _SCHEMA, "", str(file))
    _check_tasks(found, str(file))
    return found


def bundle_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an existing bundle; raises :class:`BundleError` where there is none."""
    folder = present(Path(path).expanduser())
    if not folder.exists():
        raise BundleError(f"{path}: no such bundle; give a folder that model.save or garnish train wrote")
    if not (folder / DESCRIPTION).is_file():
        given = Path(path)
        near = [p for p in (given / BEST, given.parent) if (p.expanduser() / DESCRIPTION).is_file()]
        meant = f"did you mean {near[0]}?" if near else "give a folder that model.save or garnish train wrote"
        what = f"it holds no {DESCRIPTION}" if folder.is_dir() else "it is a file"
        raise BundleError(f"{path}: is not a bundle ({what}); {meant}")
    return folder


def parse_json(text: str, where: str) -> Any:
    """Standard JSON only; raises :class:`BundleError` naming ``where``."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: is damaged ({one_line(error, 120)}); save it again") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any, schema: Any, at: str, file: str) -> None:
    """Raise :class:`BundleError` where ``value`` is not as ``schema`` says."""
    if isinstance(schema, re.Pattern):
        if not (isinstance(value, str) and schema.fullmatch(value)):
            raise _not_as(file, at, f"text like {schema.pattern}", value)
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise _not_as(file, at, "a list", value)
        for index, entry in enumerate(value):
            _check(entry, schema[0], f"{at}[{index}]", file)
    elif isinstance(schema, Mapping):
        if not isinstance(value, dict):
            raise _not_as(file, at, "a mapping", value)
        known = {key.removesuffix("?"): inner for key, inner in schema.items()}
        for key, inner in value.items():
            if key not in known and "*" not in known:
                raise BundleError(f"{file}: unknown key {_at(at, key)}{suggest(key, known)}")
            _check(inner, known.get(key, known.get("*")), _at(at, key), file)
        for key in schema:
            if key != "*" and not key.endswith("?") and key not in value:
                raise BundleError(f"{file}: has no {_at(at, key)}; save the bundle again")
    else:
        types = schema if isinstance(schema, tuple) else (schema,)
        if not isinstance(value, types) or (isinstance(value, bool) and not {bool, object} & set(types)):
            raise _not_as(file, at, " or ".join("null" if t is type(None) else t.__name__ for t in types), value)


def _check_tasks(found: Mapping[str, Any], file: str) -> None:
    owned = [task for owner in found["owners"] for task in owner["tasks"]]
    for task in owned:
        if task not in found["tasks"] or owned.count(task) > 1:
            raise BundleError(f"{file}: task {task!r} is not described once and owned once; save the bundle again")
    for task in found["tasks"]:
        if task not in owned:
            raise BundleError(f"{file}: task {task!r} has no owner; save the bundle again")
    sharing = [task for group in found.get("decoders", ()) for task in group]
    for task in sharing:
        if task not in owned or sharing.count(task) > 1:
            raise BundleError(f"{file}: decoders: task {task!r} is unknown or named twice; save the bundle again")
    if not all(found.get("decoders", ())):
        raise BundleError(f"{file}: decoders: one serves no task; save the bundle again")
    if not owned or not all(owner["tasks"] for owner in found["owners"]):
        raise BundleError(f"{file}: has an owner without tasks; save the bundle again")


def _at(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _not_as(file: str, at: str, expected: str, value: Any) -> BundleError:
    return BundleError(f"{file}: {at}: expected {expected}, got {one_line(repr(value), 60)}")
