"""Tools in the format of Hermes and Qwen2.5, for models whose own template doesn't know any.

The marks and the JSON are those that such models were trained on, the words around them are ours.
"""

import json
from collections.abc import Sequence

from pydantic_core import from_json

from shared.job import Message, Role, TextPart
from shared.tools import Call, Tool

_ABOUT = """You can call functions. Each line between <tools> and </tools> describes one of them as JSON:
<tools>
{tools}
</tools>

To call a function, write its name and its arguments as a JSON object between <tool_call> and </tool_call>, like this:
<tool_call>
{{"name": "<name>", "arguments": {{...}}}}
</tool_call>

The results follow between <tool_response> and </tool_response>."""


def write(messages: Sequence[Message], tools: Sequence[Tool], system: str | None, *, has_system: bool) -> list[Message]:
    """Return the conversation as texts.

    What is said of the tools stands behind the system text, which is `system` if nobody says another one, or before
    the first question where there is no place for a system text.
    """
    written: list[Message] = []
    for index, message in enumerate(messages):
        turn = _turn(message)
        if turn.role is Role.USER and index > 0 and messages[index - 1].role is Role.TOOL:  # one side, one turn
            turn = Message(Role.USER, (*written.pop().parts, TextPart("\n"), *turn.parts))
        written.append(turn)
    if not tools:
        return written
    return _introduced(written, _ABOUT.format(tools="\n".join(map(_told, tools))), system, has_system=has_system)


def _introduced(messages: list[Message], about: str, system: str | None, *, has_system: bool) -> list[Message]:
    if messages[0].role is Role.SYSTEM:
        first, *rest = messages
        return [Message(Role.SYSTEM, (*first.parts, TextPart(f"\n\n{about}"))), *rest]
    if has_system:
        own = f"{system}\n\n{about}" if system else about
        return [Message(Role.SYSTEM, (TextPart(own),)), *messages]
    first, *rest = messages
    return [Message(first.role, (TextPart(f"{about}\n\n"), *first.parts)), *rest]


def _turn(message: Message) -> Message:
    match message.role:
        case Role.TOOL:
            begin, end = TextPart("<tool_response>\n"), TextPart("\n</tool_response>")
            return Message(Role.USER, (begin, *message.parts, end))
        case Role.ASSISTANT if message.calls:
            calls = "\n".join(map(_call, message.calls))
            border = "\n" if message.parts else ""
            return Message(Role.ASSISTANT, (*message.parts, TextPart(border + calls)))
        case _:
            return message


def _call(call: Call) -> str:
    return f"<tool_call>\n{_json({'name': call.name, 'arguments': arguments_of(call)})}\n</tool_call>"


def _told(tool: Tool) -> str:
    return _json(as_openai(tool))


def as_openai(tool: Tool) -> dict[str, object]:
    """Return the tool as OpenAI describes it, which is what templates are written for."""
    told = {"name": tool.name, "description": tool.description, "parameters": from_json(tool.parameters or "null")}
    return {"type": "function", "function": {name: value for name, value in told.items() if value is not None}}


def arguments_of(call: Call) -> object:
    """Return the arguments as JSON has them, or as they were said where they aren't JSON."""
    try:
        given = from_json(call.arguments, allow_inf_nan=False)
    except ValueError:
        return call.arguments
    return given if isinstance(given, dict) else call.arguments


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
