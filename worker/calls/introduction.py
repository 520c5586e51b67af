"""Tools behind the system text, for models whose own template doesn't know any."""

import json
from collections.abc import Sequence

from shared.job import Message, Role, TextPart
from shared.tools import Tool
from worker.calls.openai import as_openai
from worker.calls.wording import Wording


def write(
    messages: Sequence[Message], tools: Sequence[Tool], wording: Wording, system: str | None, *, has_system: bool
) -> list[Message]:
    """Return the conversation as texts.

    What is said of the tools stands behind the system text, which is `system` if nobody says another one, or before
    the first question where there is no place for a system text.
    """
    written: list[Message] = []
    for index, message in enumerate(messages):
        turn = _turn(message, wording)
        if turn.role is Role.USER and index > 0 and messages[index - 1].role is Role.TOOL:  # one side, one turn
            turn = Message(Role.USER, (*written.pop().parts, TextPart("\n"), *turn.parts))
        written.append(turn)
    if not tools:
        return written
    return _introduced(written, wording.about.format(tools="\n".join(map(_told, tools))), system, has_system=has_system)


def _introduced(messages: list[Message], about: str, system: str | None, *, has_system: bool) -> list[Message]:
    if messages[0].role is Role.SYSTEM:
        first, *rest = messages
        return [Message(Role.SYSTEM, (*first.parts, TextPart(f"\n\n{about}"))), *rest]
    if has_system:
        own = f"{system}\n\n{about}" if system else about
        return [Message(Role.SYSTEM, (TextPart(own),)), *messages]
    first, *rest = messages
    return [Message(first.role, (TextPart(f"{about}\n\n"), *first.parts)), *rest]


def _turn(message: Message, wording: Wording) -> Message:
    match message.role:
        case Role.TOOL:
            begin, end = TextPart("<tool_response>\n"), TextPart("\n</tool_response>")
            return Message(Role.USER, (begin, *message.parts, end))
        case Role.ASSISTANT if message.calls:
            border = "\n" if message.parts else ""
            return Message(Role.ASSISTANT, (*message.parts, TextPart(border + wording.calls(message.calls))))
        case _:
            return message


def _told(tool: Tool) -> str:
    return json.dumps(as_openai(tool), ensure_ascii=False)
