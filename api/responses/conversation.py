"""From a request for a response to a chat request: what was said before, instructions, and the input, in one list."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import TypeAlias

from pydantic import TypeAdapter

from api.responses.tools import chat_choice, chat_tools
from api.schema.request import (
    AssistantMessage,
    AudioContent,
    ChatCompletionRequest,
    ChatMessage,
    Content,
    ImageContent,
    InputAudioContent,
    MediaAddress,
    TextContent,
    ToolMessage,
    VideoContent,
)
from api.schema.responses import (
    CallItem,
    CreateResponse,
    EarlierText,
    InputImage,
    InputItem,
    InputMessage,
    InputPart,
    InputRecording,
    InputText,
    InputVideo,
    NamedSchemaFormat,
    ResultItem,
    TextForm,
)
from api.schema.structure import JsonSchema, JsonSchemaFormat, ResponseFormat
from api.schema.tool import FunctionCall, ToolCall
from shared.errors import InvalidRequest
from shared.job import MediaKind, MediaPart, Message, Part, Role, TextPart
from shared.tools import Call

INSTRUCTIONS = "instructions"
PREVIOUS = "previous_response_id"
_MESSAGE: TypeAdapter[ChatMessage] = TypeAdapter(ChatMessage)
_SYSTEM = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class _Placed:
    """A message, and where the client wrote it."""

    place: str
    message: ChatMessage


_Turns: TypeAlias = Sequence[_Placed]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is asked, in the terms of a chat."""

    request: ChatCompletionRequest
    places: tuple[str, ...]
    carried: tuple[Message, ...]
    """The system message that a next response goes on with: its own, without the instructions."""

    def kept(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return what a next response goes on from, of the messages that the job was given."""
        has_system = self.request.messages[0].role in _SYSTEM
        return self.carried + messages[1:] if has_system else messages


def conversation(asked: CreateResponse, before: Sequence[Message], media: Mapping[str, bytes]) -> Conversation:
    """Translate a request that continues these messages, whose media are here by their hashes.

    Instructions and the system messages that the conversation begins with become one system message.
    Raises InvalidRequest where that can't be agreed on.
    """
    turns = [*(_Placed(PREVIOUS, _said(message, media)) for message in before), *_input(asked)]
    leading = [*takewhile(lambda turn: turn.message.role in _SYSTEM, turns)]
    system = [*filter(None, (asked.instructions, *map(_text_of, leading)))]
    if not (rest := turns[len(leading) :]):
        raise InvalidRequest("input must have at least one message that is not a system message.", param="input")
    if system:
        place = INSTRUCTIONS if asked.instructions else leading[0].place
        content: list[Content] = [TextContent(type="text", text="\n\n".join(system))]
        rest = [_Placed(place, _spoken("system", content)), *rest]
    texts = tuple(TextPart(text) for text in ["\n\n".join(map(_text_of, leading))] if text)
    carried = (Message(Role.SYSTEM, texts),) if texts else ()
    return Conversation(_request(asked, [turn.message for turn in rest]), tuple(turn.place for turn in rest), carried)


def _request(asked: CreateResponse, messages: list[ChatMessage]) -> ChatCompletionRequest:
    return ChatCompletionRequest(
        model=asked.model,
        messages=messages,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        seed=asked.seed,
        max_completion_tokens=asked.max_output_tokens,
        logprobs=asked.wants_logprobs,
        top_logprobs=asked.top_logprobs if asked.wants_logprobs else None,
        stream=asked.stream,
        tools=chat_tools(asked),
        tool_choice=chat_choice(asked.tool_choice),
        parallel_tool_calls=asked.parallel_tool_calls,
        mm_processor_kwargs=asked.mm_processor_kwargs,
        response_format=None if asked.text is None else _format(asked.text.format),
        timeout=asked.timeout,
        priority=asked.priority,
    )


def _format(asked: TextForm | None) -> ResponseFormat | None:
    if not isinstance(asked, NamedSchemaFormat):
        return asked
    schema = JsonSchema(**asked.model_dump(by_alias=True, exclude={"type"}))
    return JsonSchemaFormat(type="json_schema", json_schema=schema)


def _input(asked: CreateResponse) -> Iterator[_Placed]:
    if isinstance(asked.input, str):
        yield _Placed("input", _spoken("user", [TextContent(type="text", text=asked.input)]))
        return
    for place, entries in _answers(asked.input):
        yield _Placed(place, _turn(place, entries))


def _answers(entries: Sequence[InputItem]) -> Iterator[tuple[str, list[InputItem]]]:
    """Yield what makes one message each: calls belong to the answer before them."""
    first, together = 0, list[InputItem]()
    for i, entry in enumerate(entries):
        if together and not (isinstance(entry, CallItem) and _is_answer(together[-1])):
            yield f"input[{first}]", together
            first, together = i, []
        together.append(entry)
    yield f"input[{first}]", together


def _is_answer(entry: InputItem) -> bool:
    return isinstance(entry, CallItem) or (isinstance(entry, InputMessage) and entry.role == "assistant")


def _turn(place: str, entries: list[InputItem]) -> ChatMessage:
    if isinstance(result := entries[0], ResultItem):
        content = [TextContent(type="text", text=part.text) for part in result.output]
        return ToolMessage(role="tool", content=content, tool_call_id=result.call_id)
    calls = [Call(entry.call_id, entry.name, entry.arguments) for entry in entries if isinstance(entry, CallItem)]
    message = entries[0]
    if not isinstance(message, InputMessage):
        return _spoken("assistant", [], calls)
    parts = [_asked(message, part, f"{place}.content[{k}]") for k, part in enumerate(message.content)]
    return _spoken(message.role, parts, calls)


def _asked(message: InputMessage, part: InputPart, param: str) -> Content:
    match part:
        case InputText():
            return TextContent(type="text", text=part.text)
        case EarlierText():
            if message.role != "assistant":
                raise InvalidRequest("Only messages of the assistant have output_text.", param=param)
            return TextContent(type="text", text=part.text)
        case _ if message.role != "user":
            raise InvalidRequest(
                f"Only user messages may carry media, and this one is of role {message.role}.", param=param
            )
        case InputImage():
            return ImageContent(type="image_url", image_url=MediaAddress(url=part.image_url))
        case InputVideo():
            return VideoContent(type="video_url", video_url=MediaAddress(url=part.video_url))
        case InputRecording():
            return InputAudioContent(type="input_audio", input_audio=part.input_audio)


def _spoken(role: str, content: list[Content], calls: Sequence[Call] = ()) -> ChatMessage:
    if not calls:
        return _MESSAGE.validate_python({"role": role, "content": content})
    told = [
        ToolCall(id=call.id, type="function", function=FunctionCall(name=call.name, arguments=call.arguments))
        for call in calls
    ]
    return AssistantMessage(role="assistant", content=content or None, tool_calls=told)


def _text_of(turn: _Placed) -> str:
    return "".join(part.text for part in turn.message.content or () if isinstance(part, TextContent))


def _said(message: Message, media: Mapping[str, bytes]) -> ChatMessage:
    """Return a kept message as if its media were sent again, so that all rules hold for them."""
    if message.role is Role.TOOL:
        texts = [TextContent(type="text", text=part.text) for part in message.parts if isinstance(part, TextPart)]
        return ToolMessage(role="tool", content=texts, tool_call_id=message.call_id)
    return _spoken(message.role.value, [_said_part(part, media) for part in message.parts], message.calls)


def _said_part(part: Part, media: Mapping[str, bytes]) -> Content:
    if isinstance(part, TextPart):
        return TextContent(type="text", text=part.text)
    address = MediaAddress(url=f"data:;base64,{base64.b64encode(media[part.sha256]).decode()}")
    match part.kind:
        case MediaKind.IMAGE:
            return ImageContent(type="image_url", image_url=address)
        case MediaKind.VIDEO:
            return VideoContent(type="video_url", video_url=address)
        case MediaKind.AUDIO:
            return AudioContent(type="audio_url", audio_url=address)


def media_of(messages: Sequence[Message]) -> tuple[MediaPart, ...]:
    """The media of a conversation, in their order."""
    return tuple(part for part in chain.from_iterable(m.parts for m in messages) if isinstance(part, MediaPart))
