"""Replies in OpenAI's shape: whole, or what a chunk adds."""

from api.calls.reply import Addition, CallPart, Replies
from api.schema import response as schema


def whole_message(replies: Replies, index: int, text: str) -> schema.AnswerMessage:
    """Return a choice of this text; where it is cut makes no difference, so that it equals the stream's sum."""
    said, held = replies.read(index, text), replies.finish(index)
    calls: list[CallPart] = []
    for part in (*said.calls, *held.calls):
        if part.id is None:
            calls[-1].arguments += part.arguments
        else:
            calls.append(part)
    content = said.content + held.content
    return schema.AnswerMessage(
        content=content if content or not calls else None,
        tool_calls=[_call(call) for call in calls] or None,
    )


def delta_of(addition: Addition) -> schema.Delta:
    """Return what a chunk says of an addition."""
    return schema.Delta(content=addition.content or None, tool_calls=[_part(call) for call in addition.calls] or None)


def _call(call: CallPart) -> schema.AnswerCall:
    assert call.id is not None
    assert call.name is not None
    return schema.AnswerCall(id=call.id, function=schema.CalledFunction(name=call.name, arguments=call.arguments))


def _part(call: CallPart) -> schema.CallDelta:
    return schema.CallDelta(
        index=call.number,
        id=call.id,
        type=None if call.id is None else "function",
        function=schema.FunctionPart(name=call.name, arguments=call.arguments),
    )
