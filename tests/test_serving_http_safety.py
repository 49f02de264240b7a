"""HTTP over fakes: who may ask, what logs and counts tell, clients that go away, an end that answers; OpenAPI."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import time
from urllib.parse import quote

import pytest

from garnish.serving.json_logs import JsonLines, TextLines
from serving_http_cases import TOKEN, Served, picture, png

FILE = png(picture())
ASK = {"params": {"bundle": "street"}, "headers": {"Content-Type": "image/png"}, "content": FILE}


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path)
    with made.client as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.01)
        yield made
    made.batcher.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("testserver", 200),
        ("TESTSERVER:81", 200),
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.7", 403),
        ("localhost@evil", 400),
        ("", 400),
    ],
)
def test_only_names_of_this_server_are_answered(served, host, status):
    answer = served.client.get("/health", headers={"Host": host})
    assert answer.status_code == status
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_body_of_two_lengths_is_refused_and_its_connection_closed(served):
    both = {"Transfer-Encoding": "chunked", "Content-Length": "3", "Content-Type": "image/png"}
    answer = served.client.post("/v1/predict", params={"bundle": "street"}, headers=both, content=b"abc")
    assert answer.status_code == 400 and "a body has one of them" in answer.json()["error"]
    assert answer.headers["connection"] == "close"


def test_a_server_of_all_addresses_takes_addresses_and_no_names(tmp_path):
    served = Served(tmp_path, any_address=True)
    with served.client as client:
        assert client.get("/health", headers={"Host": "192.168.1.7:8000"}).status_code == 200
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403
    served.batcher.close()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://testserver", 200),
        ("https://testserver", 403),  # another port
        ("http://testserver:80", 200),
        ("http://testserver:81", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://testserver:x", 403),
    ],
)
def test_pages_of_other_sites_are_refused(served, origin, status):
    headers = ASK["headers"] | {"Origin": origin, "Host": "testserver:80"}
    assert served.client.post("/v1/predict", **{**ASK, "headers": headers}).status_code == status


def test_every_answer_tells_browsers_to_trust_nothing(served):
    for path in ("/", "/health", "/nothing", "/v1/bundles"):
        headers = served.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        assert "access-control-allow-origin" not in headers


def test_identities_are_repeated_if_they_are_plain(served):
    get = served.client.get
    assert get("/health", headers={"X-Request-Id": "a.b-C_9"}).headers["x-request-id"] == "a.b-C_9"
    for odd in ("a b", "a\tb", "x" * 65, "é", '"}'):
        made = get("/health", headers={"X-Request-Id": odd.encode("latin-1")}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", made)
    answer = get("/nothing", headers={"X-Request-Id": "mine"})
    assert answer.headers["x-request-id"] == "mine"


def lines(caplog, formatter=None) -> list[str]:
    return [(formatter or JsonLines()).format(record) for record in caplog.records if hasattr(record, "facts")]


def test_a_request_leaves_one_line_without_token_or_picture(served, caplog):
    with caplog.at_level(logging.INFO, logger="garnish"):
        served.client.post("/v1/predict", **ASK)
        served.client.delete("/v1/bundles/cracks", headers={"Authorization": f"Bearer {TOKEN}", "X-Request-Id": "r2"})
        served.client.put("/v1/bundles/a%0Ab", headers={"Authorization": "Bearer wrong"})
    first, second, third = map(json.loads, lines(caplog))
    assert first["message"] == "POST /v1/predict" and first["status"] == 200 and first["bundles"] == ["street"]
    assert {"decode_ms", "queue_ms", "forward_ms", "encode_ms", "ms", "id", "bytes_out"} <= first.keys()
    assert first["bytes_in"] == len(FILE) and first["level"] == "info" and first["time"].endswith("Z")
    assert (second["id"], second["status"], second["route"]) == ("r2", 204, "/v1/bundles/{name}")
    assert third["status"] == 401
    everything = "\n".join(lines(caplog) + lines(caplog, TextLines()))
    assert TOKEN not in everything and "wrong" not in everything and "PNG" not in everything
    assert len(everything.splitlines()) == 6


def test_what_is_refused_leaves_its_error_and_an_unknown_path(served, caplog):
    with caplog.at_level(logging.INFO, logger="garnish"):
        served.client.get(f"/v1/nothing%0A{TOKEN}?token={TOKEN}")
        served.client.delete("/health")
        served.client.get("/v1/bundles", headers={"Host": "evil.example"})
        served.client.post("/v1/predict", **{**ASK, "content": b"x"})
        served.client.get(f"/v1/bundles?{TOKEN}=1")
        served.client.get("/" + "a" * 5000)
        served.client.get("/health")
    nothing, method, host, picture, query, long, fine = map(json.loads, lines(caplog))
    assert nothing["path"] == "/v1/nothing ***" and nothing["error"].startswith("there is nothing at '/v1/nothing")
    assert method["path"] == "/health" and method["error"].endswith(", not 'DELETE'")
    assert host["path"] == "/v1/bundles" and "evil.example" in host["error"] and host["status"] == 403
    assert "path" not in picture and picture["error"].startswith("the picture: damaged or not a picture")
    assert "is not known here" in query["error"] and "***" in query["error"]
    assert len(long["path"]) == 200 and len(long["error"]) <= 400
    assert "error" not in fine and "path" not in fine
    everything = "\n".join(lines(caplog) + lines(caplog, TextLines()))
    assert TOKEN not in everything and len(everything.splitlines()) == 14


@pytest.mark.parametrize("token", ["a-token-of-tests", "quo'te\\s-and-signs", "x" * 20 + "0123456789" * 9])
def test_no_part_of_a_token_is_in_a_log_line(tmp_path, caplog, token):
    """Wherever a request puts it by mistake; long ones are cut in messages."""
    served = Served(tmp_path, token=token)
    with served.client as client, caplog.at_level(logging.INFO, logger="garnish"):
        client.get(f"/{quote(token, safe='')}")
        client.get(f"/v1/bundles/{quote(token, safe='')}")
        client.get("/v1/bundles", params={token: "1"})
        client.post("/v1/predict", data={token: "1"}, files={"image": FILE})
        client.delete(f"/v1/bundles/{quote(token, safe='')}", headers={"Authorization": f"Bearer {token[:-1]}"})
        client.post("/v1/predict", json={"image": token, token: 1})
    served.batcher.close()
    everything = "\n".join(lines(caplog) + lines(caplog, TextLines()))
    kept = json.dumps(token)[1:-1]
    assert token[:12] not in everything and kept[:12] not in everything and "***" in everything


def test_a_fault_is_in_the_log_with_its_traceback_on_one_line(served, caplog):
    import numpy as np

    content = png(np.full((32, 32, 3), 66, np.uint8))
    with caplog.at_level(logging.INFO, logger="garnish"):
        answer = served.client.post("/v1/predict", **{**ASK, "content": content})
    assert answer.status_code == 500
    told = [json.loads(line) for line in lines(caplog)]
    assert told[0]["level"] == "error" and "a fault in a pass" in told[0]["traceback"]
    assert told[0]["id"] == told[1]["id"] == answer.headers["x-request-id"]


def metric(text: str, name: str) -> float:
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def test_metrics_count_what_happened(served):
    before = served.client.get("/metrics").text
    for _ in range(3):
        served.client.post("/v1/predict", **ASK)
    served.client.post("/v1/predict", content=b"x")
    after = served.client.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=")
    assert metric(after.text, 'garnish_request_count_total{route="/v1/predict",status="200"}') == 3
    assert metric(after.text, 'garnish_request_count_total{route="/v1/predict",status="415"}') == 1
    for stage in ("decode", "queue", "forward", "encode"):
        assert metric(after.text, f'garnish_stage_duration_seconds_count{{stage="{stage}"}}') == 3
    rows = [metric(text, "garnish_batch_size_sum") for text in (before, after.text)]
    assert rows[1] - rows[0] == 3
    assert metric(after.text, 'garnish_bundles{state="known"}') == 2
    assert metric(after.text, "garnish_cache_hit_total") == 4 and metric(after.text, "garnish_queue_length") == 0


def test_files_of_the_page_are_one_route(served):
    for path in ("/", "/theme.css", "/serving.js", "/colours.json"):
        assert served.client.get(path).status_code == 200
    after = served.client.get("/metrics").text
    assert metric(after, 'garnish_request_count_total{route="/",status="200"}') == 1
    assert metric(after, 'garnish_request_count_total{route="page",status="200"}') == 3
    assert ".css" not in after and ".js" not in after


def test_no_number_of_routes_can_be_made_up(served):
    for path in ("/a", "/b", "/v1/bundles/x"):
        served.client.get(path)
    routes = set(re.findall(r'garnish_request_count_total{route="([^"]*)"', served.client.get("/metrics").text))
    assert routes <= {"other", "/v1/bundles/{name}", "/ready", "/metrics", "/health"}


def scope_of(**headers: str) -> dict:
    raw = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()
    ]
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/predict",
        "raw_path": b"/v1/predict", "query_string": b"bundle=street", "headers": raw, "scheme": "http",
        "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip


def test_a_client_that_goes_away_is_dropped_from_the_queue(served):
    """Two requests: the first runs, and the second, which waits, loses its client."""
    served.engine.gate.clear()
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    async def ask(gone: asyncio.Event):
        messages = iter([{"type": "http.request", "body": FILE, "more_body": False}])

        async def receive():
            for message in messages:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        await served.app(scope_of(content_type="image/png"), receive, send)

    async def both():
        never, gone = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(ask(never))
        while not served.batcher._running:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(gone))
        while not served.batcher.counts().queued:
            await asyncio.sleep(0.01)
        gone.set()
        await asyncio.sleep(0.05)
        served.engine.gate.set()
        await asyncio.gather(first, second)

    passes = len(served.engine.passes)
    asyncio.run(both())
    assert len(served.engine.passes) == passes + 1
    assert served.batcher.counts().dropped["gone"] == 1
    assert sorted(m["status"] for m in sent if m["type"] == "http.response.start") == [200, 499]


def test_a_body_that_comes_too_slowly_is_408(tmp_path):
    served = Served(tmp_path, body_seconds=0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(served.app(scope_of(content_type="image/png"), receive, send))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    served.batcher.close()


def test_a_server_that_stops_takes_nothing_new(served):
    served.app.state.parts.lifecycle.stopping = True
    right = {"Authorization": f"Bearer {TOKEN}"}
    for answer in (
        served.client.post("/v1/predict", **ASK),
        served.client.get("/ready"),
        served.client.delete("/v1/bundles/street", headers=right),
    ):
        assert answer.status_code == 503 and "stopping" in answer.json()["error"] and answer.headers["retry-after"]
    assert served.client.get("/health").status_code == 200


def test_it_is_ready_after_its_first_pass(tmp_path):
    served = Served(tmp_path)
    served.engine.gate.clear()
    with served.client as client:
        assert client.get("/ready").status_code == 503 and "warming up" in client.get("/ready").json()["error"]
        served.engine.gate.set()
        while client.get("/ready").status_code != 200:
            time.sleep(0.01)
        assert len(served.engine.passes) == 1
    served.batcher.close()


def documented(served) -> dict:
    return served.client.get("/openapi.json").json()


def test_openapi_is_valid_and_names_every_route(served):
    told = documented(served)
    check_document(told)
    routes = {(route.path, method) for route in served.app.routes for method in route.methods - {"HEAD"}}
    written = {(path, m.upper()) for path, of in told["paths"].items() for m in of if m in METHODS}
    assert written <= routes
    assert {path for path, _ in routes - written} <= {f"/{name}" for name in page_names()}


METHODS = ("get", "put", "post", "delete")


def check_document(told: dict) -> None:
    """What OpenAPI 3.1 asks of the objects that ours has (its sections 4.8.1 to 4.8.25)."""
    assert re.fullmatch(r"3\.1\.\d", told["openapi"]) and told["info"].keys() >= {"title", "version"}
    operations = {}
    for path, item in told["paths"].items():
        assert path.startswith("/") and item.keys() <= {*METHODS, "parameters"}
        for method in item.keys() & set(METHODS):
            operation = item[method]
            assert operations.setdefault(operation["operationId"], operation) is operation  # once
            parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
            assert all(one.keys() >= {"name", "in", "schema"} for one in parameters)
            in_path = {one["name"] for one in parameters if one["in"] == "path" and one["required"] is True}
            assert set(re.findall(r"{(\w+)}", path)) == in_path
            assert operation["responses"] and operation.keys() <= {
                "operationId", "summary", "parameters", "requestBody", "responses", "security",
            }  # fmt: skip
            for status, answer in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d", status) and answer["description"]
            contents = [one.get("content", {}) for one in operation["responses"].values()]
            for kind, media in [
                x for c in [operation.get("requestBody", {}).get("content", {}), *contents] for x in c.items()
            ]:
                assert re.fullmatch(r"[a-z*]+/[a-z*.+-]+", kind) and media.keys() <= {"schema", "examples"}
                assert all("value" in example for example in media.get("examples", {}).values())
            for needed in operation.get("security", []):
                assert needed.keys() <= told["components"]["securitySchemes"].keys()
    for name in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(told)):
        assert name in told["components"]["schemas"]


def page_names() -> set[str]:
    from garnish.serving.page_files import page_files

    return set(page_files())


def test_every_example_of_openapi_works(served):
    told, right = documented(served), {"Authorization": f"Bearer {TOKEN}"}
    tried = 0
    predict = told["paths"]["/v1/predict"]["post"]
    for kind, form in predict["requestBody"]["content"].items():
        for example in form.get("examples", {}).values():
            value = dict(example["value"])
            if kind == "application/json":
                answer = served.client.post("/v1/predict", json=value)
            else:
                assert value.pop("image") == "(a file)"
                answer = served.client.post("/v1/predict", files={"image": FILE}, data=value)
            assert answer.status_code == 200, answer.text
            tried += 1
    query = [(p["name"], str(v).lower()) for p in predict["parameters"] for v in listed(p["example"])]
    assert served.client.post("/v1/predict", **{**ASK, "params": query}).status_code == 200
    put = told["paths"]["/v1/bundles/{name}"]["put"]["requestBody"]["content"]
    for kind, form in put.items():
        for example in form["examples"].values():
            how = {"json": example["value"]}
            if kind == "multipart/form-data":
                how = {"files": {name: (served.folder / "street" / name).read_bytes() for name in example["value"]}}
            assert served.client.put("/v1/bundles/street", headers=right, **how).status_code == 200
            tried += 1
    assert tried == 4


def listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def check_value(value: object, schema: dict, schemas: dict) -> None:
    """The part of JSON Schema that the document uses."""
    if "$ref" in schema:
        return check_value(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "const" in schema:
        assert value == schema["const"]
    kinds = listed(schema.get("type", list(TYPES)))
    assert "type" not in schema or any(isinstance(value, TYPES[kind]) for kind in kinds), (value, schema)
    assert value >= schema["minimum"] if "minimum" in schema else True
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**6)
        for one in value:
            check_value(one, schema.get("items", {}), schemas)
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= value.keys(), (value, schema)
        known = schema.get("properties", {})
        for key, inner in value.items():
            assert key in known or "additionalProperties" in schema or not known, (key, schema)
            check_value(inner, known.get(key, schema.get("additionalProperties", {})), schemas)
    return None


def test_answers_are_as_openapi_describes_them(served):
    schemas = documented(served)["components"]["schemas"]
    coded = served.client.post(
        "/v1/predict", json={"image": base64.b64encode(FILE).decode(), "bundle": ["street"], "confidence": True}
    )
    for name, answer in (
        ("Answer", coded),
        ("Listed", served.client.get("/v1/bundles")),
        ("Bundle", served.client.get("/v1/bundles/street")),
        ("Ready", served.client.get("/ready")),
        ("Error", served.client.get("/nothing")),
    ):
        check_value(answer.json(), schemas[name], schemas)
    with pytest.raises(AssertionError):
        check_value({**coded.json(), "picture": {"width": 0, "height": 1}}, schemas["Answer"], schemas)
