"""The prompt of a job that has to do with tools, whatever the model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol, runtime_checkable

from shared.job import ChatJob, MediaPart, Message, Part, ProcessorParams, TextPart
from shared.tools import Tool, ToolFormat
from worker.calls import hermes, react
from worker.engine.prompt import Prompt
from worker.models.family import Model


@runtime_checkable
class ToolTemplate(Protocol):
    """A model whose checkpoint's template may know tools by itself."""

    template_format: ToolFormat | None
    """How that template writes them; None if it doesn't, or in no format that is read."""

    def prepare_with_tools(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams,
        tools: tuple[Tool, ...],
    ) -> Prompt:
        """Render a conversation with tools, calls and results, as `Model.prepare` does one without."""
        ...


def prepare(model: Model, job: ChatJob, messages: tuple[Message, ...], media: dict[MediaPart, bytes]) -> Prompt:
    """Render a job's conversation; raises what `Model.prepare` raises."""
    if job.calling is None:
        return model.prepare(messages, media, job.processor)
    if isinstance(model, ToolTemplate) and model.template_format is job.calling.format:
        return model.prepare_with_tools(messages, media, job.processor, job.tools)
    match job.calling.format:
        case ToolFormat.HERMES:
            facts = model.facts
            written = hermes.write(messages, job.tools, facts.system, has_system=facts.has_system)
            return model.prepare(_whole(written), media, job.processor)
        case ToolFormat.REACT:
            prompt = model.prepare(_whole(react.write(messages, job.tools)), media, job.processor)
            return replace(prompt, stop=(*prompt.stop, react.STOP)) if job.tools else prompt


def _whole(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Join text with text: some families set parts apart."""
    return tuple(Message(message.role, tuple(_joined(message.parts))) for message in messages)


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            yield TextPart("".join(part.text for part in group if isinstance(part, TextPart)))
        else:
            yield from group
