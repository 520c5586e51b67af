"""Grammars of answers that must call, or whose calls must be right: the envelope of each format around the schemas.

White space in the envelope is what the prompt shows; in the arguments it is any that JSON may have within reason.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.calls.hermes import BEGIN, END
from api.calls.llama3 import SEPARATOR, TAG
from api.calls.mistral import ARGS, MARK
from api.calls.react import ACTION, INPUT
from api.grammar import lark_grammar, literal
from api.json_schema import check_schema
from api.structure import Wish
from api.tools import Offer, Toolbox
from shared.errors import InvalidRequest
from shared.tools import MISTRAL_ID_LENGTH, ToolFormat

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
    heads = [f'\n{{"name": {json.dumps(name)}, "arguments": ' for name in _names(toolbox)]
    call = f"call: {_any(heads, '}' + chr(10) + END)}"
    if toolbox.must_call:
        return [f"start: {literal(BEGIN)} call{_more(toolbox, chr(10) + BEGIN, 'call')}", call]
    return [*_start(is_parallel=toolbox.is_parallel), *_words(BEGIN), call]


def _react(toolbox: Toolbox) -> Sequence[str]:
    call = f"call: {_any([f' {name}{chr(10)}{INPUT} ' for name in _names(toolbox)])}"
    if toolbox.must_call:
        return [f"start: {literal(ACTION)} call", call]
    return [*_start(is_parallel=False), *_words(ACTION, before=r"((?s:.*)\n)?"), call]


def _llama3(toolbox: Toolbox) -> Sequence[str]:
    """Write calls without a tag; what may be words instead begins with no brace, which is where a call would begin."""
    heads = [f'{{"name": {json.dumps(name)}, "parameters": ' for name in _names(toolbox)]
    call, more = f"call: {_any(heads, '}')}", _more(toolbox, f"{SEPARATOR} ", "call")
    if toolbox.must_call:
        return [f"start: call{more}", call]
    words = _words(re.escape(TAG), before=r"\s*([^\s{](?s:.*))?", but=r"\s*\{(?s:.*)")
    return [f"start: begun? call{more} | rest", *words, call]


def _mistral(toolbox: Toolbox) -> Sequence[str]:
    """Write both forms: a model takes the one it was trained on."""
    heads = [f'{{"name": {json.dumps(name)}, "arguments": ' for name in _names(toolbox)]
    calls = [
        rf"list: /\x20?\[/ call{_more(toolbox, ', ', 'call')} {literal(']')}",
        f"call: {_any(heads, '}', 'id?')}",
        rf'id: /,\x20"id":\x20"[a-zA-Z0-9]{{{MISTRAL_ID_LENGTH}}}"/',
        f"named: {_any([name + ARGS for name in _names(toolbox)])}",
    ]
    if toolbox.must_call:
        return [f"start: {literal(MARK)} (list | named{_more(toolbox, MARK, 'named')})", *calls]
    return [*_start(is_parallel=toolbox.is_parallel, call="(list | named)"), *_words(re.escape(MARK)), *calls]


_RULES: Mapping[ToolFormat, Callable[[Toolbox], Sequence[str]]] = {
    ToolFormat.HERMES: _hermes,
    ToolFormat.REACT: _react,
    ToolFormat.LLAMA3_JSON: _llama3,
    ToolFormat.MISTRAL: _mistral,
}


def _names(toolbox: Toolbox) -> Sequence[str]:
    return [offer.function.name for offer in toolbox.offers]


def _any(heads: Sequence[str], tail: str = "", before_tail: str = "") -> str:
    """A call of any of the functions: what stands before the arguments of each, and what stands behind them."""
    end = f" {before_tail} {literal(tail)}" if tail else ""
    return " | ".join(f"{literal(head)} given_{i}{end}" for i, head in enumerate(heads))


def _more(toolbox: Toolbox, separator: str, rule: str) -> str:
    """What may follow a call that was forced."""
    return f" ({literal(separator)} {rule}){{0,{MAX_FORCED_CALLS - 1}}}" if toolbox.is_parallel else ""


def _start(*, is_parallel: bool, call: str = "call") -> Sequence[str]:
    return [f"start: (begun {call})* rest"] if is_parallel else [f"start: begun {call} | rest"]


def _words(mark: str, *, before: str = "(?s:.*)", but: str = "") -> Sequence[str]:
    """What stands before a call, its mark included, and what stands behind the last one; `but` isn't that either."""
    never = f"{before}{mark}(?s:.*)" + (f"|{but}" if but else "")
    return [f"begun[lazy]: /{before}{mark}/", "rest: REST", f"REST: /(?s:.*)/ & ~/{never}/"]
