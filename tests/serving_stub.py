"""A server that answers by decision 023's contract with :class:`FakeEngine`'s maps, over the standard library alone."""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

from garnish.decodings.classes import Classes
from garnish.decodings.decoding import Decoding
from garnish.decodings.directions import Directions
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.pictures.bands import Bands
from garnish.registry import describe

TOKEN = "a-token"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
#: (kind, decoding) of each task
TASKS: dict[str, tuple[str, Decoding]] = {
    "seg": ("Semantic", Classes(names=("road", "sky", "tree"))),
    "depth": ("Depth", SoftplusDepth(max_metres=10.0)),
    "normals": ("Normals", Directions()),
    "edges": ("Edges", Probabilities(dark=True)),
}


def raw(task: str, picture: np.ndarray, shift: int) -> np.ndarray:
    """Raw output (C, H, W) of a picture (3, H, W) uint8, another of each shift."""
    values = np.roll(picture.astype(np.float32) / 255, shift, 0)
    mean = values.mean(0, keepdims=True)
    return {"seg": values * 4, "depth": mean * 3 + shift - 1, "normals": values - 0.5, "edges": 6 * mean - 3}[task]


class Stub:
    """What the server holds, and what it was asked.

    Attributes:
        bundles: name → shift of its maps.
        asked: (method, path, query) of each request.
        busy: how many requests are answered 503.
        tamper: changes the arrays of answers.
    """

    def __init__(self, *names: str) -> None:
        self.bundles = {name: number for number, name in enumerate(names)}
        self.asked: list[tuple[str, str, dict]] = []
        self.clients: set[tuple] = set()
        self.busy, self.tamper = 0, lambda arrays: arrays
        self.pages: dict[str, tuple[bytes, str]] = {}

    def about(self, name: str) -> dict:
        tasks = {task: {"task": kind, "decoding": describe(by)} for task, (kind, by) in TASKS.items()}
        return {"name": name, "tasks": tasks, "bands": Bands().facts(), "bytes": 1000, "sha256": "0" * 64}

    def answer(self, data: bytes, asking: dict[str, list[str]]) -> tuple[int, bytes, str]:
        with Image.open(io.BytesIO(data)) as opened:
            picture = np.asarray(opened.convert("RGB")).transpose(2, 0, 1)
        arrays, bundles, files = {}, {}, []
        names = asking.get("bundle") or list(self.bundles)
        tasks = [one for text in asking.get("tasks", []) for one in text.split(",")]
        for name in names:
            if name not in self.bundles:
                return (
                    404,
                    json.dumps({"error": f"no bundle {name!r}; available: {', '.join(self.bundles)}"}).encode(),
                    "",
                )
            for task, (kind, by) in TASKS.items():
                if tasks and task not in tasks and f"{name}/{task}" not in tasks:
                    continue
                out = raw(task, picture, self.bundles[name])
                arrays[f"{name}/{task}"] = by.decode(out)
                if asking.get("confidence") == ["true"] and kind == "Semantic":
                    arrays[f"{name}/{task}.confidence"] = by.values(out).max(0)
                facts = {"task": kind, "decoding": describe(by), "media_type": "image/png"}
                bundles.setdefault(name, {})[task] = {**facts, "width": picture.shape[2], "height": picture.shape[1]}
                files.append((by, arrays[f"{name}/{task}"]))
        told = {
            "picture": {"width": picture.shape[2], "height": picture.shape[1]},
            "bundles": bundles,
            "timings": {"decode": 1.5, "queue": 0.25, "forward": 20.0, "encode": 2.0},
        }
        if asking["accept"][0].startswith("image/png"):
            made = io.BytesIO()
            by, decoded = files[0]
            Image.fromarray(by.paint(decoded)).save(made, format="PNG")
            return 200, made.getvalue(), "image/png"
        arrays["answer.json"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        np.savez(packed := io.BytesIO(), **self.tamper(arrays))
        return 200, packed.getvalue(), "application/x-npz"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: ClassVar[Stub]

    def log_message(self, *_):
        pass

    def _reply(self, status: int, data: bytes | dict, kind: str = "application/json", **headers: str) -> None:
        data = json.dumps(data).encode() if isinstance(data, dict) else data
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _fields(self, body: bytes) -> dict[str, list[bytes]]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parsed = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        found: dict[str, list[bytes]] = {}
        for part in parsed.iter_parts():
            found.setdefault(part.get_param("name", header="content-disposition"), []).append(
                part.get_payload(decode=True)
            )
        return found

    def _handle(self) -> None:
        stub, parts = self.stub, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query, path = parse_qs(parts.query), unquote(parts.path)
        multipart = (self.headers.get("Content-Type") or "").startswith("multipart/form-data")
        fields = self._fields(body) if multipart else {}
        if fields and self.command == "POST":
            body = fields.pop("image")[0]
            query |= {key: [value.decode() for value in values] for key, values in fields.items()}
        stub.asked.append((self.command, path, query))
        stub.clients.add(self.client_address)
        name = path.removeprefix("/v1/bundles/")
        if self.command == "GET" and path in stub.pages:
            data, kind = stub.pages[path]
            return self._reply(200, data, kind, Content_Security_Policy=POLICY)
        if path == "/ready":
            return self._reply(200, {"ready": True})
        if path == "/v1/predict":
            if stub.busy:
                stub.busy -= 1
                return self._reply(503, {"error": "the queue is full; ask again in 1 s"}, Retry_After="1")
            query["accept"] = [self.headers["Accept"]]
            status, data, kind = stub.answer(body, query)
            return self._reply(status, data, kind or "application/json")
        if path == "/v1/bundles":
            return self._reply(200, {"trunk": {"name": "garnish_b0"}, "bundles": sorted(stub.bundles)})
        if self.command in ("PUT", "DELETE") and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._reply(
                401, {"error": "bundles are changed with the server's token; send Authorization: Bearer"}
            )
        if self.command == "PUT":
            if b"shift" not in fields["bundle.json"][0]:
                return self._reply(422, {"error": "bundle.json: is damaged; save it again"})
            stub.bundles[name] = json.loads(fields["bundle.json"][0])["shift"]
            digest = hashlib.sha256(fields["weights.safetensors"][0]).hexdigest()
            return self._reply(200, {**stub.about(name), "sha256": digest})
        if name not in stub.bundles:
            return self._reply(404, {"error": f"no bundle {name!r}"})
        if self.command == "DELETE":
            del stub.bundles[name]
            return self._reply(200, {})
        return self._reply(200, stub.about(name))

    do_GET = do_POST = do_PUT = do_DELETE = _handle


@contextlib.contextmanager
def serving(stub: Stub):
    """The address of a server that answers as ``stub`` says."""
    handler = type("Handler", (_Handler,), {"stub": stub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def a_picture(folder: Path, name: str = "street.png", size: tuple[int, int] = (45, 61)) -> Path:
    values = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / name)
    return folder / name
