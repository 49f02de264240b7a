"""``/openapi.json``: every route with its forms, answers and an example of each (OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from garnish import __version__
from garnish.checking.plain_data import Json
from garnish.serving.settings import ServerSettings

#: A picture of 8x8 pixels, so that the example can be sent as it stands.
EXAMPLE_PICTURE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAJUlEQVR42mM8ISfHAANhq+BMBiYGHIB0CUY5uRNwjo3NJFrYAQBGvgQh0RJA"
    "1gAAAABJRU5ErkJggg=="
)
_STATUSES: Mapping[str, str] = {
    "400": "The request cannot be read.",
    "401": "The token is missing or another.",
    "403": "Another site's page, another name of the server, or changes that it does not allow.",
    "404": "No such bundle.",
    "406": "No accepted type can hold the answer.",
    "408": "The body came too slowly.",
    "413": "Too many bytes, pixels or fields.",
    "415": "A body of another type.",
    "422": "A picture, an option or a bundle that does not fit.",
    "503": "The queue is full, the deadline passed, or the server starts or stops; ask again after Retry-After.",
    "507": "No space for the bundle.",
}
_BINARY: Json = {"type": "string", "format": "binary"}
_NAMES: Json = {"type": "array", "items": {"type": "string"}}
_ONE_OR_MORE: Json = {"oneOf": [{"type": "string"}, _NAMES]}


def openapi(settings: ServerSettings) -> dict[str, Json]:
    """The whole document; bounds are those of the server."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "garnish",
            "version": __version__,
            "description": "Dense maps of pictures, from many bundles on one trunk."
            f" Bodies have at most {settings.body_bytes:,} bytes; a request has {settings.deadline:g} s.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/predict": {"post": _predict()},
            "/v1/bundles": {
                "get": _operation("listBundles", "Names of all bundles, and the trunk.", _answer("Listed"), ())
            },
            "/v1/bundles/{name}": {
                "parameters": [_NAME],
                "get": _operation("aboutBundle", "Facts of one bundle.", _answer("Bundle"), ("404",)),
                "put": _put(),
                "delete": {
                    **_operation("removeBundle", "Forget a bundle.", {}, ("401", "403", "404")),
                    "security": [{"token": []}],
                },
            },
            "/health": {"get": _operation("isAlive", "Whether the process answers.", _answer("Alive"), ())},
            "/ready": {"get": _operation("isReady", "Whether requests are taken.", _answer("Ready"), ("503",))},
            "/metrics": {"get": _operation("metrics", "Counts for Prometheus.", _text("text/plain"), ())},
            "/openapi.json": {
                "get": _operation("openapi", "This document.", {"application/json": {"schema": {"type": "object"}}}, ())
            },
            "/": {"get": _operation("page", "The page: pictures in, maps under one cursor.", _text("text/html"), ())},
        },
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _predict() -> dict[str, Json]:
    asked: dict[str, Json] = {
        "bundle": {**_ONE_OR_MORE, "description": "Names; may be left out where one bundle is served."},
        "tasks": {
            **_ONE_OR_MORE,
            "description": "seg: of every bundle that has it, others are left out; street/seg: of one. Default: all.",
        },
        "confidence": {"type": "boolean", "default": False, "description": "Of classes also the chosen one's."},
    }
    form = {"type": "object", "required": ["image"], "properties": {"image": _BINARY} | asked}
    coded = {"type": "string", "contentEncoding": "base64"}
    body: dict[str, Json] = {
        "multipart/form-data": {
            "schema": form,
            "examples": {
                "several": {
                    "summary": "Two bundles, and only what they know of depth and seg.",
                    "value": {"image": "(a file)", "bundle": ["street", "cracks"], "tasks": ["seg", "street/depth"]},
                }
            },
        },
        "application/json": {
            "schema": {**form, "additionalProperties": False, "properties": {"image": coded} | asked},
            "examples": {
                "base64": {
                    "summary": "The picture inside.",
                    "value": {"image": EXAMPLE_PICTURE, "bundle": "street", "confidence": True},
                }
            },
        },
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    }
    query = [
        {
            "name": name,
            "in": "query",
            "schema": schema,
            "description": "Where the picture is the body.",
            "example": value,
        }
        for name, schema, value in (
            ("bundle", _NAMES, ["street"]),
            ("tasks", _NAMES, ["seg"]),
            ("confidence", {"type": "boolean"}, True),
        )
    ]
    answers = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
        "multipart/mixed": {"schema": _BINARY},
        "application/x-npz": {"schema": _BINARY},
        "image/png": {"schema": _BINARY},
        "image/tiff": {"schema": _BINARY},
    }
    refusals = ("400", "403", "404", "406", "408", "413", "415", "422", "503")
    made = _operation("predict", "All maps of one picture, in one pass of the trunk.", answers, refusals)
    return {**made, "parameters": query, "requestBody": {"required": True, "content": body}}


def _put() -> dict[str, Json]:
    parts = ("bundle.json", "weights.safetensors")
    form: dict[str, Json] = {"type": "object", "required": list(parts), "properties": dict.fromkeys(parts, _BINARY)}
    folder: dict[str, Json] = {
        "type": "object",
        "required": ["from"],
        "additionalProperties": False,
        "properties": {"from": {"type": "string", "description": "A folder directly below --bundles."}},
    }
    body = {
        "multipart/form-data": {
            "schema": form,
            "examples": {"upload": {"value": dict.fromkeys(parts, "(a file)")}},
        },
        "application/json": {"schema": folder, "examples": {"folder": {"value": {"from": "cracks"}}}},
    }
    refusals = ("400", "401", "403", "408", "413", "415", "422", "503", "507")
    made = _operation("putBundle", "Add a bundle, or replace one.", _answer("Bundle"), refusals)
    made["responses"]["201"] = {"description": "It is new.", "content": _answer("Bundle")}
    return {**made, "security": [{"token": []}], "requestBody": {"required": True, "content": body}}


def _operation(name: str, summary: str, content: Json, refusals: tuple[str, ...]) -> dict[str, Json]:
    done: dict[str, Json] = (
        {"200": {"description": "Done.", "content": content}} if content else {"204": {"description": "Done."}}
    )
    errors = {status: {"description": _STATUSES[status], "content": _answer("Error")} for status in ("403", *refusals)}
    return {"operationId": name, "summary": summary, "responses": done | errors}


def _answer(schema: str) -> dict[str, Json]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _text(media_type: str) -> dict[str, Json]:
    return {media_type: {"schema": {"type": "string"}}}


def _object(required: Mapping[str, Json], others: Mapping[str, Json] | None = None) -> dict[str, Json]:
    return {"type": "object", "required": list(required), "properties": {**required, **(others or {})}}


_NAME: Json = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "example": "street"}
_PIXELS: Json = {"type": "integer", "minimum": 1}
_SCALE: Json = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 2,
    "maxItems": 2,
    "description": "(factor, offset): a number of the file · factor + offset is the value.",
}
_FILE: dict[str, Json] = {
    "media_type": {"type": "string"},
    "data": {"type": "string", "contentEncoding": "base64", "description": "The file, in JSON alone."},
    "scale": _SCALE,
}
_MAP: dict[str, Json] = {
    "classes": _NAMES,
    "palette": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    "unit": {"type": "string", "examples": ["m"]},
    "axes": {**_NAMES, "examples": [["right", "down", "forward"]]},
    "nothing": {"type": ["number", "string"], "description": "What means that nothing is known; nan as text."},
    **_FILE,
    "confidence": _object({}, _FILE),
}
_SCHEMAS: Json = {
    "Answer": _object(
        {
            "picture": _object({"width": _PIXELS, "height": _PIXELS}),
            "bundles": {
                "type": "object",
                "description": "Bundle, then task.",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/components/schemas/Map"},
                },
            },
            "timings": {
                "type": "object",
                "description": "Milliseconds of decode, queue, forward and encode.",
                "additionalProperties": {"type": "number"},
            },
        }
    ),
    "Map": _object(
        {
            "task": {"type": "string", "description": "Its kind.", "examples": ["Semantic"]},
            "decoding": _object({"name": {"type": "string"}, "options": {"type": "object"}}),
            "width": _PIXELS,
            "height": _PIXELS,
        },
        _MAP,
    ),
    "Bundle": {"type": "object", "description": "Tasks, bands, bytes, digest, whether it is in memory, and more."},
    "Listed": _object({"trunk": {"type": "object"}, "bundles": _NAMES}),
    "Alive": _object({"alive": {"const": True}}),
    "Ready": _object({"ready": {"const": True}}),
    "Error": _object({"error": {"type": "string", "description": "One line: what, and what to do."}}),
}
