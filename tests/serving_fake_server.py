"""A server without torch in a process of its own: ``python serving_fake_server.py FOLDER [SECONDS of a pass]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from garnish.serving.json_logs import logging_lines
from garnish.serving.running import address_of, bound_socket, run_app
from serving_http_cases import TOKEN, Served


def main() -> None:
    served = Served(
        Path(sys.argv[1]) / "bundles",
        float(sys.argv[2]) if len(sys.argv) > 2 else 0.0,
        token=os.environ.get("GARNISH_TOKEN", TOKEN),
        hosts=frozenset(),
        body_bytes=8_000_000,
    )
    with bound_socket("127.0.0.1", 0) as listening, logging_lines(as_json=True):
        run_app(served.app, listening, lambda: print(f"{address_of(listening)}: fakes", flush=True))
        served.batcher.close()


if __name__ == "__main__":
    main()
