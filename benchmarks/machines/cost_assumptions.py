"""What the cost model assumes: each number with its unit, its meaning, its bounds and where it comes from.

A number that nobody measured is None, and whatever needs it is shown as "not measured".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What a device is: one thread of the machine that was measured, or something that works beside a host's cores.
DEVICES = ("cpu", "accelerator")


class ImpossibleError(ValueError):
    """A value that cannot be, in one line that says which, and what it may be."""


class NotMeasuredError(LookupError):
    """A number was needed that nobody measured; its text names the assumption."""


def number(unit: str, meaning: str, *, least: float = 0.0, most: float = math.inf, above: bool = False) -> Any:
    """A field of :class:`Assumptions`.

    Args:
        unit: of s (seconds), B (bytes), $ and 1 (counts and shares), as "s", "B/s" or "1".
        meaning: one clause.
        least: smallest value that it may have.
        most: largest value that it may have.
        above: whether ``least`` itself is refused.
    """
    return field(
        default=None, metadata={"unit": unit, "meaning": meaning, "least": least, "most": most, "above": above}
    )


@dataclass(frozen=True)
class Assumptions:
    """Every number that the model knows; units and meanings are in the fields' metadata, sources in ``sources``.

    Raises:
        ImpossibleError: a value that is no finite number or lies beyond its field's bounds; an unknown device.
    """

    device: str = "cpu"
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    # --- a pass of the trunk over one picture of pass_side² pixels, on one device
    pass_side: float | None = number("1", "pixels a side of the pictures that passes were timed with", least=1)
    plain_pass: float | None = number("s", "a pass of the bare trunk, as a fully fine-tuned copy runs it")
    first_bundle: float | None = number("s", "a pass of the trunk with the first bundle that a picture is asked of")
    another_bundle: float | None = number("s", "what each further bundle asked of the same picture adds to the pass")
    unshared: float | None = number("1", "share of the pass's arithmetic that a further bundle repeats", most=1)
    head: float | None = number("s", "the head of one task")
    pass_price: float | None = number("$/s", "one device")

    # --- work of the host beside the pass
    decode_pixel: float | None = number("s", "reading one pixel of a JPEG")
    encode_pixel: float | None = number("s", "writing one pixel of one task's map as PNG")
    cores_beside: float | None = number("1", "cores of the host for each accelerator", least=1)
    picture_pixel: float | None = number("B", "a pixel of a picture as it lies in the store")
    map_pixel: float | None = number("B", "a pixel of one task's map as it lies in the store")

    # --- the store
    gets_picture: float | None = number("1", "requests that fetch one picture")
    puts_map: float | None = number("1", "requests that send one map")
    puts_block: float | None = number("1", "requests that send the manifest's part of one block")
    names_list: float | None = number("1", "names that one request lists", least=1)
    files_weights: float | None = number("1", "requests that fetch one bundle or one copy")
    get_price: float | None = number("$", "one GET")
    put_price: float | None = number("$", "one PUT or LIST")
    byte_price: float | None = number("$/B", "moving a byte")
    request_wait: float | None = number("s", "latency of one request")
    in_flight: float | None = number("1", "requests that one device's host has under way at once", least=1)
    gets_second: float | None = number("1/s", "GETs that the store takes in all", above=True)
    puts_second: float | None = number("1/s", "PUTs and LISTs that the store takes in all", above=True)
    network: float | None = number("B/s", "network of one device's host", above=True)

    # --- weights
    trunk_file: float | None = number("B", "the trunk's file")
    program_memory: float | None = number("B", "the program with its trunk, in memory, without bundles")
    bundle_file: float | None = number("B", "a bundle's files")
    bundle_memory: float | None = number("B", "a bundle in memory", above=True)
    bundle_load: float | None = number("s", "from asking for a bundle that is not in memory until it can be used")
    copy_file: float | None = number("B", "files of a fully fine-tuned copy with its heads")
    copy_memory: float | None = number("B", "such a copy in memory", above=True)
    copy_load: float | None = number("s", "the same as bundle_load of such a copy")
    memory: float | None = number("B", "memory for program and weights beside one device", above=True)

    # --- what the engine adds
    sweep_start: float | None = number("s", "an engine's start, once a sweep")
    sweep_run: float | None = number("s", "what the engine adds to a run")
    bulk_start: float | None = number("s", "an engine's start, once a bulk prediction")
    bulk_picture: float | None = number("s", "what the engine adds to a picture")
    serve_request: float | None = number("s", "what the engine adds to a request")

    # --- training
    run: float | None = number("s", "one training run with its evaluations, on one device")

    # --- what fails
    request_fails: float | None = number("1", "share of requests that fail and are sent again", most=0.999)
    tries: float | None = number("1", "most times that a request is sent", least=1)
    block_lost: float | None = number("1", "share of blocks that are lost with a machine and done again", most=0.999)
    run_lost: float | None = number("1", "share of runs whose machine is lost once", most=0.999)
    run_again: float | None = number("1", "share of a run that is done again then: since its last checkpoint", most=1)

    # --- serving
    busy: float | None = number("1", "share of the time that a device may be busy", most=1, above=True)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ImpossibleError(f"device: {self.device!r} is unknown; it is one of {', '.join(DEVICES)}")
        for one in numbers():
            check(one.name, getattr(self, one.name), **{k: one.metadata[k] for k in ("least", "most", "above")})

    def need(self, name: str) -> float:
        """A number.

        Raises:
            NotMeasuredError: it is None.
        """
        value = getattr(self, name)
        if value is None:
            raise NotMeasuredError(name)
        return float(value)

    def given(self, **values: float | None) -> Assumptions:
        """These with other values, whose source is "given".

        Raises:
            ImpossibleError: an unknown name, or a value beyond its bounds.
        """
        known = [one.name for one in numbers()]
        for name in values:
            if name not in known:
                raise ImpossibleError(f"{name!r} is no assumption; they are {', '.join(known)}")
        sources = {**self.sources, **dict.fromkeys(values, "given")}
        return dataclasses.replace(self, sources=sources, **values)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """Plain data, of which :meth:`from_json` makes the same again."""
        rows = {
            one.name: {
                "value": getattr(self, one.name),
                "unit": one.metadata["unit"],
                "meaning": one.metadata["meaning"],
                "source": self.source(one.name),
            }
            for one in numbers()
        }
        return {"device": self.device, "numbers": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Assumptions:
        """What :meth:`to_json` made.

        Raises:
            ImpossibleError: an unknown or missing name, or a value beyond its bounds.
        """
        rows = data["numbers"]
        if set(rows) != {one.name for one in numbers()}:
            odd = sorted(set(rows) ^ {one.name for one in numbers()})
            raise ImpossibleError(f"assumptions of another version: {', '.join(odd)} unknown or missing")
        sources = {name: row["source"] for name, row in rows.items()}
        return cls(device=data["device"], sources=sources, **{name: row["value"] for name, row in rows.items()})

    def source(self, name: str) -> str:
        """Where a number comes from: "measured: …", "counted: …", "assumed: …", "given", or "not measured"."""
        return self.sources.get(name, "not measured" if getattr(self, name) is None else "given")


def numbers() -> list[dataclasses.Field[Any]]:
    """The fields that are numbers, in their order."""
    return [one for one in dataclasses.fields(Assumptions) if "unit" in one.metadata]


def check(name: str, value: float | None, *, least: float = 0.0, most: float = math.inf, above: bool = False) -> None:
    """Refuse what cannot be.

    Raises:
        ImpossibleError: no finite number from ``least`` (without it, if ``above``) to ``most``.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ImpossibleError(f"{name}: {value!r} is no finite number")
    if value < least or value > most or (above and value == least):
        bound = f"above {least:g}" if above else f"at least {least:g}"
        limit = "" if most == math.inf else f" and at most {most:g}"
        raise ImpossibleError(f"{name}: {value:g} cannot be; it is {bound}{limit}")
