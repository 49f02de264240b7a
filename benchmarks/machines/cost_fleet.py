"""The model on paper of a serving fleet: how many devices, and how often a bundle has to be read first."""

from __future__ import annotations

import math
from functools import cache

from cost_assumptions import Assumptions
from cost_caches import hits, popularity
from cost_scenario import Rows, Scenario, area, room, row


def fleet(a: Assumptions, s: Scenario, kind: str, exponent: float) -> Rows:
    """Devices that answer ``rate`` requests a second, with bundles or copies, of which memory holds those last used."""
    shares = popularity(s.tenants, exponent)
    pixels = s.side**2

    def one_pass() -> float:
        first = a.need("first_bundle" if kind == "bundle" else "plain_pass")
        return area(a, s.side) * (first + s.tasks * a.need("head"))

    @cache
    def found(devices: int) -> float:  # each name goes to one device, so rooms add up
        return hits(shares, min(s.tenants, devices * room(a, kind)))

    extra = row("s", lambda: a.need("serve_request"))
    note = "" if extra.value is not None else "without the engine's time"

    def busy(hit: float) -> float:
        work = pixels * (a.need("decode_pixel") + s.tasks * a.need("encode_pixel"))
        work += (1 - hit) * a.need(f"{kind}_load") + (extra.value or 0.0)
        return one_pass() + work if a.device == "cpu" else max(one_pass(), work / a.need("cores_beside"))

    def needed(hit: float) -> int:
        return max(1, math.ceil(s.rate * busy(hit) / a.need("busy")))

    @cache
    def devices() -> int:  # fewer devices hold fewer bundles, so the smallest number that is enough is looked for
        low, high = needed(1.0), needed(0.0)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if needed(found(middle)) <= middle else (middle + 1, high)
        return low

    def alone() -> float:
        return hits(shares, min(s.tenants, room(a, kind)))

    return {
        "in memory beside a device": row("1", lambda: min(s.tenants, room(a, kind))),
        "hits of a device that gets all names": row("1", alone),
        "hits, each name at one device": row("1", lambda: found(devices())),
        "cold loads a second": row("1/s", lambda: s.rate * (1 - found(devices()))),
        "bytes of cold loads": row("B/s", lambda: s.rate * (1 - found(devices())) * a.need(f"{kind}_file")),
        "a request, waiting left out": row("s", lambda: busy(found(devices())), note),
        "devices": row("1", devices, note),
        "memory of all of them": row(
            "B",
            lambda: (
                devices() * a.need("program_memory")
                + min(s.tenants, devices() * room(a, kind)) * a.need(f"{kind}_memory")
            ),
        ),
    }
