"""What a response answers, as a list of messages."""

from collections.abc import Iterator
from typing import Literal, TypeAlias, assert_never

from api.schema.responses_object import (
    FunctionCallItem,
    InputItemList,
    InputShown,
    OutputText,
    ResultShown,
    ShownMedium,
    ShownText,
)
from shared.errors import InvalidRequest
from shared.job import MediaKind, MediaPart, Message, Part, Role, TextPart
from shared.kept import KeptResponse

Order: TypeAlias = Literal["asc", "desc"]
_Shown: TypeAlias = InputShown | FunctionCallItem | ResultShown
_TYPES: dict[MediaKind, Literal["input_image", "input_video", "input_audio"]] = {
    MediaKind.IMAGE: "input_image",
    MediaKind.VIDEO: "input_video",
    MediaKind.AUDIO: "input_audio",
}


def listed(kept: KeptResponse, limit: int, order: Order, after: str | None) -> InputItemList:
    """Return a page of the messages, from behind the one of this id on; raise InvalidRequest if there is none."""
    stem = kept.id.replace("resp_", "msg_", 1)
    messages = [entry for i, message in enumerate(kept.messages) for entry in _shown(message, f"{stem}_{i}")]
    if order == "desc":
        messages.reverse()
    first = 0 if after is None else 1 + _index(messages, after)
    page = messages[first : first + limit]
    return InputItemList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=first + limit < len(messages),
    )


def _index(messages: list[_Shown], after: str) -> int:
    for i, message in enumerate(messages):
        if message.id == after:
            return i
    raise InvalidRequest("after must be the id of one of the messages.", param="after")


def _shown(message: Message, id_: str) -> Iterator[_Shown]:
    if message.role is Role.TOOL:
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
        yield ResultShown(id=id_, call_id=message.call_id, output=text)
        return
    if message.parts:
        yield InputShown(id=id_, role=message.role.value, content=[_part(message, part) for part in message.parts])
    for k, call in enumerate(message.calls):
        told = FunctionCallItem(id=f"{id_}_{k}", call_id=call.id, name=call.name, arguments=call.arguments)
        yield told.model_copy(update={"status": "completed"})


def _part(message: Message, part: Part) -> ShownText | ShownMedium | OutputText:
    match part:
        case TextPart() if message.role is Role.ASSISTANT:
            return OutputText(text=part.text)
        case TextPart():
            return ShownText(text=part.text)
        case MediaPart():
            return ShownMedium(type=_TYPES[part.kind])
        case _:
            assert_never(part)
