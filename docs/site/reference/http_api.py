"""Every route of the HTTP service, from its OpenAPI description."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import WebSocketRoute

from perception.server.app import ROUTERS, create_app
from perception.server.settings import ServerSettings
from reference.markdown import attributes, plain, table

METHODS = ("get", "put", "post", "patch", "delete")


@cache
def openapi() -> dict[str, Any]:
    """What `/openapi.json` of the service answers, with default settings."""
    with tempfile.TemporaryDirectory() as folder:
        return dict(create_app(ServerSettings(data_dir=Path(folder))).openapi())


def http_api() -> str:
    """All routes, as sections of a page, and then the objects that they take and give."""
    described = openapi()
    routes = [route for module in ROUTERS for route in module.router.routes]
    plain_routes = [route for route in routes if isinstance(route, APIRoute)]
    endpoints = {(route.path, method): route.endpoint for route in plain_routes for method in route.methods}
    parts = []
    for path, methods in described["paths"].items():
        for method in METHODS:
            if method in methods:
                meanings = _meanings(endpoints[path, method.upper()])
                parts += [f"### {method.upper()} {path}\n", *_operation(methods[method], meanings)]
    for route in routes:
        if isinstance(route, WebSocketRoute):
            parts += [f"### WebSocket {route.path}\n", *_socket(inspect.getdoc(route.endpoint) or "")]
    parts.append("## Objects\n")
    for name, schema in sorted(described["components"]["schemas"].items()):
        about = schema.get("description", "")
        meanings = attributes(about)
        parts += [f"### {name}\n", f"{plain(about.partition('Attributes:')[0])}\n"]
        rows = [
            (f"`{key}`", _kind(part), _default(part, key, schema), plain(meanings.get(key, "")))
            for key, part in schema.get("properties", {}).items()
        ]
        if rows:
            parts.append(table(("field", "value", "default", "meaning"), rows))
    return "\n".join(parts)


def _socket(text: str) -> Iterator[str]:
    """What a socket is for, and the docstring of the module that it names: what is said on it."""
    module = re.search(r"`(perception\.[\w.]+)`", text)
    yield f"{plain(text.partition(';')[0])}.\n"
    if module is not None:
        yield f"```text\n{inspect.cleandoc(import_module(module[1]).__doc__ or '')}\n```\n"


def _meanings(endpoint: Callable[..., Any]) -> dict[str, str]:
    """What the docstrings of the models that a route takes say of their fields."""
    found: dict[str, str] = {}
    for kind in get_type_hints(endpoint).values():
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for owner in reversed(kind.__mro__):
                found |= attributes(inspect.cleandoc(owner.__doc__ or ""))
    return found


def _operation(described: dict[str, Any], meanings: dict[str, str]) -> Iterator[str]:
    yield f"*{plain(described.get('summary', ''))}.*\n"
    if described.get("description"):
        yield f"{described['description']}\n"
    rows = []
    for part in described.get("parameters", []):
        default = "needed" if part.get("required") else _default(part["schema"])
        rows.append(
            (f"`{part['name']}`", part["in"], _kind(part["schema"]), default, plain(meanings.get(part["name"], "")))
        )
    if rows:
        yield table(("parameter", "in", "value", "default", "meaning"), rows)
    bodies = described.get("requestBody", {}).get("content", {})
    if bodies:
        yield f"Body: {', '.join(f'`{kind}`{_reference(content)}' for kind, content in bodies.items())}.\n"
    answers = []
    for status, answer in described["responses"].items():
        kinds = [f"`{kind}`{_reference(content)}" for kind, content in answer.get("content", {}).items()]
        answers.append((status, ", ".join(kinds), plain(answer.get("description", ""))))
    yield table(("status", "answer", ""), answers)


def _reference(content: dict[str, Any]) -> str:
    kind = _kind(content.get("schema", {}))
    return f" ({kind})" if kind.startswith(("[", "list: [")) else ""


def _default(schema: dict[str, Any], key: str = "", owner: dict[str, Any] | None = None) -> str:
    if owner is not None and key in owner.get("required", ()):
        return "needed"
    default = schema.get("default")
    if default is None or default in ([], {}):
        return ""
    return f"`{json.dumps(default) if isinstance(default, bool) else default}`"


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        return " or ".join(dict.fromkeys(_kind(part) for part in several))
    if schema.get("type") == "array":
        return f"list: {_kind(schema['items'])}" if "items" in schema else "list"
    signs = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return ", ".join([schema.get("format", schema.get("type", "anything")), *bounds])
