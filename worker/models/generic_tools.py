"""Tools on their way through a checkpoint's chat template, and calls on their way back through its tokenizer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby, takewhile
from typing import Any

from msgspec.structs import replace

from shared.errors import InvalidRequest
from shared.job import Message, Role
from shared.tools import MISTRAL_ID_LENGTH, Call, Tool, ToolFormat
from worker.calls.openai import arguments_of, as_openai
from worker.engine.prompt import Tokenizer
from worker.models.generic_template import Template
from worker.models.generic_text import Escaper

MARKS: Mapping[ToolFormat, tuple[str, ...]] = {
    ToolFormat.HERMES: ("<tool_call>", "</tool_call>"),
    ToolFormat.LLAMA3_JSON: ("<|python_tag|>",),
    ToolFormat.MISTRAL: ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
}
"""What stands in the text of calls, and is a special token to some tokenizers."""
MAX_PROBE_LENGTH = 2**20
_PROBE = "probe_of_tools"
_ARGUMENTS = r'(?:\{"x":\s*1\})'
_NAME = rf'\{{"name":\s*"{_PROBE}",\s*'
_SAID: Mapping[ToolFormat, re.Pattern[str]] = {
    ToolFormat.HERMES: re.compile(rf'<tool_call>\s*{_NAME}"arguments":\s*{_ARGUMENTS}\s*\}}\s*</tool_call>'),
    ToolFormat.LLAMA3_JSON: re.compile(
        rf'(?:<\|end_header_id\|>|<\|python_tag\|>)\s*{_NAME}"parameters":\s*{_ARGUMENTS}\s*\}}\s*<\|eo[tm]_id\|>'
    ),
    ToolFormat.MISTRAL: re.compile(
        rf'\[TOOL_CALLS\]\s*(?:\[\s*{_NAME}"arguments":\s*{_ARGUMENTS}'
        rf"|{_PROBE}\s*(?:\[CALL_ID\]\w+)?\s*\[ARGS\]\s*\{{)"
    ),
}
"""How a template writes the call that it is tried with, if it writes calls in this format."""


def find_format(template: Template) -> ToolFormat | None:
    """Return how the template tells tools, found out by trying; None if it knows none, or in a format of its own."""
    tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": {"type": "object"}}}
    call = {"id": "probe0001", "type": "function", "function": {"name": _PROBE, "arguments": {"x": 1}}}

    def turn(role: str, **more: object) -> dict[str, object]:
        return {"role": role, "content": "a" if template.is_text else [{"type": "text", "text": "a"}], **more}

    asked, called = turn("user"), turn("assistant", tool_calls=[call])
    if _PROBE not in _render(template, [asked], tools=[tool]):
        return None
    said = _render(template, [asked, called, turn("tool", tool_call_id="probe0001", name=_PROBE)])
    return next((form for form, pattern in _SAID.items() if pattern.search(said)), None)


def _render(template: Template, turns: list[dict[str, object]], **given: object) -> str:
    try:
        return template.write(turns, {"add_generation_prompt": True, **given}, MAX_PROBE_LENGTH)
    except InvalidRequest:
        return ""


def told(tools: Sequence[Tool], escaper: Escaper) -> list[Any]:
    """Return the tools as templates take them, all their text escaped."""
    return [_escaped(as_openai(tool), escaper) for tool in tools]


def suited(messages: Sequence[Message], form: ToolFormat) -> Sequence[Message]:
    """Return the conversation as the templates of a format take it; Llama's and Mistral's are strict."""
    match form:
        case ToolFormat.LLAMA3_JSON:
            return [*_one_call_a_turn(messages)]
        case ToolFormat.MISTRAL:
            return [_with_short_ids(message) for message in messages]
        case _:
            return messages


def _one_call_a_turn(messages: Sequence[Message]) -> Iterator[Message]:
    for index, message in enumerate(messages):
        results = takewhile(lambda other: other.role is Role.TOOL, messages[index + 1 :])
        result_of = {result.call_id: result for result in results}
        for number, call in enumerate(message.calls):
            yield Message(message.role, () if number else message.parts, (call,))
            yield result_of[call.id]
        if not message.calls and message.role is not Role.TOOL:
            yield message


def _with_short_ids(message: Message) -> Message:
    calls = tuple(replace(call, id=_short(call.id)) for call in message.calls)
    return replace(message, calls=calls, call_id=_short(message.call_id))


def _short(call_id: str) -> str:
    """Return the id, or what stands for one that another model's call has."""
    is_short = len(call_id) == MISTRAL_ID_LENGTH and call_id.isascii() and call_id.isalnum()
    return call_id if is_short or not call_id else sha256(call_id.encode()).hexdigest()[:MISTRAL_ID_LENGTH]


def call_fields(message: Message, escaper: Escaper, names: dict[str, str]) -> dict[str, Any]:
    """Return what a turn has beside role and content; `names` collects those of functions by the ids of calls."""
    names.update((call.id, call.name) for call in message.calls)
    if message.calls:
        return {"tool_calls": [_call(call, escaper) for call in message.calls]}
    if message.call_id:
        fields: dict[str, Any] = _escaped(
            {"tool_call_id": message.call_id, "name": names.get(message.call_id, "")}, escaper
        )
        return fields
    return {}


def _call(call: Call, escaper: Escaper) -> Any:
    function = {"name": call.name, "arguments": arguments_of(call)}
    return _escaped({"id": call.id, "type": "function", "function": function}, escaper)


def _escaped(value: Any, escaper: Escaper) -> Any:
    match value:
        case str():
            return escaper.escape(value, is_own=False)
        case dict():
            return {escaper.escape(key, is_own=False): _escaped(inner, escaper) for key, inner in value.items()}
        case list():
            return [_escaped(inner, escaper) for inner in value]
        case _:
            return value


@dataclass(frozen=True, slots=True)
class CallTokenizer:
    """Reads answers with calls in them: marks are shown, although some tokenizers take them for special tokens."""

    decoder: Tokenizer
    """Reads everything else."""
    marks: Mapping[int, str]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens."""
        runs = groupby(token_ids, key=lambda token_id: self.marks.get(token_id, ""))
        return "".join(mark * len([*run]) if mark else self.decoder.decode([*run]) for mark, run in runs)

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, special or not."""
        return self.decoder.token_bytes(token_id)

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Return what the token adds to the text of a constrained answer, in which marks are text."""
        mark = self.marks.get(token_id)
        return self.decoder.answer_bytes(token_id) if mark is None else mark.encode()


def showing_calls(decoder: Tokenizer, tokenizer: Any) -> dict[ToolFormat, Tokenizer]:
    """Return what reads answers with calls in them, for each format."""
    special = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    marks = {form: {special[mark]: mark for mark in MARKS.get(form, ()) if mark in special} for form in ToolFormat}
    return {form: CallTokenizer(decoder, known) if known else decoder for form, known in marks.items()}
