"""The pictures of a conversation, for families that take nothing else and give each the same number of tokens."""

from collections.abc import Sequence

from shared.errors import InvalidMedia
from shared.job import MediaKind, MediaPart, Message
from worker.models.refusal import check_room, check_turn


def find_pictures(messages: Sequence[Message], num_tokens: int, max_model_len: int) -> list[MediaPart]:
    """Return the pictures, of `num_tokens` each, in their order.

    Raises InvalidRequest for what such families can't be asked, before any picture is decoded.
    """
    pictures: list[MediaPart] = []
    for index, message in enumerate(messages):
        check_turn(message, index)
        for part in message.parts:
            if isinstance(part, MediaPart):
                if part.kind is not MediaKind.IMAGE:
                    raise InvalidMedia(f"the model takes pictures only, no {part.kind}", param=part.param)
                pictures.append(part)
                check_room(num_tokens * len(pictures), max_model_len, part.param)
    return pictures
