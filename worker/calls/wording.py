"""Tools for models whose own template doesn't know any: what they are told, format by format.

The marks and the JSON are those that other models were trained on, the words around them are ours.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.tools import Call, ToolFormat
from worker.calls.openai import arguments_of

_TOOLS = """You can call functions. Each line between <tools> and </tools> describes one of them as JSON:
<tools>
{tools}
</tools>

"""
_RESULTS = """

The results follow between <tool_response> and </tool_response>."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How one format's calls are asked for, and written where an earlier answer made some."""

    about: str
    """What is said of the tools, which it has a place for."""
    calls: Callable[[Sequence[Call]], str]


def _about(how: str) -> str:
    return _TOOLS + how.replace("{", "{{").replace("}", "}}") + _RESULTS


def _json(call: Call, arguments: str) -> str:
    return json.dumps({"name": call.name, arguments: arguments_of(call)}, ensure_ascii=False)


def _hermes(calls: Sequence[Call]) -> str:
    return "\n".join(f"<tool_call>\n{_json(call, 'arguments')}\n</tool_call>" for call in calls)


def _llama3(calls: Sequence[Call]) -> str:
    return "; ".join(_json(call, "parameters") for call in calls)


def _mistral(calls: Sequence[Call]) -> str:
    return f"[TOOL_CALLS][{', '.join(_json(call, 'arguments') for call in calls)}]"


WORDINGS: Mapping[ToolFormat, Wording] = {
    ToolFormat.HERMES: Wording(
        _about(
            "To call a function, write its name and its arguments as a JSON object between <tool_call> and "
            '</tool_call>, like this:\n<tool_call>\n{"name": "<name>", "arguments": {...}}\n</tool_call>'
        ),
        _hermes,
    ),
    ToolFormat.LLAMA3_JSON: Wording(
        _about(
            "To call a function, answer with a JSON object of its name and its parameters and with nothing else, like "
            'this:\n{"name": "<name>", "parameters": {...}}\nSeveral calls are separated by semicolons.'
        ),
        _llama3,
    ),
    ToolFormat.MISTRAL: Wording(
        _about(
            "To call functions, write [TOOL_CALLS] and a JSON list with the name and the arguments of each, like "
            'this:\n[TOOL_CALLS][{"name": "<name>", "arguments": {...}}]'
        ),
        _mistral,
    ),
}
"""Of the formats that are told behind the system text."""
