"""The prompt of a job that has to do with tools, whatever the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol, runtime_checkable

from shared.job import ChatJob, MediaPart, Message, Part, ProcessorParams, TextPart
from shared.tools import Tool, ToolFormat
from worker.calls import introduction, react
from worker.calls.wording import WORDINGS
from worker.engine.prompt import Prompt, Tokenizer
from worker.models.family import Model, ModelFacts


@runtime_checkable
class ToolTemplate(Protocol):
    """A model whose checkpoint's template may know tools by itself."""

    facts: ModelFacts
    call_decoders: Mapping[ToolFormat, Tokenizer]
    """What reads answers with calls in them."""

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
    form = job.calling.format
    if not isinstance(model, ToolTemplate):
        return _in_our_words(model, job, form, messages, media)
    if model.facts.template_format is form:
        return model.prepare_with_tools(messages, media, job.processor, job.tools)
    return replace(_in_our_words(model, job, form, messages, media), tokenizer=model.call_decoders[form])


def _in_our_words(
    model: Model, job: ChatJob, form: ToolFormat, messages: tuple[Message, ...], media: dict[MediaPart, bytes]
) -> Prompt:
    if form is ToolFormat.REACT:
        prompt = model.prepare(_whole(react.write(messages, job.tools)), media, job.processor)
        return replace(prompt, stop=(*prompt.stop, react.STOP)) if job.tools else prompt
    facts, wording = model.facts, WORDINGS[form]
    written = introduction.write(messages, job.tools, wording, facts.system, has_system=facts.has_system)
    return model.prepare(_whole(written), media, job.processor)


def _whole(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Join text with text: some families set parts apart."""
    return tuple(Message(message.role, tuple(_joined(message.parts))) for message in messages)


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            yield TextPart("".join(part.text for part in group if isinstance(part, TextPart)))
        else:
            yield from group
