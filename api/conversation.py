"""Calls and their results in a conversation: each call has one result, right behind the answer that called."""

from collections.abc import Sequence

from api.schema.request import AssistantMessage, ChatMessage, ToolMessage
from shared.errors import InvalidRequest


def check_calls(messages: Sequence[ChatMessage]) -> None:
    """Raise InvalidRequest for a call without a result, or a result without a call."""
    waiting: dict[str, str] = {}  # names by the ids of calls
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            _check_result(message, index, waiting)
            del waiting[message.tool_call_id]
        elif waiting:
            raise _without_result(waiting, f"messages[{index}]")
        elif isinstance(message, AssistantMessage):
            waiting = _calls(message, index)
    if waiting:
        raise _without_result(waiting, "messages")


def has_calls(messages: Sequence[ChatMessage]) -> bool:
    """Whether any earlier answer called anything."""
    return any(isinstance(message, AssistantMessage) and message.tool_calls for message in messages)


def _calls(message: AssistantMessage, index: int) -> dict[str, str]:
    if message.content is None and message.tool_calls is None:
        raise InvalidRequest(f"Missing field: messages[{index}].content.", param=f"messages[{index}].content")
    calls: dict[str, str] = {}
    for number, call in enumerate(message.tool_calls or ()):
        if call.id in calls:
            raise InvalidRequest(
                f"Two calls of messages[{index}] have the id {call.id!r}; each needs its own.",
                param=f"messages[{index}].tool_calls[{number}].id",
            )
        calls[call.id] = call.function.name
    return calls


def _check_result(message: ToolMessage, index: int, waiting: dict[str, str]) -> None:
    if message.tool_call_id not in waiting:
        known = ", ".join(waiting)[:300] or "none"
        raise InvalidRequest(
            f"No call before messages[{index}] waits for a result under the id {message.tool_call_id!r} "
            f"(those that do: {known}).",
            param=f"messages[{index}].tool_call_id",
        )
    if message.name is not None and message.name != (called := waiting[message.tool_call_id]):
        raise InvalidRequest(
            f"messages[{index}].name is {message.name[:100]!r}, but that call is of {called!r}; leave it out.",
            param=f"messages[{index}].name",
        )


def _without_result(waiting: dict[str, str], param: str) -> InvalidRequest:
    return InvalidRequest(
        f"The calls {', '.join(waiting)[:300]} have no result: the messages right behind the answer that called "
        "must be of role tool, one for each call.",
        param=param,
    )
