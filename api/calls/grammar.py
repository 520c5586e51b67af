"""Grammars of answers that must call, or whose calls must be right: the envelope of each format around the schemas.

White space in the envelope is what the prompt shows; in the arguments it is any that JSON may have within reason.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.calls.hermes import BEGIN, END
from api.calls.react import ACTION, INPUT
from api.grammar import lark_grammar, literal
from api.json_schema import check_schema
from api.structure import Wish
from api.tools import Offer, Toolbox
from shared.errors import InvalidRequest
from shared.tools import ToolFormat

MAX_FORCED_CALLS = 16
"""Calls in an answer that must call: a model that may go on for ever might."""
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def bound(wish: Wish | None, toolbox: Toolbox) -> Wish | None:
    """Return what the answer must match, with the tools in mind; raises InvalidRequest for a wish beside tools."""
    if wish is not None and toolbox.offers:
        raise InvalidRequest(
            f"{wish.param} can't be honoured beside tools, whose calls don't match it; send one of them, "
            "or tool_choice 'none'.",
            param=wish.param,
        )
    return Wish("tools", lambda param: calls_grammar(toolbox)) if toolbox.is_bound else wish


def calls_grammar(toolbox: Toolbox) -> str:
    """Return what an answer must match; raises InvalidRequest for a schema that can't be followed."""
    schemas = {f"given_{i}": _schema(offer, toolbox) for i, offer in enumerate(toolbox.offers)}
    for offer, schema in zip(toolbox.offers, schemas.values(), strict=True):
        check_schema(schema, offer.param)
    assert toolbox.calling is not None
    rules = _RULES[toolbox.calling.format](toolbox)
    return lark_grammar("\n".join(rules), schemas, "tools")


def _schema(offer: Offer, toolbox: Toolbox) -> Mapping[str, Any]:
    """Return what a call's arguments are bound to: nothing, unless the call is forced or the function strict."""
    if not (toolbox.must_call or offer.function.strict):
        return ANY_OBJECT
    return offer.function.parameters or NO_ARGUMENTS


def _hermes(toolbox: Toolbox) -> Sequence[str]:
    heads = [f'\n{{"name": {json.dumps(offer.function.name)}, "arguments": ' for offer in toolbox.offers]
    call = _call(heads, "}\n" + END)
    if toolbox.must_call:
        more = f" ({literal(chr(10) + BEGIN)} call){{0,{MAX_FORCED_CALLS - 1}}}" if toolbox.is_parallel else ""
        return [f"start: {literal(BEGIN)} call{more}", call]
    begun, rest = f"(?s:.*){BEGIN}", f"(?s:.*){BEGIN}(?s:.*)"
    return [*_start(is_parallel=toolbox.is_parallel), *_words(begun, rest), call]


def _react(toolbox: Toolbox) -> Sequence[str]:
    call = _call([f" {offer.function.name}\n{INPUT} " for offer in toolbox.offers], "")
    if toolbox.must_call:
        return [f"start: {literal(ACTION)} call", call]
    begun, rest = f"((?s:.*)\\n)?{ACTION}", f"((?s:.*)\\n)?{ACTION}(?s:.*)"
    return [*_start(is_parallel=False), *_words(begun, rest), call]


_RULES: Mapping[ToolFormat, Callable[[Toolbox], Sequence[str]]] = {ToolFormat.HERMES: _hermes, ToolFormat.REACT: _react}


def _call(heads: Sequence[str], tail: str) -> str:
    end = f" {literal(tail)}" if tail else ""
    return "call: " + " | ".join(f"{literal(head)} given_{i}{end}" for i, head in enumerate(heads))


def _start(*, is_parallel: bool) -> Sequence[str]:
    return ["start: (begun call)* rest"] if is_parallel else ["start: begun call | rest"]


def _words(begun: str, rest: str) -> Sequence[str]:
    """What stands before a call, its mark included, and what stands behind the last one."""
    return [f"begun[lazy]: /{begun}/", "rest: REST", f"REST: /(?s:.*)/ & ~/{rest}/"]
