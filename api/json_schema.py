"""Which JSON schemas are taken: what they may hold and how large they may be; llguidance knows what they mean."""

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from shared.errors import InvalidRequest

MAX_SCHEMA_BYTES = 64 * 2**10
MAX_SCHEMA_DEPTH = 32
"""Schemas within schemas, and values within values."""
MAX_SCHEMA_NODES = 4096
"""Schemas, and values of `enum` and `const`, in all."""
MAX_PROPERTIES = 256
"""Of one object: optional ones are as many ways to go on at each of them."""
MAX_MULTIPLE = 1000
"""Largest `multipleOf`, its digits read as a whole number: each remainder is a state."""
MAX_COMMON_MULTIPLE = 10_000
"""Of all of them, as if each applied to the same number: where they do, their states multiply."""
MAX_NAME_LENGTH = 40
"""Of a key in a message."""

_ONE = frozenset({"items", "additionalItems", "additionalProperties"})
_SEVERAL = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_VALUES = frozenset({"enum", "const"})
_PLAIN = frozenset(
    {
        *("$ref", "type", "required", "format", "pattern", "minLength", "maxLength", "multipleOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minItems", "maxItems", "minProperties", "maxProperties"),
    }
)
_REMARKS = frozenset(
    {
        *("$schema", "$comment", "title", "description", "default", "examples"),
        *("deprecated", "readOnly", "writeOnly", "discriminator"),
    }
)
"""Say nothing about what matches."""
SUPPORTED = _ONE | _SEVERAL | _NAMED | _VALUES | _PLAIN | _REMARKS


class _Node(NamedTuple):
    """A schema or a value, and where it stands."""

    where: str
    content: Any
    depth: int
    is_value: bool = False


def check_schema(schema: Mapping[str, Any], param: str) -> None:
    """Raise InvalidRequest for a schema that is too large, or has a keyword that would not be honoured."""
    if (size := len(json.dumps(schema, ensure_ascii=False).encode())) > MAX_SCHEMA_BYTES:
        raise _too_much(param, f"has {size} bytes", f"{MAX_SCHEMA_BYTES} are accepted", "leave out descriptions")
    waiting = [_Node("", schema, 1)]
    num_nodes, common_multiple = 0, 1
    while waiting:
        node = waiting.pop()
        num_nodes += 1
        if num_nodes > MAX_SCHEMA_NODES:
            raise _too_much(param, "is too large", f"{MAX_SCHEMA_NODES} schemas and values are accepted", "shorten it")
        if node.depth > MAX_SCHEMA_DEPTH:
            raise _too_much(param, "is too deep", f"{MAX_SCHEMA_DEPTH} levels are accepted", "use $ref")
        if node.is_value:
            waiting += (_Node(node.where, value, node.depth + 1, is_value=True) for value in _parts(node.content))
        elif isinstance(node.content, dict):
            _check_keywords(node.where, node.content, param)
            common_multiple = math.lcm(common_multiple, _multiple(node.content))
            waiting += _below(node.where, node.content, node.depth + 1)
    if common_multiple > MAX_COMMON_MULTIPLE:
        found = "has values of multipleOf that have little in common"
        raise _too_much(
            param, found, f"a common multiple of {MAX_COMMON_MULTIPLE} is accepted", "choose rounder numbers"
        )


def _below(where: str, schema: dict[str, Any], depth: int) -> Iterator[_Node]:
    for name, value in schema.items():
        here = f"{where}/{name}"
        if name in _NAMED and isinstance(value, dict):
            yield from (_Node(f"{here}/{key[:MAX_NAME_LENGTH]}", part, depth) for key, part in value.items())
        elif (name in _SEVERAL or name in _ONE) and isinstance(value, list):
            yield from (_Node(f"{here}/{index}", part, depth) for index, part in enumerate(value))
        elif name in _ONE or name in _VALUES:
            yield _Node(here, value, depth, is_value=name in _VALUES)


def _parts(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            yield from value.values()
        case list():
            yield from value


def _check_keywords(where: str, node: dict[str, Any], param: str) -> None:
    if unknown := sorted(node.keys() - SUPPORTED):
        keyword = f"{unknown[0][:MAX_NAME_LENGTH]!r} at {where[:200] or '/'}"
        raise InvalidRequest(
            f"{param} has the keyword {keyword}, which this server doesn't honour; "
            "leave it out and check it in the answer.",
            param=param,
        )
    _check_counts(where, node, param)


def _check_counts(where: str, node: dict[str, Any], param: str) -> None:
    if isinstance(named := node.get("properties"), dict) and len(named) > MAX_PROPERTIES:
        found = f"has {len(named)} properties at {where[:200] or '/'}"
        raise _too_much(param, found, f"{MAX_PROPERTIES} are accepted", "nest them")
    if _multiple(node) > MAX_MULTIPLE:
        found = f"has multipleOf {node['multipleOf']:g}"
        raise _too_much(param, found, f"the digits {MAX_MULTIPLE} are accepted", "choose a rounder number")


def _multiple(node: dict[str, Any]) -> int:
    """The digits of what a number must be a multiple of; 1 if of nothing, or of what llguidance refuses."""
    multiple = node.get("multipleOf")
    if not isinstance(multiple, int | float) or isinstance(multiple, bool):
        return 1
    return max(_digits(multiple), 1)


def _digits(number: float) -> int:
    """0.25 → 25, 300 → 300."""
    _, digits, exponent = Decimal(str(number)).as_tuple()
    whole = int("".join(map(str, digits)) or "0")
    return whole * 10 ** min(exponent, 9) if isinstance(exponent, int) and exponent > 0 else whole


def _too_much(param: str, found: str, limit: str, way_out: str) -> InvalidRequest:
    return InvalidRequest(f"{param} {found}; at most {limit}: {way_out}.", param=param)
