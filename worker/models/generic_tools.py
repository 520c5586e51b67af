"""Tools on their way through a checkpoint's chat template, and calls on their way back through its tokenizer."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jinja2 import TemplateError

from shared.job import Message
from shared.tools import Call, Tool, ToolFormat
from worker.calls.hermes import arguments_of, as_openai
from worker.engine.prompt import Tokenizer
from worker.models.generic_text import Escaper
from worker.models.timebox import OutOfTime, timebox

MARKS = ("<tool_call>", "</tool_call>")
MAX_PROBE_S = 5.0
_CALL = re.compile(r"<tool_call>\s*(\{.*\})\s*</tool_call>", re.DOTALL)
_PROBE = "probe_of_tools"


def find_format(processor: Any) -> ToolFormat | None:
    """Return how the template tells tools, found out by trying; None if it knows none, or in a format of its own."""
    tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": _PROBE, "arguments": {"x": 1}}}
    is_text = getattr(processor, "tokenizer", processor) is processor

    def turn(role: str, **more: object) -> dict[str, object]:
        return {"role": role, "content": "a" if is_text else [{"type": "text", "text": "a"}], **more}

    asked, called = turn("user"), turn("assistant", tool_calls=[call])
    told = _render(processor, [asked], tools=[tool])
    said = _CALL.search(_render(processor, [asked, called, turn("tool", tool_call_id="1", name=_PROBE)]))
    try:
        written = json.loads(said[1]) if said else None
    except ValueError:
        return None
    is_hermes = _PROBE in told and written == {"name": _PROBE, "arguments": {"x": 1}}
    return ToolFormat.HERMES if is_hermes else None


def _render(processor: Any, turns: list[dict[str, object]], **given: object) -> str:
    try:
        with timebox(MAX_PROBE_S):
            text: str = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **given)
    except (OutOfTime, TemplateError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError):
        return ""
    return text


def told(tools: Sequence[Tool], escaper: Escaper) -> list[Any]:
    """Return the tools as templates take them, all their text escaped."""
    return [_escaped(as_openai(tool), escaper) for tool in tools]


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


def showing_calls(decoder: Tokenizer, tokenizer: Any) -> Tokenizer:
    """Return what reads answers with calls in them."""
    added = tokenizer.added_tokens_decoder.items()
    marks = {token_id: token.content for token_id, token in added if token.special and token.content in MARKS}
    return CallTokenizer(decoder, marks) if marks else decoder
