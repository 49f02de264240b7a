"""A small server that speaks the interface of the Hugging Face Hub, as far as models are read and written.

Written from the requests that huggingface_hub makes. Faults can be planted: statuses, cut and endless bodies, sizes
that are not those of the files, names that no git repository has.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

WRITER, READER = "hf_writer", "hf_reader"


@dataclass
class Repository:
    """Commits, newest last, and what may be done with them."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    large: set[str] = field(default_factory=set)  # names of files that are kept in the large store

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        """Write files on top of a branch; the new commit."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        named = f"{len(self.commits)} {branch} {sorted(files)} {message}"
        sha = hashlib.sha1(named.encode()).hexdigest()
        self.commits[sha] = {**before, **files}
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch or a commit."""
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Faults:
    """What goes wrong, by a pattern of "METHOD path"."""

    status: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)  # of a status or a cut, how often; for ever if absent
    announced: dict[str, Any] = field(default_factory=dict)  # file → size in the listing
    headed: dict[str, int] = field(default_factory=dict)  # file → size in the headers
    cut: dict[str, int] = field(default_factory=dict)  # file → bytes after which the connection breaks
    endless: dict[str, int] = field(default_factory=dict)  # file → bytes that are sent without saying how many
    listed: list[str] = field(default_factory=list)  # further names
    silent: str | None = None  # what is never answered


class HubServer(ThreadingHTTPServer):
    """The server; its state is for the tests to set and to look at."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.stored: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.asked: list[str] = []
        self.mode = "regular"
        self.pulls = 0
        self.end = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        """A repository with one commit."""
        self.repositories[name] = made = Repository(**options)
        made.commit(files, message="first")
        return made


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: Any) -> None: ...

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        path, what = split.path, f"{self.command} {split.path}"
        self.server.asked.append(what)
        faults = self.server.faults
        if faults.silent and re.search(faults.silent, what):
            self.server.end.wait(30)
            return
        for pattern, (status, headers) in faults.status.items():
            if re.search(pattern, what) and faults.times.get(pattern, 1) > 0:
                if pattern in faults.times:
                    faults.times[pattern] -= 1
                return self.send(status, {"error": headers.get("X-Error-Message", "planted")}, headers)
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, what)
            if found:
                return method(self, *map(unquote, found.groups()))
        return self.send(404, {"error": f"no route {path}"})

    def send(self, status: int, told: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def readable(self, name: str) -> Repository | None:
        """The repository, or an answer that it is not to be read."""
        repository = self.server.repositories.get(name)
        if self.token not in (None, WRITER, READER):
            self.send(401, {"error": "bad token"}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository is None or (repository.private and self.token is None):
            missing = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self.send(401 if self.token is None else 404, {"error": "Repository not found"}, missing)
        else:
            return repository
        return None

    def writable(self, name: str) -> Repository | None:
        if self.token == READER:
            self.send(403, {"error": "no"}, {"X-Error-Message": "the token may only read"})
            return None
        return self.readable(name)

    def commit_of(self, repository: Repository, revision: str) -> str | None:
        sha = repository.resolve(revision)
        if sha is None:
            self.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return sha

    # ---- reading

    def info(self, name: str, revision: str = "main") -> None:
        repository = self.readable(name)
        if repository is None or (sha := self.commit_of(repository, revision)) is None:
            return
        faults, files = self.server.faults, repository.commits[sha]
        siblings = [{"rfilename": path, "size": faults.announced.get(path, len(data))} for path, data in files.items()]
        siblings += [{"rfilename": path, "size": faults.announced.get(path, 7)} for path in faults.listed]
        told = {"id": name, "sha": sha, "private": repository.private, "gated": repository.gated, "tags": []}
        self.send(200, {**told, "downloads": 0, "likes": 0, "siblings": siblings})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.readable(name)
        if repository is None:
            return
        if repository.gated and self.token != WRITER:
            return self.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        sha = self.commit_of(repository, revision)
        if sha is None:
            return
        if path not in repository.commits[sha]:
            return self.send(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        data = repository.commits[sha][path]
        size = self.server.faults.headed.get(path, len(data))
        if path in repository.large:
            oid = hashlib.sha256(data).hexdigest()
            self.server.stored[oid] = data
            self.send_response(302)
            for key, value in {
                "Location": f"{self.server.address.replace('127.0.0.1', 'localhost')}/cdn/{oid}",
                "X-Repo-Commit": sha,
            }.items():
                self.send_header(key, value)
            self.send_header("X-Linked-Size", str(size))
            self.send_header("X-Linked-ETag", f'"{oid}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.content(path, data, size, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def cdn(self, oid: str) -> None:
        data = self.server.stored[oid]
        self.content(oid, data, len(data), {"ETag": f'"{oid}"'})

    def content(self, path: str, data: bytes, size: int, headers: dict[str, str]) -> None:
        faults = self.server.faults
        start = int((re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-") or [0, 0])[1])
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command == "GET" and path in faults.endless:
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            piece = b"x" * 65536
            for _ in range(faults.endless[path] // len(piece)):
                self.wfile.write(piece)
            return
        self.send_header("Content-Length", str(size - start if self.command == "HEAD" else len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if path in faults.cut and faults.times.get(path, 1) > 0:
            if path in faults.times:
                faults.times[path] -= 1
            self.wfile.write(data[start : start + faults.cut[path]])
            self.close_connection = True
            return
        self.wfile.write(data[start:])

    # ---- writing

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'alice'}/{asked['name']}"
        if self.token != WRITER:
            return self.send(403 if self.token else 401, {"error": "no"}, {"X-Error-Message": "no right to create"})
        if name in self.server.repositories:
            return self.send(409, {"error": "exists", "url": f"{self.server.address}/{name}"})
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self.send(200, {"url": f"{self.server.address}/{name}", "name": name})

    def branch(self, name: str, branch: str) -> None:
        repository = self.writable(name)
        if repository is not None:
            repository.branches[branch] = repository.branches["main"]
            self.send(201, {})

    def validate(self) -> None:
        """The front matter must be YAML of a mapping, with a licence that has a name if it is another."""
        text = json.loads(self.body)["content"]
        try:
            told = yaml.safe_load(text.split("---")[1])
            assert isinstance(told, dict)
            assert isinstance(told["license"], str)
            assert told["license"] != "other" or re.fullmatch(r"[a-z0-9.-]+", told["license_name"])
        except (yaml.YAMLError, AssertionError, KeyError, IndexError) as error:
            return self.send(400, {"errors": [{"message": repr(error)}], "warnings": []})
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        repository = self.writable(name)
        if repository is None or (sha := self.commit_of(repository, revision)) is None:
            return
        there, told = repository.commits[sha], []
        for file in json.loads(self.body)["files"]:
            mode = self.server.mode if file["path"].endswith(".safetensors") else "regular"
            known = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            if (data := there.get(file["path"])) is not None:
                blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
                known["oid"] = hashlib.sha256(data).hexdigest() if mode == "lfs" else blob
            told.append(known)
        self.send(200, {"files": told})

    def batch(self, name: str) -> None:
        if self.writable(name) is None:
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            oid = asked["oid"]
            place = {"upload": {"href": f"{self.server.address}/lfs/{oid}", "header": {}}}
            objects.append(dict(asked) if oid in self.server.stored else {**asked, "actions": place})
        self.send(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.stored[oid] = self.body
        self.server.uploads.append(oid)
        self.send(200, {})

    def commit(self, name: str, revision: str) -> None:
        repository = self.writable(name)
        if repository is None or (sha := self.commit_of(repository, revision)) is None:
            return
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        head, files = lines[0]["value"], {}
        if head.get("parentCommit") not in (None, sha):
            return self.send(412, {"error": "A commit has happened since"})
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.server.stored[value["oid"]]
                repository.large.add(value["path"])
        told: dict[str, Any] = {}
        if self.query.get("create_pr"):
            self.server.pulls += 1
            revision = f"refs/pr/{self.server.pulls}"
            repository.branches[revision] = sha
            told["pullRequestUrl"] = f"{self.server.address}/{name}/discussions/{self.server.pulls}"
        made = repository.commit(files, revision, head["summary"])
        self.send(200, {**told, "commitUrl": f"{self.server.address}/{name}/commit/{made}", "commitOid": made})


_ID = "([^/]+/[^/]+)"
_ROUTES = [
    (f"GET /api/models/{_ID}", _Handler.info),
    (f"GET /api/models/{_ID}/revision/(.+)", _Handler.info),
    (f"(?:GET|HEAD) /{_ID}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("(?:GET|HEAD) /cdn/(.+)", _Handler.cdn),
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate),
    (f"POST /api/models/{_ID}/branch/(.+)", _Handler.branch),
    (f"POST /api/models/{_ID}/preupload/(.+)", _Handler.preupload),
    (f"POST /api/models/{_ID}/commit/(.+)", _Handler.commit),
    (rf"POST /{_ID}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT /lfs/(.+)", _Handler.store),
]


@contextlib.contextmanager
def serving() -> Iterator[HubServer]:
    """A server, for as long as the block lasts."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.end.set()
        server.shutdown()
        server.server_close()


def asking(
    monkeypatch: pytest.MonkeyPatch,
    server: HubServer | None,
    cache: Any,
    token: str | None = WRITER,
    *,
    xet: bool = False,
) -> None:
    """Let huggingface_hub in this process ask a server, or none (offline), with a cache of its own."""
    from huggingface_hub import constants

    address = "http://127.0.0.1:9" if server is None else server.address
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", server is None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
