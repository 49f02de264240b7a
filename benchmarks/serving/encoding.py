"""What encoding takes of a request at one megapixel.

    python benchmarks/serving/encoding.py [--rounds 10] [--threads 1]

A MiT-B0 with LoRA, classes and depth, behind the whole HTTP application (no socket): a picture of 1024x1024 comes as a
JPEG, and is answered as JSON and as npz in turn. Milliseconds of each stage are those that the answer tells; the total
is the request's own, which holds reading the form, sending and all else. Prints medians, with the smallest and largest
share of encoding, and keeps them in benchmarks/serving/encoding.json. Adapters are drawn, so that the maps are not
smooth: random labels and depths are the worst that a PNG can be given.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from starlette.testclient import TestClient

import garnish as gn
from garnish.serving.app import make_app
from garnish.serving.settings import ServerSettings
from garnish.serving.starting import Serving, start_serving

RESULTS = Path(__file__).with_name("encoding.json")
STAGES = ("decode", "queue", "forward", "encode")


def made(folder: Path) -> Path:
    """A bundle whose maps have many regions."""
    torch.manual_seed(0)
    tasks = {"seg": gn.Semantic(classes=21), "depth": gn.Depth(max_metres=10.0)}
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=8), tasks)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save(folder / "street")
    return folder / "street"


def jpeg() -> bytes:
    scene = Image.fromarray(gn.Scenes(1, seed=3)[0].image.numpy().transpose(1, 2, 0)).resize((1024, 1024))
    noisy = np.asarray(scene, np.float32) + np.random.default_rng(0).normal(0, 6, (1024, 1024, 1))
    data = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=92)
    return data.getvalue()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--threads", type=int, default=1)
    given = words.parse_args()
    found: dict[str, list[dict[str, float]]] = {"application/json": [], "application/x-npz": []}
    with tempfile.TemporaryDirectory() as folder:
        started = start_serving(Serving(bundles={"street": made(Path(folder))}, device="cpu", threads=given.threads))
        app = make_app(started.service, started.store, ServerSettings(hosts=frozenset({"testserver"})))
        data = jpeg()
        with TestClient(app) as client:
            while client.get("/ready").status_code != 200:
                time.sleep(0.1)
            for number in range(given.rounds + 1):
                for kind, rows in found.items():
                    began = time.perf_counter()
                    answer = client.post(
                        "/v1/predict", content=data, headers={"Content-Type": "image/jpeg", "Accept": kind}
                    )
                    total = (time.perf_counter() - began) * 1000
                    assert answer.status_code == 200, answer.text
                    stages = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
                    if number:  # the first warms
                        rows.append(
                            {name: float(stages[name]) for name in STAGES}
                            | {"total": total, "bytes": len(answer.content)}
                        )
        started.close()
    told: dict[str, object] = {"threads": given.threads, "rounds": given.rounds, "load": round(os.getloadavg()[0], 1)}
    for kind, rows in found.items():
        shares = [row["encode"] / row["total"] for row in rows]
        medians = {name: round(statistics.median(row[name] for row in rows), 1) for name in rows[0]}
        told[kind] = medians | {"share": [round(f(shares), 4) for f in (statistics.median, min, max)]}
        print(kind, told[kind])
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
