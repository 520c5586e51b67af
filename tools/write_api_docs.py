"""`python -m tools.write_api_docs`: docs/api.md, written from the routes and schemas as they are mounted."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from api.app import create_app
from api.departure import Departure
from api.document import body_models
from api.page import words_of
from api.settings import ApiSettings

PATH = Path(__file__).parent.parent / "docs" / "api.md"
_HEAD = """# API

Every route of the gateway, every field it takes and what it answers, written from the code by
`python -m tools.write_api_docs`. A field is honoured, or refused with a 400 whose `error.param` names it; so is a field
that stands in no table here. `null` is the same as leaving a field out. [sampling.md](sampling.md) says how tokens are
chosen, [models.md](models.md) what each family makes of a prompt, [operations.md](operations.md) what the limits are.
"""
_NEUTRAL = {"Refused": ("NEUTRAL_FIELDS", "REQUEST_FIELDS"), "Refused in a message": ("MESSAGE_FIELDS",)}
"""What the module of a request's schema calls its fields that can't be honoured."""
Document = Mapping[str, Any]


def write() -> str:
    """Return the page."""
    document: Document = create_app(ApiSettings(), "docs", Departure()).openapi()
    routes = [
        (f"{method.upper()} {path}", operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    lines = [_HEAD, *_table(("route", "what it does"), [(f"[`{n}`](#{_anchor(n)})", o["summary"]) for n, o in routes])]
    for name, operation in routes:
        lines += ["", *_route(name, operation, document)]
    lines += ["", "## Parts", "", "What the fields above consist of.", *_parts(document)]
    return "\n".join(lines) + "\n"


def _route(name: str, operation: Mapping[str, Any], document: Document) -> Iterator[str]:
    yield from (f"## {name}", "", f"{operation['summary']}. {' '.join(operation.get('description', '').split())}")
    if parameters := operation.get("parameters"):
        rows = [(f"`{p['name']}`", f"{p['in']}, {words_of(p['schema'])}") for p in parameters]
        yield from ("", *_table(("parameter", "where and what"), rows))
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        yield from _body(_name_of(content["schema"]), document)
    if answered := _names(operation["responses"].get("200", {})):
        yield from ("", f"Answers {', '.join(map(_linked, answered))}.")


def _body(name: str, document: Document) -> Iterator[str]:
    yield from ("", *_fields(document["components"]["schemas"][name]))
    for what, constants in _NEUTRAL.items():
        if refused := _refused_by(name, constants):
            yield from ("", f"{what}, unless it asks for nothing:", "", *_table(("field", "accepted"), _shown(refused)))


def _shown(refused: Mapping[str, Sequence[object]]) -> list[tuple[str, str]]:
    return [(f"`{name}`", ", ".join(f"`{json.dumps(v)}`" for v in values) or "-") for name, values in refused.items()]


def _fields(schema: Mapping[str, Any]) -> list[str]:
    needed = schema.get("required", ())
    rows = [
        (f"`{field}`" + (" (needed)" if field in needed else ""), _cell(words_of(about)), about.get("description", ""))
        for field, about in schema.get("properties", {}).items()
    ]
    return _table(("field", "values", "what it does"), rows)


def _refused_by(name: str, constants: Sequence[str]) -> Mapping[str, Sequence[object]]:
    """Return the fields that a schema's module refuses, and the values that ask for nothing."""
    model = next(model for model in body_models() if model.__name__ == name)
    known = vars(sys.modules[model.__module__])
    found: Mapping[str, Sequence[object]] = next((known[constant] for constant in constants if constant in known), {})
    return found


def _parts(document: Document) -> Iterator[str]:
    bodies = {model.__name__ for model in body_models()}
    for name, schema in sorted(document["components"]["schemas"].items()):
        if name not in bodies and "properties" in schema:
            yield from ("", f"### {name}", "", " ".join(schema.get("description", "").split()), "", *_fields(schema))


def _names(node: Any) -> list[str]:
    """Return the schemas that a part of the document refers to."""
    if isinstance(node, dict):
        own = [_name_of(node)] if "$ref" in node else []
        return own + [name for value in node.values() for name in _names(value)]
    return [name for value in node for name in _names(value)] if isinstance(node, list) else []


def _name_of(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _linked(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(title: str) -> str:
    """GitHub's: lower case, blanks as dashes, signs dropped."""
    return "".join("-" if c == " " else c for c in title.lower() if c.isalnum() or c in " -_")


def main() -> None:
    """Write the page."""
    PATH.write_text(write(), encoding="utf-8")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
