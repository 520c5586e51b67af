"""What every family refuses in the same words: turns, wishes and media that no model can honour."""

from collections.abc import Collection

from shared.errors import ContextLengthExceeded, InvalidRequest
from shared.job import Message, ProcessorParams, Role, TextPart


def check_turn(message: Message, index: int) -> None:
    """Raise InvalidRequest for a system message in the middle, or media that the user didn't send."""
    if message.role is Role.SYSTEM and index > 0:
        raise InvalidRequest("only the first message may be the system's", param="messages")
    if message.role is not Role.USER and not all(isinstance(part, TextPart) for part in message.parts):
        raise InvalidRequest("pictures and clips may stand in the user's messages only", param="messages")


def check_wishes(wishes: ProcessorParams, known: Collection[str]) -> None:
    """Raise InvalidRequest for a wish that the family doesn't know, and name those it does."""
    for name in wishes.__struct_fields__:
        if name not in known and getattr(wishes, name) is not None:
            raise InvalidRequest(
                f"the model doesn't know {name}; leave it out (it knows {', '.join(sorted(known)) or 'no wish'})",
                param=name if name == "chat_template_kwargs" else f"mm_processor_kwargs.{name}",
            )


def check_wish(name: str, wanted: int | None, most: int, what: str) -> None:
    """Raise InvalidRequest for a wish beyond what the model was made for."""
    if wanted is not None and wanted > most:
        raise InvalidRequest(
            f"{name} is {wanted}; the model takes at most {most} {what}", param=f"mm_processor_kwargs.{name}"
        )


def check_room(num_tokens: int, max_model_len: int, param: str) -> None:
    """Raise ContextLengthExceeded once the media up to `param` leave no room for words."""
    if num_tokens > max_model_len:
        raise ContextLengthExceeded(
            f"the pictures up to {param} alone take {num_tokens} tokens; the model takes {max_model_len}",
            param="messages",
        )
