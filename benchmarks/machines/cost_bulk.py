"""The model on paper: what a bulk prediction and a sweep take, each number with its unit.

Sharing is many bundles on one trunk; copies are one fully fine-tuned trunk for each tenant.
"""

from __future__ import annotations

import math

from cost_assumptions import Assumptions
from cost_scenario import Row, Rows, Scenario, area, room, row


def attempts(a: Assumptions) -> float:
    """How often a request is sent on average: until it succeeds or was tried as often as it may be."""
    fails = a.need("request_fails")
    return (1 - _given_up(a)) / (1 - fails)


def bulk(a: Assumptions, s: Scenario, kind: str) -> Rows:
    """A bulk prediction with bundles (``kind`` "bundle") or with copies ("copy")."""
    pixels = s.side**2
    shared = kind == "bundle"

    def done() -> float:  # pictures, those that are done again included
        return s.pictures / (1 - a.need("block_lost"))

    def rounds() -> int:  # how often a picture is read, for so many weights as fit into memory at once
        return math.ceil(s.asked / room(a, kind))

    def maps() -> float:
        return done() * s.asked * s.tasks

    def loads() -> float:  # each device reads each set of weights at most once, for blocks are grouped by them
        return min(s.devices * s.tenants, s.pictures * s.asked)

    def passes() -> float:
        if not shared:
            return done() * s.asked
        return done() * (rounds() + (s.asked - rounds()) * a.need("unshared"))

    def device() -> float:
        heads = s.asked * s.tasks * a.need("head")
        if not shared:
            return done() * area(a, s.side) * (s.asked * a.need("plain_pass") + heads)
        first, more = rounds() * a.need("first_bundle"), (s.asked - rounds()) * a.need("another_bundle")
        return done() * area(a, s.side) * (first + more + heads)

    def host() -> float:
        read = done() * rounds() * pixels * a.need("decode_pixel")
        return read + maps() * pixels * a.need("encode_pixel") + loads() * a.need(f"{kind}_load")

    def engine() -> float:
        return done() * a.need("bulk_picture") + a.need("bulk_start")

    def gets() -> float:
        files = loads() * a.need("files_weights") + s.devices
        return attempts(a) * (done() * rounds() * a.need("gets_picture") + files)

    def puts() -> float:
        again = done() / s.pictures
        blocks = math.ceil(s.pictures / s.block) * again * a.need("puts_block")
        return attempts(a) * (maps() * a.need("puts_map") + blocks)

    def lists() -> float:
        return attempts(a) * math.ceil(s.pictures / a.need("names_list"))

    def bytes_in() -> float:
        pictures = done() * rounds() * pixels * a.need("picture_pixel")
        return attempts(a) * (pictures + loads() * a.need(f"{kind}_file") + s.devices * a.need("trunk_file"))

    def bytes_out() -> float:
        return attempts(a) * maps() * pixels * a.need("map_pixel")

    def price() -> float:
        requests = gets() * a.need("get_price") + (puts() + lists()) * a.need("put_price")
        return requests + (bytes_in() + bytes_out()) * a.need("byte_price")

    rows = {
        "trunk passes, by arithmetic": row("1", passes),
        "device time: passes and heads": row("s", device),
        "host time: reading, writing, loading": row("s", host),
        "the engine's time": row("s", engine),
        "bytes read": row("B", bytes_in),
        "bytes written": row("B", bytes_out),
        "GET requests": row("1", gets),
        "PUT requests": row("1", puts),
        "LIST requests": row("1", lists),
        "requests given up": row("1", lambda: (gets() + puts() + lists()) / attempts(a) * _given_up(a)),
        "price of requests and bytes": row("$", price),
        "price of devices": row("$", lambda: device() * a.need("pass_price")),
        "weights on disk, all tenants": row("B", lambda: s.tenants * a.need(f"{kind}_file") + _trunk(a, shared)),
        "weights in memory, all tenants": row("B", lambda: s.tenants * a.need(f"{kind}_memory")),
        "of them in memory beside a device": row("1", lambda: min(s.tenants, room(a, kind))),
    }
    told = rows["the engine's time"].value is not None
    note = "" if told else "without the engine's time"
    start = a.need("bulk_start") if told else 0.0  # once, and nothing runs meanwhile

    def beside() -> float:
        return host() + (engine() - start if told else 0.0)

    if a.device == "cpu":
        limits = {"cores": row("s", lambda: (device() + beside()) / s.devices + start, note)}
    else:
        limits = {
            "devices": row("s", lambda: device() / s.devices),
            "cores beside them": row("s", lambda: beside() / (s.devices * a.need("cores_beside")) + start, note),
        }
    limits["network"] = row("s", lambda: (bytes_in() + bytes_out()) / (s.devices * a.need("network")))
    limits["store: rate"] = row(
        "s", lambda: max(gets() / a.need("gets_second"), (puts() + lists()) / a.need("puts_second"))
    )
    limits["store: latency"] = row(
        "s", lambda: (gets() + puts() + lists()) * a.need("request_wait") / (s.devices * a.need("in_flight"))
    )
    rows |= {f"time bound by {name}": one for name, one in limits.items()}
    rows["what binds"] = _binding(limits)
    return rows


def _given_up(a: Assumptions) -> float:
    return float(a.need("request_fails") ** a.need("tries"))


def _trunk(a: Assumptions, shared: bool) -> float:
    return a.need("trunk_file") if shared else 0.0


def _binding(limits: Rows) -> Row:
    """The longest of the times; its note names the resource."""
    known = {name: one.value for name, one in limits.items() if one.value is not None}
    if not known:
        return Row(None, "s", "not measured")
    name = max(known, key=lambda one: known[one])
    unknown = [other for other in limits if other not in known]
    return Row(known[name], "s", name + (f"; not measured: {', '.join(unknown)}" if unknown else ""))


def sweep(a: Assumptions, s: Scenario) -> Rows:
    """So many training runs, each on one device; all take the same time."""

    def each() -> float:  # with what is done again after a machine was lost
        return a.need("run") * (1 + a.need("run_lost") * a.need("run_again"))

    def added() -> float:
        return each() + a.need("sweep_run")

    def whole() -> float:
        return math.ceil(s.runs / s.devices) * added() + a.need("sweep_start")

    return {
        "device time of the runs alone": row("s", lambda: s.runs * a.need("run")),
        "done again": row("s", lambda: s.runs * (each() - a.need("run"))),
        "the engine's time": row("s", lambda: s.runs * a.need("sweep_run") + a.need("sweep_start")),
        "without the engine": row("s", lambda: math.ceil(s.runs / s.devices) * each()),
        "with it": row("s", whole),
        "share of devices' time that runs use": row("1", lambda: s.runs * a.need("run") / (s.devices * whole())),
    }
