"""Transcriptions: the conversation that asks an audio model for one, and its answer in OpenAI's shape."""

import base64
from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from api.completion import ChunkStream, failure, on_one_line
from api.schema.request import AudioContent, ChatCompletionRequest, Content, MediaAddress, SpokenMessage, TextContent
from api.schema.response import ChatCompletion
from api.schema.transcription import (
    InputTokenDetails,
    TranscriptDelta,
    TranscriptDone,
    Transcription,
    TranscriptionRequest,
    TranscriptionUsage,
)
from shared.catalogue import MODEL_TYPES, Family
from shared.errors import Cancelled, InvalidRequest
from shared.events import Failed, Finished, FinishReason, JobEvent, TextDelta, Usage
from shared.fleet import WorkerInfo
from shared.job import MediaKind

DEFAULT_INSTRUCTION = "Transcribe this audio."
INSTRUCTIONS: Mapping[Family, str] = {Family.QWEN2_AUDIO: "Detect the language and recognize the speech:"}
"""By family, in its authors' words: Qwen2-Audio's are those of its report (2024, figure 2) and of its evaluation."""


def check_hears(worker: WorkerInfo) -> None:
    """Raise InvalidRequest for a model that takes no recordings."""
    if MediaKind.AUDIO not in worker.modalities:
        raise InvalidRequest(
            f"The model {worker.model!r} takes no audio; name one that does, as GET /v1/models lists them.",
            param="model",
        )


def conversation(asked: TranscriptionRequest, recording: bytes, worker: WorkerInfo) -> ChatCompletionRequest:
    """Return the chat that asks for the transcription."""
    address = MediaAddress(url=f"data:audio/any;base64,{base64.b64encode(recording).decode()}")
    content: list[Content] = [
        AudioContent(type="audio_url", audio_url=address),
        TextContent(type="text", text=_instruction(asked, worker)),
    ]
    return ChatCompletionRequest(
        model=asked.model,
        messages=[SpokenMessage(role="user", content=content)],
        temperature=asked.temperature or 0.0,
        stream=asked.stream,
    )


def about_file(error: InvalidRequest) -> InvalidRequest:
    """Return the error with the name that this route has for the recording, which the chat's errors don't know."""
    is_recording = error.param is not None and error.param.startswith("messages")
    return type(error)(error.message, param="file") if is_recording else error


def transcription(answer: ChatCompletion) -> Transcription:
    """Return the answer of the chat as a transcription."""
    counts = answer.usage
    usage = Usage(
        counts.prompt_tokens, counts.completion_tokens, audio_tokens=counts.prompt_tokens_details.audio_tokens
    )
    return Transcription(text=answer.choices[0].message.content, usage=_usage(usage))


class TranscriptWriter(ChunkStream):
    """Writes the events of the chat as a transcription's, in SSE frames."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        return b"".join([self._frame(event) for event in events])

    def _frame(self, event: JobEvent) -> bytes:
        match event:
            case TextDelta() if event.text:
                self._text.append(event.text)
                return _framed(TranscriptDelta(delta=event.text))
            case Failed():
                raise failure(event)
            case Finished(reason=FinishReason.CANCELLED):
                raise Cancelled("The answer was cancelled.")
            case Finished():
                return _framed(TranscriptDone(text="".join(self._text), usage=_usage(event.usage)))
            case _:
                return b""


def _instruction(asked: TranscriptionRequest, worker: WorkerInfo) -> str:
    kind = MODEL_TYPES.get(worker.model_type)
    words = [INSTRUCTIONS.get(kind.family, DEFAULT_INSTRUCTION) if kind else DEFAULT_INSTRUCTION]
    words += [f"The language is {asked.language}."] if asked.language else []
    words += [f"Style and context: {asked.prompt}"] if asked.prompt else []
    return " ".join(words)


def _usage(usage: Usage) -> TranscriptionUsage:
    heard = usage.audio_tokens
    return TranscriptionUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details=InputTokenDetails(audio_tokens=heard, text_tokens=usage.prompt_tokens - heard),
    )


def _framed(event: BaseModel) -> bytes:
    return b"data: %b\n\n" % on_one_line(event.model_dump_json().encode())
