"""Where a prompt ends: before an answer, or within one that the model is to go on with."""

from collections.abc import Sequence

from shared.job import Message, Role


def split_open(messages: Sequence[Message]) -> tuple[Sequence[Message], Message | None]:
    """Return the complete turns, and the last one by itself if it is the model's own, as ReAct leaves it open."""
    if len(messages) > 1 and messages[-1].role is Role.ASSISTANT:
        return messages[:-1], messages[-1]
    return messages, None
