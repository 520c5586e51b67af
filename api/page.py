"""GET /docs: the OpenAPI document for people to read, in one page without scripts."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}
"""The page needs nothing from anywhere, and gets nothing."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
section { border-top: 1px solid #d5dde5; margin-top: 2rem; padding-top: 1rem }
h2 { font-size: 1.15rem; margin: 0 } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f6f9; border-radius: 4px }
code { padding: .1em .3em } pre { padding: .8rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #eef2f5 }
@media (prefers-color-scheme: dark) {
  body { background: #11181f; color: #dde6ee } code, pre { background: #1c2630 }
  section, td, th { border-color: #2b3844 } a { color: #8cc4ff }
}
"""


def render(document: Mapping[str, Any]) -> str:
    """Return the document as HTML."""
    info = document["info"]
    routes = "".join(
        "".join(_route(method.upper(), path, operation, document))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_prose(info['description'])}</p>"
        f'<p>For tools: <a href="openapi.json">openapi.json</a>.</p>{routes}</body></html>'
    )


def _route(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2><code>{method} {escape(path)}</code></h2>"
    yield f"<p><b>{escape(operation['summary'])}.</b> {_prose(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        rows = [(p["name"], words_of(p["schema"]), p.get("description", "")) for p in parameters]
        yield _table("Parameters", rows)
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        schema = _resolve(content["schema"], document)
        yield _table("Body", [(n, words_of(p), p.get("description", "")) for n, p in schema["properties"].items()])
        yield f"<h3>Example</h3><pre>{escape(json.dumps(content['example'], indent=2, ensure_ascii=False))}</pre>"
    yield _table("Answers", [(status, "", r.get("description", "")) for status, r in operation["responses"].items()])
    yield "</section>"


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{_prose(about)}</td></tr>"
        for name, kind, about in rows
    )
    return f"<h3>{title}</h3><table>{lines}</table>"


def words_of(schema: Mapping[str, Any]) -> str:
    """Return a schema's shape in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(kind for part in schema["anyOf"] if (kind := words_of(part)) != "null")
    if schema.get("type") == "array":
        return f"list of {words_of(schema.get('items', {}))}"
    bounds = [f"{sign} {schema[key]}" for key, sign in _BOUNDS.items() if abs(schema.get(key, 2**31)) < 2**31 - 1]
    return " ".join([str(schema.get("type", "any")), *bounds])


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "maxLength": "up to"}


def _resolve(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema["$ref"]).rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"][name]
    return found


def _prose(text: str) -> str:
    """Escape a text; what stands between backticks is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
