"""Malformed requests against a live server: none may make it fail, and it must answer well-formed ones afterwards.

    python benchmarks/serving/malformed.py [--requests 10000] [--seed 0] [--json FILE]

Starts ``garnish serve`` with two tiny bundles and a token in a process of its own, and sends it requests that are drawn
from the kinds below, over raw sockets by four threads. A request may be answered by any status below 500, by 503, or by
the end of its connection; another 5xx, a traceback in the server's log, a log line that is no JSON or holds the token,
and a server that ended, or answers other numbers than before, are faults. Prints how often each kind had which answer.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TOKEN = "token-of-the-fuzzer-0123456789"
KINDS: dict[str, object] = {}
#: kinds whose requests may never end, so that the client says that it has no more
ENDLESS = ("chunks", "cut_short", "no_http", "two_lengths", "wrong_lengths")
#: what is written where a name, a number or a header is expected
ODD_TEXT = [
    "", " ", "..", "../../etc/passwd", "/etc/passwd", "C:\\windows", "street/../street", "%2e%2e%2f", "a" * 5000,
    "\x00", "street\x00", "\u202ename", "'; DROP TABLE", "${HOME}", "{{7*7}}", "<script>", "NaN", "inf", "-1", "1e999",
    "0x10", "true", "null", "[]", "street,street", "seg,,seg", ",", "http://127.0.0.1:1/", "file:///etc/passwd",
    "\\\\host\\share", "é", "\U0001f600", "%", "%zz", "%00", "&", "=", "a=b", "\t", '"', '"\r\nX: y',
]  # fmt: skip


def kind(build):
    KINDS[build.__name__] = build
    return build


def picture(height: int = 24, width: int = 40, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


PNG, JPEG, TIFF = picture(), picture(form="JPEG"), picture(form="TIFF")


def request(
    draw: random.Random,
    path: str = "/v1/predict",
    body: bytes = b"",
    method: str = "POST",
    host: str = "localhost",
    length: str | None = None,
    **headers: str,
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def form(*parts: tuple[str, bytes], boundary: str = "bb", end: str = "--bb--\r\n") -> bytes:
    made = b""
    for head, data in parts:
        made += f"--{boundary}\r\n{head}\r\n\r\n".encode("utf-8", "surrogateescape") + data + b"\r\n"
    return made + end.encode()


def part(name: str, file: str | None = None) -> str:
    return f'Content-Disposition: form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')


FORM = {"Content_Type": "multipart/form-data; boundary=bb"}
JSON = {"Content_Type": "application/json"}
WHOLE = form((part("image", "a.png"), PNG), (part("bundle"), b"street"))


def damaged(draw: random.Random, data: bytes, most: int = 8) -> bytes:
    """Bytes changed, cut, doubled, moved."""
    made = bytearray(data)
    for _ in range(draw.randint(1, most)):
        at = draw.randrange(len(made) + 1) if made else 0
        how = draw.randrange(5)
        if how == 0 and at < len(made):
            made[at] = draw.randrange(256)
        elif how == 1:
            del made[at : at + draw.choice([1, 2, 16, 1000])]
        elif how == 2:
            made[at:at] = draw.randbytes(draw.choice([1, 4, 300]))
        elif how == 3:
            made[at:at] = made[at : at + draw.choice([2, 64])]
        elif at < len(made):
            made[at] ^= 1 << draw.randrange(8)
    return bytes(made)


@kind
def broken_multipart(draw):
    return request(draw, body=damaged(draw, WHOLE), **FORM)


@kind
def odd_boundaries(draw):
    odd = draw.choice(
        ["", "b" * 71, "b" * 70, '"', '"b b"', "b;b", "é", "bb\x01", "--bb", "\\", "'bb'", "bb; charset=x"]
    )
    return request(draw, body=WHOLE, Content_Type=f"multipart/form-data; boundary={odd}")


@kind
def odd_parts(draw):
    name = draw.choice(["image", "bundle", "tasks", "confidence", *ODD_TEXT])
    parts = [(part(name, draw.choice([None, *ODD_TEXT])), draw.choice([PNG, b"", b"\xff\xfe", b"x" * 70_000]))]
    parts *= draw.choice([1, 1, 2, 300])
    if draw.random() < 0.5:
        parts.insert(0, (part("image", "a"), PNG))
    if draw.random() < 0.2:
        parts.append(("X: " + "y" * draw.choice([10, 1025, 100_000]), b""))
    if draw.random() < 0.2:
        parts.append((part("tasks") + "\r\nContent-Transfer-Encoding: base64", b"c2Vn"))
    end = draw.choice(["--bb--\r\n", "--bb--", "--bb", "", "--bb--\r\ntrailing", "--bb\r\n"])
    return request(draw, body=form(*parts, end=end), **FORM)


@kind
def wrong_lengths(draw):
    length = draw.choice(
        ["-1", "0", "5", "1e3", "", "٣", "99999999999999999999999", "64000001", str(len(WHOLE) + 50), "+7"]
    )
    return request(draw, body=WHOLE, length=length, **FORM)


@kind
def two_lengths(draw):
    return request(draw, body=WHOLE, **FORM, Content_Length=draw.choice(["1", "2", "x"]))


@kind
def chunks(draw):
    sizes = draw.choice(["zz", "-1", "ffffffffffffffff", "5;" + "x" * 9000, "3", "0"])
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: image/png\r\n\r\n"
    )
    return head + sizes.encode() + b"\r\nabc\r\n" + draw.choice([b"0\r\n\r\n", b"", b"q\r\n"])


@kind
def huge_headers(draw):
    return request(draw, body=PNG, Content_Type="image/png", X_Big="x" * draw.choice([1000, 40_000, 200_000]))


@kind
def many_headers(draw):
    return request(draw, "/health", method="GET", **{f"X_{n}": "y" for n in range(draw.choice([50, 500, 3000]))})


@kind
def bad_base64(draw):
    text = draw.choice(["", "=", "a", "aGk", "aGk=\n", "a b=", "data:image/png;base64,aGk=", "é", "A" * 1_000_001])
    text = text if draw.random() < 0.5 else damaged(draw, base64.b64encode(PNG)).decode("latin-1")
    return request(draw, body=json.dumps({"image": text, "bundle": "street"}).encode(), **JSON)


@kind
def bad_json(draw):
    whole = json.dumps({"image": base64.b64encode(PNG).decode(), "bundle": ["street"], "tasks": "seg"}).encode()
    odd = [
        b"",
        b"{",
        b"null",
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"image": NaN}',
        b'{"image": 1e999}',
        b"\xff\xfe{}",
        b'{"image": "a", "image": "b"}',
        b'{"image": ' + b"9" * 10_000 + b"}",
        b'"' + b"x" * 100_000,
        b"{}\x00",
        b'{"image": "\\ud800"}',
        b'{"bundle": "\\ud800", "image": "aGk="}',
        b'\xef\xbb\xbf{"image": "aGk="}',
    ]
    return request(draw, body=draw.choice([*odd, damaged(draw, whole)]), **JSON)


@kind
def odd_keys(draw):
    values = [None, True, 3, -1, 1.5, [], {}, [[]], ["seg", 1], {"a": "b"}, [None], *ODD_TEXT]
    made = {"image": base64.b64encode(PNG).decode(), "bundle": "street"}
    for _ in range(draw.randint(1, 3)):
        made[draw.choice(["image", "bundle", "tasks", "confidence", *ODD_TEXT])] = draw.choice(values)
    return request(draw, body=json.dumps(made).encode(), **JSON)


@kind
def odd_queries(draw):
    from urllib.parse import quote

    name = draw.choice(["bundle", "tasks", "confidence", "bundel", *ODD_TEXT])
    value = draw.choice(["street", "seg", *ODD_TEXT])
    query = f"{quote(name)}={quote(value)}" if draw.random() < 0.7 else draw.choice(["%", "%zz=%zz", "&&&", "=" * 900])
    return request(draw, f"/v1/predict?bundle=street&{query}", body=PNG, Content_Type="image/png")


@kind
def odd_accept(draw):
    odd = [
        "*",
        "*/",
        "/*",
        "image/png;q=2",
        "image/png;q=nan",
        "image/png;q=-1",
        ";q=0.5",
        "a/b/c",
        "*/*;q=0",
        "image/png;q=0.0001",
        "application/json;" * 500,
        ", " * 3000,
        "*/png",
        "é/é",
        '"*/*"',
        "text/html",
        "image/tiff",
        "application/x-npz",
        "multipart/mixed",
        "x" * 20_000,
        "image/png;q=1;q=0",
    ]
    return request(draw, "/v1/predict?bundle=street", body=PNG, Content_Type="image/png", Accept=draw.choice(odd))


@kind
def odd_types(draw):
    odd = [
        "",
        "image",
        "image/",
        "/png",
        "text/plain",
        "multipart/mixed",
        "application/json; charset=utf-16",
        "a" * 9000,
        "application/x-www-form-urlencoded",
        "image/svg+xml",
        "image/png; boundary=bb",
        "é",
        "video/mp4",
    ]
    body = draw.choice([PNG, WHOLE, b"<svg/>", b"bundle=street"])
    return request(draw, "/v1/predict?bundle=street", body=body, Content_Type=draw.choice(odd))


@kind
def damaged_pictures(draw):
    data = damaged(draw, draw.choice([PNG, JPEG, TIFF]), draw.choice([1, 30]))
    return request(draw, "/v1/predict?bundle=street", body=data, Content_Type="image/png")


def png_of(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    def chunk(name: bytes, inner: bytes) -> bytes:
        return len(inner).to_bytes(4) + name + inner + zlib.crc32(name + inner).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


BOMBS = [
    png_of(30_000, 30_000, b""),
    png_of(2**31 - 1, 2**31 - 1, b""),
    png_of(0, 0, b""),
    png_of(8, 8, bytes(10_000_000)),
    png_of(65_000, 1, bytes(65_000 * 3 + 1)),
    png_of(1, 1, bytes(4)),
]


@kind
def bombs(draw):
    data = draw.choice(BOMBS)
    if draw.random() < 0.3:
        return request(
            draw, body=json.dumps({"image": base64.b64encode(data).decode(), "bundle": "street"}).encode(), **JSON
        )
    return request(draw, "/v1/predict?bundle=street", body=data, Content_Type="image/png")


@kind
def compressed(draw):
    encoding = draw.choice(["gzip", "deflate", "br", "identity, gzip", "x" * 999])
    body = zlib.compress(bytes(1_000_000))
    return request(draw, "/v1/predict?bundle=street", body=body, Content_Type="image/png", Content_Encoding=encoding)


@kind
def odd_paths(draw):
    odd = [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//",
        "/v1/bundles/%2e%2e",
        "/v1/bundles/" + "a" * 5000,
        "/v1/bundles/a%00b",
        "/v1/bundles/a%2fb",
        "/v1/bundles/%ff",
        "*",
        "http://evil/",
        "/v1/predict;x",
        "/é",
        "/?%",
        "/v1/bundles/.hidden",
        "/v1/bundles/a%0d%0aX:%20y",
        "",
        "/v1/bundles/CON",
    ]
    method = draw.choice(["GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW", "get"])
    return request(draw, draw.choice(odd), draw.choice([b"", b"x"]), method, Authorization=f"Bearer {TOKEN}")


@kind
def odd_hosts(draw):
    odd = [
        "evil.example",
        "",
        "localhost:99999",
        "[::1",
        "[::1]:8000",
        "127.0.0.1.evil",
        "localhost\tx",
        "a" * 9000,
        "é",
    ]
    return request(
        draw, "/health", method="GET", host=draw.choice(odd), Origin=draw.choice(["null", "http://e", "x", ""])
    )


@kind
def odd_tokens(draw):
    odd = ["", "Bearer", "Bearer ", "Basic x", f"bearer {TOKEN[:-1]}", "Bearer é", "Bearer " + "x" * 9000, TOKEN]
    return request(draw, "/v1/bundles/street", method=draw.choice(["PUT", "DELETE"]), Authorization=draw.choice(odd))


@kind
def odd_uploads(draw):
    facts = draw.choice(
        [b"", b"{}", b"[]", b"\xff", b'{"tasks": {}}', b"[" * 100_000, UPLOAD[0], damaged(draw, UPLOAD[0])]
    )
    weights = draw.choice(
        [b"", b"\xff" * 8 + b"{}", (2**40).to_bytes(8, "little"), UPLOAD[1], damaged(draw, UPLOAD[1])]
    )
    parts = [(part("bundle.json", "x"), facts), (part("weights.safetensors", "../x"), weights)]
    draw.shuffle(parts)
    if draw.random() < 0.3:
        parts.append(draw.choice([parts[0], (part("../../evil.py"), b"x"), (part("SHA256SUMS"), b"x")]))
    name = draw.choice(["odd", "..%2fodd", "%2e%2e", "odd%00", "-odd", "o" * 300])
    body = form(*parts[: draw.choice([1, 2, 2, 3])])
    return request(draw, f"/v1/bundles/{name}", body, "PUT", Authorization=f"Bearer {TOKEN}", **FORM)


@kind
def odd_folders(draw):
    value = draw.choice([None, 1, [], "/etc", "..", ".", "street", *ODD_TEXT])
    body = json.dumps({draw.choice(["from", "form"]): value}).encode()
    return request(draw, "/v1/bundles/odd", body, "PUT", Authorization=f"Bearer {TOKEN}", **JSON)


@kind
def no_http(draw):
    return draw.choice(
        [
            b"",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\r\n" * 900,
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\r\n\r\n",
            draw.randbytes(300),
            b"GET / HTTP/1.1\nHost: x\n\n",
        ]
    )


@kind
def cut_short(draw):
    whole = request(draw, body=WHOLE, **FORM)
    return whole[: draw.randrange(len(whole))]


@kind
def upgrades(draw):
    how = draw.choice(["websocket", "h2c", "x"])
    return request(draw, "/v1/predict", method="GET", Upgrade=how, Sec_WebSocket_Key="x", Sec_WebSocket_Version="13")


@kind
def odd_identities(draw):
    return request(
        draw, "/health", method="GET", X_Request_Id=draw.choice([*(t for t in ODD_TEXT if "\r" not in t), TOKEN * 9])
    )


UPLOAD: tuple[bytes, bytes] = (b"", b"")


def make_bundles(folder: Path) -> None:
    """Two bundles of the smallest trunk there is."""
    import torch

    import garnish as gn

    torch.manual_seed(0)
    for name, classes in (("street", 3), ("cracks", 2)):
        model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), {"seg": gn.Semantic(classes=classes)})
        model.save(folder / name)


def sent(port: int, name: str, data: bytes, draw: random.Random) -> str:
    """The status that a request had, or how its connection ended."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as to:
            with contextlib.suppress(OSError):  # it may answer and close before it has read all
                to.sendall(data)
            if draw.random() < 0.02:
                return "left"
            head = b""
            with contextlib.suppress(OSError):
                if name in ENDLESS:
                    to.shutdown(socket.SHUT_WR)
                while piece := to.recv(65_536):
                    head = head or piece
    except OSError as error:
        return f"no connection ({error})"
    return head[9:12].decode("latin-1") if head.startswith(b"HTTP/1.1 ") else "closed" if not head else "no HTTP"


def faults_of(log: str) -> list[str]:
    """What a server's log must not hold."""
    found = []
    for line in log.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            found.append(f"no JSON: {line[:200]}")
            continue
        if "traceback" in told or "Traceback" in line or told.get("level") in ("error", "critical"):
            found.append(line[-600:])
        if TOKEN in line:
            found.append(f"the token: {line[:200]}")
    return found


def serve_words(folder: Path) -> list[str]:
    """What starts a real server of two bundles."""
    make_bundles(folder / "bundles")
    words = [sys.executable, "-m", "garnish", "serve", "--bundles", str(folder / "bundles"), "--port", "0"]
    words += ["--max-upload", "8", "--megapixels", "1", "--deadline", "30", "--uploads", str(folder / "uploads")]
    return words


def run(count: int, seed: int, folder: Path, words: list[str], *, kinds: tuple[str, ...] = ()) -> dict:
    """Start a server, send, and judge; {"answers": kind → status → count, "faults": lines}.

    ``words`` start it: with TOKEN as GARNISH_TOKEN, bundles street and cracks in ``folder``/bundles; its first line
    begins with its address.
    """
    global UPLOAD
    here = folder / "bundles" / "street"
    UPLOAD = (here / "bundle.json").read_bytes(), (here / "weights.safetensors").read_bytes()
    environment = {**os.environ, "GARNISH_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    log = folder / "log"
    with log.open("w") as to:
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=to, env=environment, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split(": ")[0].rpartition(":")[2])
        path = "/v1/predict?bundle=street&tasks=seg"
        right = request(random.Random(0), path, PNG, Content_Type="image/png", Accept="image/png")
        until = time.monotonic() + 120
        while (before := answer_of(port, right))[:3] != b"200":
            assert time.monotonic() < until, before
            time.sleep(0.1)
        numbers, answers, lock = iter(range(count)), collections.defaultdict(collections.Counter), threading.Lock()
        named = sorted(kinds or KINDS)

        def work() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                draw = random.Random(f"{seed}:{number}")
                name = named[number % len(named)]
                status = sent(port, name, KINDS[name](draw), draw)
                with lock:
                    answers[name][status] += 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        faults = [
            f"{name}: {status} {number} times"
            for name, found in answers.items()
            for status, number in found.items()
            if (status.startswith("5") and status != "503") or status.startswith("no ")
        ]
        after = answer_of(port, right)
        if after.partition(b"\r\n\r\n")[2] != before.partition(b"\r\n\r\n")[2]:
            faults.append("a well-formed request has another answer than before")
        server.send_signal(signal.SIGTERM)
        if (code := server.wait(60)) != 0:
            faults.append(f"the server ended with {code}")
    finally:
        server.kill()
        server.communicate()
    odd = [entry.name for entry in folder.iterdir() if entry.name not in ("bundles", "uploads", "log")]
    faults += [f"wrote {name}" for name in odd] + faults_of(log.read_text())
    return {"answers": {name: dict(found) for name, found in sorted(answers.items())}, "faults": faults}


def answer_of(port: int, data: bytes) -> bytes:
    """A whole answer, from its status on."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as to:
        to.sendall(data)
        found = b""
        while piece := to.recv(65_536):
            found += piece
    return found[9:]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--requests", type=int, default=10_000)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--only", default="", help="kinds, separated by commas")
    words.add_argument("--json")
    given = words.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        found = run(
            given.requests, given.seed, here, serve_words(here), kinds=tuple(filter(None, given.only.split(",")))
        )
    for name, answers in found["answers"].items():
        print(f"{name:18} " + ", ".join(f"{status}: {count}" for status, count in sorted(answers.items())))
    print(f"{given.requests} requests in {time.monotonic() - began:.0f} s; faults: {len(found['faults'])}")
    for fault in found["faults"][:20]:
        print(" ", fault)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    return bool(found["faults"])


if __name__ == "__main__":
    sys.exit(main())
