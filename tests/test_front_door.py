"""What takes requests under Ray Serve, over fakes: bundles found in requests, answers passed on, replicas that die."""

from __future__ import annotations

import base64

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from garnish.serving.bundle_router import BundleRouter
from garnish.serving.carried import CarriedAnswer, CarriedRequest, CarriedRequests
from garnish.serving.front_door import FrontDoor
from garnish.serving.joined_metrics import joined_metrics
from serving_http_cases import TOKEN, Served, picture, png

FILE = png(picture())


class Replicas:
    """A handle of one replica, which dies with the first requests."""

    def __init__(self, served: Served) -> None:
        self.requests, self.seen, self.deaths = CarriedRequests(served.app), list[CarriedRequest](), list[Exception]()
        self.answer = self

    async def remote(self, carried: CarriedRequest) -> CarriedAnswer:
        self.seen.append(carried)
        if self.deaths:
            raise self.deaths.pop()
        return await self.requests.answer(carried)


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path)
    with made.client:
        yield made
    made.batcher.close()


@pytest.fixture
def replicas(served) -> Replicas:
    return Replicas(served)


def passing(door: FrontDoor) -> Starlette:
    """An application that hands everything to a door, as Serve does."""
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]
    return Starlette(routes=[Route("/{path:path}", door.__call__, methods=methods)])


@pytest.fixture
def client(served, replicas):
    pytest.importorskip("ray.serve", reason="needs Ray Serve: pip install 'garnish[ray]'")
    door = FrontDoor(replicas, None, served.settings)
    with TestClient(passing(door), base_url="http://testserver") as made:
        yield made


def test_answers_are_those_of_the_application(served, client):
    def ask(of: TestClient, method: str, path: str, **how):
        answer = of.request(method, path, **how)
        headers = {
            name: value for name, value in answer.headers.items() if name not in ("x-request-id", "server-timing")
        }
        data = answer.json() if answer.content and "json" in headers.get("content-type", "") else answer.content
        if isinstance(data, dict):
            data.pop("timings", None)
            headers.pop("content-length")
        return answer.status_code, data, headers

    right = {"Authorization": f"Bearer {TOKEN}"}
    for method, path, how in (
        ("POST", "/v1/predict?bundle=street", {"content": FILE, "headers": {"Content-Type": "image/png"}}),
        ("POST", "/v1/predict", {"data": {"bundle": "cracks"}, "files": {"image": ("a", FILE)}}),
        ("POST", "/v1/predict", {"data": {"bundle": "crack"}, "files": {"image": ("a", FILE)}}),
        ("POST", "/v1/predict", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        ("POST", "/v1/predict", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        ("GET", "/v1/bundles", {}),
        ("GET", "/v1/bundles/street", {}),
        ("HEAD", "/v1/bundles", {}),
        ("DELETE", "/v1/bundles/street", {"headers": {"Authorization": "Bearer no"}}),
        ("DELETE", "/v1/bundles/none", {"headers": right}),
        ("GET", "/", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/nowhere", {}),
        ("PATCH", "/v1/bundles", {}),
        ("GET", "/health", {}),
        ("GET", "/v1/bundles", {"headers": {"Host": "evil.example"}}),
        ("GET", "/v1/bundles", {"headers": {"Origin": "http://evil.example"}}),
    ):
        assert ask(client, method, path, **how) == ask(served.client, method, path, **how), (method, path, how)


def test_the_bundles_of_a_request_are_found_wherever_it_says_them(client, replicas):
    both = ["street", "cracks"]
    coded = base64.b64encode(FILE).decode()
    client.post("/v1/predict", data={"bundle": both}, files={"image": ("a", FILE)})
    client.post("/v1/predict", params={"bundle": both}, content=FILE, headers={"Content-Type": "image/png"})
    client.post("/v1/predict", json={"image": coded, "bundle": both})
    client.get("/v1/bundles/street")
    client.post("/v1/predict", content=FILE, headers={"Content-Type": "image/png"})
    client.post("/v1/predict", json={"image": coded, "bundle": [1, {}]})
    client.post("/v1/predict", content=b"--", headers={"Content-Type": "multipart/form-data; boundary=bb"})
    assert [list(one.bundles) for one in replicas.seen] == [both, both, both, ["street"], [], [], []]


def test_a_request_whose_replica_dies_is_sent_again_unless_it_changes_something(client, replicas):
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    replicas.deaths = [ActorDiedError(), ActorUnavailableError("no", None)]
    answer = client.post("/v1/predict?bundle=street", content=FILE, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200 and len(replicas.seen) == 3
    replicas.deaths = [ActorDiedError() for _ in range(3)]
    answer = client.get("/v1/bundles")
    assert answer.status_code == 503 and "3 replicas died with this request" in answer.json()["error"]
    assert answer.headers["retry-after"] and answer.headers["x-content-type-options"] == "nosniff"
    replicas.seen.clear()
    replicas.deaths = [ActorDiedError()]
    answer = client.delete("/v1/bundles/street", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 503 and len(replicas.seen) == 1


def test_a_body_is_bounded_before_it_is_sent_on(served, replicas):
    pytest.importorskip("ray.serve", reason="needs Ray Serve: pip install 'garnish[ray]'")
    from dataclasses import replace

    door = FrontDoor(replicas, None, replace(served.settings, body_bytes=100))
    sent = {"content": b"x" * 101, "headers": {"Content-Type": "image/png"}}
    answer = TestClient(passing(door)).post("/v1/predict", **sent)
    assert answer.status_code == 413 and not replicas.seen


def test_metrics_say_of_which_replica_they_are():
    one = '# HELP x_total what\n# TYPE x_total counter\nx_total{route="/a"} 2.0\n'
    text = joined_metrics({"r1": one, "r2": one.replace("2.0", "3.0")}).decode()
    assert 'x_total{replica="r1",route="/a"} 2.0' in text and 'x_total{replica="r2",route="/a"} 3.0' in text
    assert text.count("# TYPE") == 1 and joined_metrics({}) == b""


def test_the_router_gives_serve_groups_of_its_replicas():
    pytest.importorskip("ray.serve", reason="needs Ray Serve: pip install 'garnish[ray]'")
    import asyncio
    from types import SimpleNamespace

    from garnish.serving.bundle_order import rendezvous

    router = object.__new__(BundleRouter)
    router.initialize_state(spread=2)
    there = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in "abc"]
    lengths: dict[str, int] = {}
    router._replica_queue_len_cache = SimpleNamespace(get=lambda replica_id: lengths.get(replica_id.unique_id))
    asked = CarriedRequest("POST", "/v1/predict", b"", [], b"", None, "http", ["street"])
    pending = SimpleNamespace(args=[asked], routing_context=SimpleNamespace(should_backoff=False))

    def groups(of: object) -> list[list[str]]:
        found = asyncio.run(router.choose_replicas(there, of))
        return [[one.replica_id.unique_id for one in group] for group in found]

    first, second, third = rendezvous("street", "abc")
    assert groups(pending) == [[first], [second], [third]] and pending.routing_context.should_backoff
    lengths[first] = 2
    assert groups(pending) == [[second], [third], [first]]
    assert groups(None) == [["a", "b", "c"]]
