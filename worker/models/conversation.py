"""What a conversation with pictures may look like, for families whose pictures have a fixed size in tokens."""

from collections.abc import Sequence

from shared.errors import ContextLengthExceeded, InvalidMedia, InvalidRequest
from shared.job import MediaKind, MediaPart, Message, Role


def find_pictures(messages: Sequence[Message]) -> list[MediaPart]:
    """Return the pictures in their order; raises InvalidRequest for what such families weren't trained on."""
    for index, message in enumerate(messages):
        if message.role is Role.SYSTEM and index > 0:
            raise InvalidRequest("only the first message may be the system's", param="messages")
        for part in message.parts:
            if isinstance(part, MediaPart):
                _check_picture(part, message.role)
    return [part for message in messages for part in message.parts if isinstance(part, MediaPart)]


def check_room(pictures: Sequence[MediaPart], num_tokens: int, max_model_len: int) -> None:
    """Raise ContextLengthExceeded if pictures of so many tokens each can't fit, before any of them is decoded."""
    if len(pictures) * num_tokens > max_model_len:
        raise ContextLengthExceeded(
            f"{len(pictures)} pictures alone take {len(pictures) * num_tokens} tokens; the model takes {max_model_len}",
            param="messages",
        )


def _check_picture(part: MediaPart, role: Role) -> None:
    if part.kind is not MediaKind.IMAGE:
        raise InvalidMedia(f"the model takes pictures only, no {part.kind}", param=part.param)
    if role is not Role.USER:
        raise InvalidRequest("pictures may stand in the user's messages only", param="messages")
