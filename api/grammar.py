"""Writes the grammars that answers have to match; nothing else in the gateway knows their syntax.

Each function checks what it was given, then lets llguidance try it within limits; it takes some ms, so it belongs into
a thread. All of them raise InvalidRequest that names `param`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from api.json_schema import check_schema
from shared.errors import InvalidRequest
from shared.grammar import GRAMMAR_LIMITS

WHITE_SPACE = r"\x20|\n\x20{0,16}"
"""Between the parts of JSON: nothing, one blank, or a line break and up to 16 blanks."""
MAX_GRAMMAR_BYTES = 256 * 2**10
MAX_SOURCE_BYTES = 16 * 2**10
"""Of a grammar that a client wrote."""
MAX_REGEX_LENGTH = 4096
MAX_CHOICES = 1024
MAX_CHOICES_LENGTH = 32 * 2**10
"""Of all choices together."""
MAX_REASON_LENGTH = 300

_PREAMBLE = '%llguidance {"no_forcing": true}\n'
"""Text that can't be otherwise is chosen token by token like any other: its tokens are the model's own choice."""
_NOTHING_MATCHES = "NoExtensionBias"
_LIMITS = LLParserLimits(**GRAMMAR_LIMITS)
_NOISE = re.compile(r"^(at )?\d+\(\d+\): (failed to compile JSON schema: )?")
_QUOTED = re.compile(r'(?://|#)[^\n]*|"(?:\\.|[^"\\\n])*+"?|/(?:\\.|[^/\\\n])*+/?')
"""Comments, strings and expressions, closed or not: so each character is looked at once."""
_OPTION = re.compile(r"\b(?:temperature|max_tokens|stop)\s*=|%(?!ignore\b|import\b)\w+")
"""What would have no effect, or let schemas in that nobody looked at."""


def json_grammar(schema: Mapping[str, Any], param: str) -> str:
    """Return the grammar of the JSON values that a schema describes."""
    return lark_grammar("start: value", {"value": schema}, param)


def object_grammar() -> str:
    """Return the grammar of all JSON objects."""
    return _PREAMBLE + _written("start: value", {"value": {"type": "object"}})


def regex_grammar(regex: str, param: str) -> str:
    """Return the grammar of the texts that a regular expression of Rust's syntax matches from end to end."""
    if len(regex) > MAX_REGEX_LENGTH:
        raise InvalidRequest(
            f"{param} has {len(regex)} characters; at most {MAX_REGEX_LENGTH} are accepted: shorten it.", param=param
        )
    if (len(regex) - len(regex.rstrip("\\"))) % 2:
        raise InvalidRequest(f"{param} ends in a lone backslash; leave it out or escape it.", param=param)
    return _checked(f"start: /{regex_to_lark(regex)}/", param)


def choice_grammar(choices: Sequence[str], param: str) -> str:
    """Return the grammar of these texts and no others."""
    if len(choices) > MAX_CHOICES:
        raise InvalidRequest(
            f"{param} has {len(choices)} choices; at most {MAX_CHOICES} are accepted: leave some out.", param=param
        )
    if not all(choices):
        raise InvalidRequest(f"A choice of {param} is empty; it must have a character at least.", param=param)
    if (length := sum(map(len, choices))) > MAX_CHOICES_LENGTH:
        raise InvalidRequest(
            f"{param} has {length} characters; at most {MAX_CHOICES_LENGTH} are accepted: shorten it.", param=param
        )
    return _checked(f"start: {' | '.join(map(literal, choices))}", param)


def context_free_grammar(source: str, param: str) -> str:
    """Return a grammar that a client wrote, in llguidance's Lark or in GBNF (`root ::= …`)."""
    _check_size(source, MAX_SOURCE_BYTES, param)
    if option := _OPTION.search(_QUOTED.sub("", source)):
        raise InvalidRequest(f"{param} has {option[0]!r}, which this server doesn't honour; leave it out.", param=param)
    try:
        lark = any_to_lark(source)
    except Exception as error:  # noqa: BLE001  the converter raises whatever its parser stumbles over
        raise _refused(str(error), param) from None
    return _checked(lark, param)


def lark_grammar(rules: str, schemas: Mapping[str, Mapping[str, Any]], param: str) -> str:
    """Return a grammar of Lark rules, `start` among them, in which the schemas' names stand for JSON that they match.

    Names are lower-case; text that must stand as it is goes through `literal`.
    """
    for schema in schemas.values():
        check_schema(schema, param)
    return _checked(_written(rules, schemas), param)


def literal(text: str) -> str:
    """Return the terminal that matches this text, which isn't empty, and nothing else."""
    return f"/{''.join(map(_spelled, text))}/"


def _spelled(letter: str) -> str:
    return letter if letter.isascii() and letter.isalnum() else rf"\x{{{ord(letter):x}}}"


def _written(rules: str, schemas: Mapping[str, Mapping[str, Any]]) -> str:
    options = {"x-guidance": {"whitespace_pattern": WHITE_SPACE}}
    written = (
        f"{name}: %json {json.dumps({**schema, **options}, ensure_ascii=False)}" for name, schema in schemas.items()
    )
    return "\n".join([rules, *written, ""])


def _checked(grammar: str, param: str) -> str:
    """Return the grammar if llguidance understands it and knows a way to begin."""
    _check_size(grammar, MAX_GRAMMAR_BYTES, param)
    grammar = _PREAMBLE + grammar
    matcher = LLMatcher(_bytes(), grammar, log_level=0, limits=_LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise _refused(matcher.get_error(), param)
    return grammar


def _check_size(source: str, limit: int, param: str) -> None:
    if (size := len(source.encode())) > limit:
        raise InvalidRequest(f"{param} has {size} bytes; at most {limit} are accepted: shorten it.", param=param)


def _refused(error: str, param: str) -> InvalidRequest:
    reason = _NOISE.sub("", error.partition("\n   1 |")[0].partition("\n<")[0].strip())[:MAX_REASON_LENGTH]
    if reason == _NOTHING_MATCHES:
        reason = "no text matches it"
    elif reason.startswith("oneOf"):
        reason = "its oneOf has alternatives that aren't told apart by a constant; write anyOf"
    return InvalidRequest(f"{param} can't be followed: {reason}.", param=param)


class _Bytes:
    """The plainest tokenizer: a token for each byte, and an end."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"end")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def _bytes() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))
