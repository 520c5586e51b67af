"""Where media stand in a conversation: OpenAI parts, inline tags, and top-level lists with or without tags.

It finds addresses and puts them in their places; what lies behind an address it does not know.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from api.schema.request import (
    AssistantMessage,
    AudioContent,
    ChatCompletionRequest,
    ChatMessage,
    ImageContent,
    InputAudioContent,
    TextContent,
    ToolMessage,
    VideoContent,
)
from shared.errors import InvalidRequest
from shared.job import MediaKind, Role, TextPart
from shared.tools import Call

_ROLES = {"developer": Role.SYSTEM}
_TAGS = re.compile(r"<(?P<kind>img|video|audio)>(?P<address>[^<]+)</(?P=kind)>|<(?P<place>image|video|audio)>")
_KINDS = {"img": MediaKind.IMAGE, "image": MediaKind.IMAGE, "video": MediaKind.VIDEO, "audio": MediaKind.AUDIO}
_LISTS = {MediaKind.VIDEO: "videos", MediaKind.IMAGE: "images", MediaKind.AUDIO: "audios"}
"""The top-level field of each kind, in the order in which media without a tag are put in front."""


@dataclass(frozen=True, slots=True)
class MediaSource:
    """One picture, clip or recording as the client named it."""

    kind: MediaKind
    address: str
    """A URL, a data: URI, bare base64 or a file's name; not checked yet."""
    param: str
    """Where it was written, as `messages[0].content[1].image_url`."""
    is_inline: bool = False
    """Whether it is a tag in a text, with its address."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message whose media still lie where the client left them."""

    role: Role
    parts: tuple[TextPart | MediaSource, ...]
    calls: tuple[Call, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A literal tag in a text, to be filled from a top-level list."""

    kind: MediaKind
    tag: str
    param: str


_Part: TypeAlias = TextPart | MediaSource | _Place


def place_media(request: ChatCompletionRequest) -> tuple[Turn, ...]:
    """Return the conversation with every medium at its place; raise InvalidRequest where that can't be agreed on."""
    listed = {kind: _listed(request, kind) for kind in _LISTS}
    drafts = [list(_parts(message, f"messages[{i}].content")) for i, message in enumerate(request.messages)]
    front = [source for kind in _LISTS for source in _without_tag(kind, listed[kind], drafts)]
    if front:
        drafts[_first_user(request, front[0])][:0] = front
    turns = tuple(
        Turn(_role(message), tuple(_filled(draft, listed)), _calls(message), getattr(message, "tool_call_id", ""))
        for message, draft in zip(request.messages, drafts, strict=True)
    )
    _refuse_foreign_media(turns)
    return turns


def sources_of(turns: tuple[Turn, ...]) -> tuple[MediaSource, ...]:
    """The media of a conversation, in their order."""
    return tuple(part for turn in turns for part in turn.parts if isinstance(part, MediaSource))


def _role(message: ChatMessage) -> Role:
    return _ROLES.get(message.role) or Role(message.role)


def _calls(message: ChatMessage) -> tuple[Call, ...]:
    told = message.tool_calls or () if isinstance(message, AssistantMessage) else ()
    return tuple(Call(call.id, call.function.name, call.function.arguments) for call in told)


def _listed(request: ChatCompletionRequest, kind: MediaKind) -> deque[MediaSource]:
    name = _LISTS[kind]
    return deque(MediaSource(kind, a, f"{name}[{i}]") for i, a in enumerate(getattr(request, name) or ()))


def _parts(message: ChatMessage, param: str) -> Iterator[_Part]:
    contents = message.content or []
    for i, content in enumerate(contents):
        here = f"{param}[{i}]"
        match content:
            case TextContent() if isinstance(message, ToolMessage):  # no person wrote it: a tag in it is text
                yield TextPart(content.text)
            case TextContent():
                yield from _split(content.text, param if len(contents) == 1 else f"{here}.text")
            case ImageContent():
                yield MediaSource(MediaKind.IMAGE, content.image_url.url, f"{here}.image_url")
            case VideoContent():
                yield MediaSource(MediaKind.VIDEO, content.video_url.url, f"{here}.video_url")
            case AudioContent():
                yield MediaSource(MediaKind.AUDIO, content.audio_url.url, f"{here}.audio_url")
            case InputAudioContent():  # a data: URI, so that it is never taken for anything but base64
                address = f"data:audio/{content.input_audio.format};base64,{content.input_audio.data}"
                yield MediaSource(MediaKind.AUDIO, address, f"{here}.input_audio")


def _split(text: str, param: str) -> Iterator[_Part]:
    """Cut a text at its tags; a literal tag may turn out to be text after all."""
    end = 0
    for match in _TAGS.finditer(text):
        yield TextPart(text[end : match.start()])
        if match["place"]:
            yield _Place(_KINDS[match["place"]], match[0], param)
        else:
            yield MediaSource(_KINDS[match["kind"]], match["address"], param, is_inline=True)
        end = match.end()
    yield TextPart(text[end:])


def _without_tag(kind: MediaKind, listed: deque[MediaSource], drafts: list[list[_Part]]) -> list[MediaSource]:
    """Take the listed media off that have no tag: the first ones, because tags are filled in order."""
    if not listed:
        return []
    name = _LISTS[kind]
    num_tags = sum(isinstance(p, _Place) and p.kind is kind for draft in drafts for p in draft)
    if _has_inline(kind, drafts):
        raise InvalidRequest(
            f"Do not mix the {name} list with tags that carry an address in the text; use one of them.", param=name
        )
    if num_tags > len(listed):
        raise InvalidRequest(
            f"The text has {num_tags} <{kind}> tags, but {name} has {len(listed)} entries.", param=name
        )
    return [listed.popleft() for _ in range(len(listed) - num_tags)]


def _has_inline(kind: MediaKind, drafts: list[list[_Part]]) -> bool:
    return any(isinstance(p, MediaSource) and p.kind is kind and p.is_inline for draft in drafts for p in draft)


def _first_user(request: ChatCompletionRequest, source: MediaSource) -> int:
    for i, message in enumerate(request.messages):
        if message.role == "user":
            return i
    raise InvalidRequest("There is no user message to put the media in.", param=source.param)


def _filled(draft: list[_Part], listed: dict[MediaKind, deque[MediaSource]]) -> list[TextPart | MediaSource]:
    """Fill places from the lists, in order; without a list a tag is plain text, and its text is whole again."""
    filled: list[TextPart | MediaSource] = []
    is_torn = False
    for part in draft:
        if isinstance(part, _Place) and listed[part.kind]:
            filled.append(listed[part.kind].popleft())
        elif isinstance(part, _Place):
            is_torn = True
            _continue(filled, part.tag)
        elif is_torn and isinstance(part, TextPart):
            is_torn = False
            _continue(filled, part.text)
        else:
            filled.append(part)
    return [part for part in filled if not isinstance(part, TextPart) or part.text]


def _continue(filled: list[TextPart | MediaSource], text: str) -> None:
    """Go on with the text before, which `_split` leaves before and after each tag."""
    before = filled.pop()
    assert isinstance(before, TextPart)
    filled.append(TextPart(before.text + text))


def _refuse_foreign_media(turns: tuple[Turn, ...]) -> None:
    for i, turn in enumerate(turns):
        if turn.role is not Role.USER and any(isinstance(part, MediaSource) for part in turn.parts):
            raise InvalidRequest(
                f"Only user messages may carry media, and messages[{i}] has role {turn.role}.",
                param=f"messages[{i}].content",
            )
