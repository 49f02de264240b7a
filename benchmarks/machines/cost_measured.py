"""The assumptions of the cost model, read from the files of the benchmarks; what nobody measured stays None.

All passes are of a Swin-T with pictures of 224² and one thread (benchmarks/one_pass), since that is the trunk on which
the share that further bundles repeat was measured, by where their adapters begin.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cost_assumptions import Assumptions, ImpossibleError, numbers

BENCHMARKS = Path(__file__).parents[1]
ENGINES = Path(__file__).parent
#: where a bundle's adapters begin, by the names of benchmarks/one_pass/results.json
METHODS = {
    "heads": "heads only",
    "side": "side",
    "lora-last": "lora-last",
    "lora-middle": "lora-middle",
    "lora-first": "lora-first",
}
MOST = 16  # bundles that were measured in one pass
#: neither measured nor counted: value, and why it
ASSUMED: dict[str, tuple[float, str]] = {
    "cores_beside": (8, "cores that clouds sell with one accelerator; of device accelerator alone"),
    "picture_pixel": (0.5, "a JPEG of quality 90 or so"),
    "gets_picture": (1, "a picture is fetched whole (decision 026)"),
    "puts_map": (1, "a map is sent whole (decision 026)"),
    "puts_block": (1, "a part of the manifest after each block (decision 026)"),
    "names_list": (1000, "the longest page of S3's ListObjectsV2"),
    "files_weights": (3, "bundle.json, weights.safetensors, SHA256SUMS"),
    "get_price": (0.4e-6, "list price of S3 Standard, us-east-1: $0.0004 a thousand"),
    "put_price": (5e-6, "list price of S3 Standard, us-east-1: $0.005 a thousand"),
    "byte_price": (0.0, "store and machines in one region"),
    "request_wait": (0.15, "100 to 200 ms, as S3's guide to performance says of small objects"),
    "in_flight": (16, "threads that fetch and send"),
    "gets_second": (5500, "what S3 promises for one prefix; more prefixes, more"),
    "puts_second": (3500, "what S3 promises for one prefix; more prefixes, more"),
    "network": (1.25e9, "10 Gbit/s"),
    "memory": (16e9, "memory beside one device"),
    "request_fails": (0.001, "one in a thousand"),
    "tries": (6, "as garnish.stores by default"),
    "block_lost": (0.001, "one in a thousand"),
    "run_lost": (0.01, "one in a hundred"),
    "run_again": (0.125, "half of what lies between two checkpoints of a run with four"),
    "busy": (0.7, "the rest is for bursts; waiting is not modelled"),
}


def read(file: Path) -> Any:
    """A file of results."""
    return json.loads(file.read_text("utf-8"))


def passes(method: str) -> dict[str, tuple[float, str]]:
    """Seconds of passes with the adapters of a method, in the mode that the model itself chooses."""
    found = read(BENCHMARKS / "one_pass" / "results.json")
    command = "python benchmarks/one_pass/measure.py times --rounds 6"

    def own(what: str, arm: str, count: int) -> dict[str, Any]:
        rows = [found[f"{what}/224/batch1/{arm}/{mode}/{count}"] for mode in ("joint", "passes")]
        return next(row for row in rows if row["own"])

    def encoder(arm: str, count: int) -> float:
        return float(own("times", arm, count)["encoder cpu"]["seconds"])

    arm = METHODS[method]
    all_heads = float(own("times", "heads only", MOST)["all cpu"]["seconds"])
    macs = [float(own("counts", arm, count)["macs encoder"]) for count in (1, MOST)]
    measured = f"measured: docs/benchmarks.md, One pass, Swin-T at 224², one thread; {command}"
    linear = f"{measured}; the mean of the second to the 16th"
    return {
        "pass_side": (224, measured),
        "plain_pass": (encoder("heads only", 1), f"{measured}; heads only"),
        "first_bundle": (encoder(arm, 1), f"{measured}; {arm}"),
        # heads add nothing to the trunk: what is measured there is the noise of two times
        "another_bundle": (max(0.0, (encoder(arm, MOST) - encoder(arm, 1)) / (MOST - 1)), f"{linear}; {arm}"),
        "unshared": (
            (macs[1] - macs[0]) / (MOST - 1) / macs[0],
            f"counted: multiply-accumulates; python benchmarks/one_pass/measure.py counts; {arm}",
        ),
        "head": ((all_heads - encoder("heads only", MOST)) / MOST, f"{measured}; SegFormer head of 64 channels"),
    }


def host() -> dict[str, tuple[float, str]]:
    """Seconds and bytes of a pixel."""
    found = read(BENCHMARKS / "serving" / "encoding.json")["application/json"]
    pixels, maps = 1024**2, 2
    measured = "measured: docs/serving.md, Encoding; python benchmarks/serving/encoding.py --rounds 6"
    worst = "; random maps, the worst that a PNG can be given"
    return {
        "decode_pixel": (1e-3 * found["decode"] / pixels, measured),
        "encode_pixel": (1e-3 * found["encode"] / (pixels * maps), measured + worst),
        "map_pixel": (found["bytes"] * 3 / 4 / (pixels * maps), f"{measured}; 3/4 of base64{worst}"),
    }


def weights() -> dict[str, tuple[float, str]]:
    """Bytes and loading of bundles and copies."""
    fleet = read(BENCHMARKS / "serving" / "results_fleet.json")
    command = "OMP_NUM_THREADS=1 python benchmarks/serving/fleet.py --requests 60"
    rows = {
        "program_memory": (
            fleet["memory"]["trunk_and_program"],
            f"measured: docs/serving.md, Fleet, a ViT-S/14; {command}",
        )
    }
    file = ENGINES / "weights.json"
    if not file.exists():
        return rows
    found = read(file)["trunks"]["swin_t"]
    measured = (
        "measured: docs/scale.md, A bundle beside a copy; OMP_NUM_THREADS=1 python benchmarks/machines/weights.py"
    )
    rows["trunk_file"] = (found["trunk_bytes"], "counted: values of 4 bytes of a Swin-T")
    for kind, what in (
        ("bundle", "LoRA, r = 8, from block 0, two linear heads; the other methods here have fewer tensors"),
        ("copy", "full fine-tuning"),
    ):
        rows[f"{kind}_file"] = (found[kind]["files_bytes"], f"{measured}; {what}")
        rows[f"{kind}_memory"] = (found[kind]["memory_bytes"], f"{measured}; {what}, tensors alone")
        rows[f"{kind}_load"] = (1e-3 * found[kind]["cpu_ms"], f"{measured}; {what}, processor time")
    return rows


def training() -> dict[str, tuple[float, str]]:
    """Seconds of a run."""
    found = read(BENCHMARKS.parent / "docs" / "results" / "camvid" / "results.json")
    (arm,) = (arm for arm in found["arms"] if arm["name"] == "LoRA")
    source = f"measured: docs/results/README.md, camvid, LoRA on a ViT-S/14, 100 steps of 4; {found['command']}"
    return {"run": (arm["wall_seconds"], source)}


def bulk_start(found: Any) -> float:
    """Seconds until the cluster stood."""
    return statistics.median(float(run["start"]) for run in found["runs"]["on ray"])


def bulk_picture(found: Any) -> float:
    """Seconds by which the rest of the command took longer, over its pictures; the workers' own start is among them."""
    whole = {arm: statistics.median(run["whole"] for run in runs) for arm, runs in found["runs"].items()}
    return float(whole["on ray"] - bulk_start(found) - whole["predict"]) / float(found["pictures"])


def serve_request(found: Any) -> float:
    """Seconds by which the median of a request's times is longer; all of them are taken to keep a device busy."""
    return 1e-3 * float(found["milliseconds"]["predict"]["added"]["p50"])


def sweep_start(found: Any) -> float:
    """Seconds until the cluster stood."""
    return float(found["adds"]["start_seconds"])


def sweep_run(found: Any) -> float:
    """Seconds by which a run took longer."""
    return float(found["adds"]["run_seconds"])


#: what the engines add: file of the measurement, and how its assumption comes out of it
ADDED: dict[str, tuple[str, Callable[[Any], float]]] = {
    "sweep_start": ("sweep.json", sweep_start),
    "sweep_run": ("sweep.json", sweep_run),
    "bulk_start": ("bulk.json", bulk_start),
    "bulk_picture": ("bulk.json", bulk_picture),
    "serve_request": ("serve_latency.json", serve_request),
}


def engines(folder: Path = ENGINES) -> tuple[dict[str, tuple[float, str]], dict[str, str]]:
    """What the engines add, of the files that are there; and for each number that is not, why."""
    rows, why = {}, {}
    for name, (file, of) in ADDED.items():
        if not (folder / file).exists():
            why[name] = f"not measured: no benchmarks/machines/{file}"
            continue
        try:
            value = of(read(folder / file))
        except (KeyError, TypeError, ValueError, AttributeError, statistics.StatisticsError) as error:
            why[name] = f"not measured: benchmarks/machines/{file} has not what is looked for ({error})"
            continue
        told = f"measured: docs/scale.md, What an engine adds; python benchmarks/machines/{Path(file).stem}.py"
        # where next to nothing is added, the difference of two times may be below zero
        rows[name] = (max(0.0, value), told if value >= 0 else f"{told}; a difference of {value:.3g} s, taken for none")
    return rows, why


def measured(method: str = "lora-first", device: str = "cpu") -> Assumptions:
    """All that is known.

    Args:
        method: where a bundle's adapters begin, of :data:`METHODS`.
        device: "cpu", one thread of the machine that was measured; of "accelerator" no pass was, so they are None.

    Raises:
        ImpossibleError: an unknown method or device.
    """
    if method not in METHODS:
        raise ImpossibleError(f"method: {method!r} is unknown; it is one of {', '.join(METHODS)}")
    added, why = engines()
    why["pass_price"] = "not given: prices of machines differ; --set pass_price=$ a second"
    rows = {**ASSUMED_ROWS, **passes(method), **host(), **weights(), **training(), **added}
    if device == "accelerator":
        for name in ("plain_pass", "first_bundle", "another_bundle", "head", "run"):
            rows.pop(name)
            why[name] = "not measured: no accelerator was at hand"
    values = {name: value for name, (value, _) in rows.items()}
    assert set(values) <= {one.name for one in numbers()}
    return Assumptions(device=device, sources={**{name: row[1] for name, row in rows.items()}, **why}, **values)


ASSUMED_ROWS = {name: (value, f"assumed: {why}") for name, (value, why) in ASSUMED.items()}
