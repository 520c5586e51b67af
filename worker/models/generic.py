"""The generic family: whatever transformers maps as a multimodal or causal language model, by its own chat template.

No code comes from the checkpoint. Its text is `generic_text`'s business, its media `generic_media`'s.
"""

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor

from shared.catalogue import MODEL_TYPES
from shared.errors import InvalidRequest
from shared.job import AS_TRAINED, MediaPart, Message, Part, ProcessorParams, Role, TextPart
from shared.tools import Tool, ToolFormat
from worker.checkpoint import check_context, locate, read_sampling
from worker.engine.alone import AloneRunner
from worker.engine.prompt import Prompt, Tokenizer
from worker.engine.runner import Runner
from worker.engine.torch_runner import TorchRunner
from worker.models.adapter import read_adapter
from worker.models.device import choose_placement
from worker.models.family import LoadError, ModelFacts, RawPrompt
from worker.models.generic_decoder import AnswerTokenizer
from worker.models.generic_largest import PER_TOKEN, Specimens, cast
from worker.models.generic_media import Medium, Wishes, decode, modalities, read_wishes
from worker.models.generic_network import load_network, read_architecture
from worker.models.generic_pieces import count_media, find_pieces
from worker.models.generic_template import Template
from worker.models.generic_text import Escaper
from worker.models.generic_tools import call_fields, find_format, showing_calls, suited, told
from worker.models.generic_variables import read_variables
from worker.models.largest import Largest
from worker.models.memory import start_alone, start_runner
from worker.models.placement import place
from worker.models.tuned import merge_changes
from worker.models.turn import split_open
from worker.models.weights import open_adapter
from worker.settings import WorkerSettings

DEFAULT_CONTEXT = 8192
"""Tokens, where neither the checkpoint nor the operator says."""
MAX_TEXT_LENGTH = 2**26
MAX_TOKEN_LENGTH = 256
"""Characters; a prompt whose tokens were longer on average would be hardly anything but blanks."""
MAX_REASON_LENGTH = 300
Media = Mapping[MediaPart, Medium]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generic:
    """One loaded checkpoint; implements `Model`."""

    facts: ModelFacts
    runner: Runner
    processor: Any
    """A multimodal model's processor, a text model's tokenizer."""
    tokenizer: Any
    escaper: Escaper
    decoder: AnswerTokenizer
    call_decoders: Mapping[ToolFormat, Tokenizer]
    """The same, for answers with calls in them."""
    stop_token_ids: frozenset[int]
    counts_prompt: bool
    """Whether `generate()` would let the repetition penalty count the prompt; an encoder's it doesn't."""
    config: Any
    """The network's, which names the placeholders of media."""
    dtype: torch.dtype
    system: str | None = None
    """What a conversation without a system message begins with; None leaves it to the template."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Processors and fast tokenizers keep settings of the call in themselves."""

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation by the checkpoint's template; raises InvalidRequest if that refuses it."""
        return self._prompt(self._prepare(messages, media, processor, ()), self.decoder)

    def prepare_with_tools(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams,
        tools: tuple[Tool, ...],
    ) -> Prompt:
        """Render a conversation with tools by the checkpoint's template, which knows some."""
        form = self.facts.template_format
        assert form is not None
        inputs = self._prepare(tuple(suited(messages, form)), media, processor, tools)
        return self._prompt(inputs, self.call_decoders[form])

    def _prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams,
        tools: tuple[Tool, ...],
    ) -> dict[str, Any]:
        if self.system is not None and messages[0].role is not Role.SYSTEM:
            messages = (Message(Role.SYSTEM, (TextPart(self.system),)), *messages)
        wishes = read_wishes(self.processor, processor)
        decoded = {part: decode(self.processor, part, media[part], wishes) for part in media}
        with self.lock:
            turns = self._turns(messages, decoded)
            asked = processor.chat_template_kwargs or {}
            variables = read_variables(self.processor, self.tokenizer, asked, self.escaper)
            if tools:
                variables["tools"] = told(tools, self.escaper)
        is_open = split_open(messages)[1] is not None
        variables |= {"add_generation_prompt": not is_open, "continue_final_message": is_open}
        text = self.template.write(turns, variables, self._max_text_length)
        with self.lock:
            return self._read(turns, text, _in_order(messages, decoded), wishes)

    @property
    def template(self) -> Template:
        """The checkpoint's."""
        return Template(self.processor)

    @property
    def _max_text_length(self) -> int:
        return min(MAX_TEXT_LENGTH, self.facts.max_model_len * MAX_TOKEN_LENGTH)

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Continue as it stands."""
        with self.lock:
            if isinstance(prompt, str):
                marked = self.escaper.escape(prompt, is_own=False)
                token_ids = self.tokenizer(marked, add_special_tokens=not is_bare)["input_ids"]
                prompt = tuple(token_id for token_id in token_ids if token_id != self.escaper.mark_id)
            told = self.processor(text=["a"], return_tensors="pt")
        per_token = {name: told[name][:, :1].repeat(1, len(prompt)) for name in PER_TOKEN if name in told}
        return Prompt(
            token_ids=prompt,
            tokenizer=self.decoder,
            stop_token_ids=self.stop_token_ids,
            token_features=per_token,
            penalizes_prompt=self.counts_prompt,
        )

    def _read(self, turns: list[dict[str, Any]], text: str, media: list[Medium], wishes: Wishes) -> dict[str, Any]:
        clips = [medium.metadata for medium in media if medium.metadata]
        options = {"video_metadata": clips, "do_sample_frames": False} if clips else {}
        if wishes.size is not None:
            options["images_kwargs"] = {"size": wishes.size}
        try:
            return self.template.read(turns, text, **({"processor_kwargs": options} if options else {}))
        except ValueError as error:  # it may want pictures in some shape, or as many as it finds places for
            reason = str(error)[:MAX_REASON_LENGTH]
            raise InvalidRequest(
                f"the model's processor refuses the conversation: {reason}", param="messages"
            ) from error

    def _turns(self, messages: tuple[Message, ...], media: Media) -> list[dict[str, Any]]:
        names: dict[str, str] = {}
        return [
            {"role": str(message.role), "content": self._content(message, media)}
            | call_fields(message, self.escaper, names)
            for message in messages
        ]

    def _content(self, message: Message, media: Media) -> str | list[dict[str, Any]]:
        is_own = message.role is Role.ASSISTANT
        if self.processor is self.tokenizer:
            return self.escaper.escape("".join(_texts(message)), is_own=is_own)
        return [self._part(part, media, is_own=is_own) for part in message.parts]

    def _part(self, part: Part, media: Media, *, is_own: bool) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"type": "text", "text": self.escaper.escape(part.text, is_own=is_own)}
        return {"type": str(part.kind), str(part.kind): media[part].content}

    def _prompt(self, inputs: dict[str, Any], decoder: Tokenizer) -> Prompt:
        marked = inputs.pop("input_ids")  # [1, tokens]
        kept = marked[0] != self.escaper.mark_id
        token_ids = marked[0][kept].tolist()
        per_token = {name: inputs.pop(name)[:, kept] for name in PER_TOKEN if name in inputs}
        features = {name: cast(feature, self.dtype) for name, feature in inputs.items()}
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=decoder,
            stop_token_ids=self.stop_token_ids,
            features=features,
            token_features=per_token,
            penalizes_prompt=self.counts_prompt,
            pieces=find_pieces(features, token_ids, self.config),
            media_tokens=count_media(token_ids, self.config),
        )


def _texts(message: Message) -> list[str]:
    return [part.text for part in message.parts if isinstance(part, TextPart)]


def _in_order(messages: tuple[Message, ...], media: Media) -> list[Medium]:
    return [media[part] for message in messages for part in message.parts if isinstance(part, MediaPart)]


def load(settings: WorkerSettings, report: Callable[[str], None]) -> Generic:
    """Load the checkpoint that the settings name; raises LoadError if it can't be served."""
    checkpoint = locate(settings, MODEL_TYPES[settings.model_type or ""], report)
    architecture = read_architecture(checkpoint.directory)
    context = architecture.context or settings.max_model_len or DEFAULT_CONTEXT
    check_context(settings.max_model_len, context)
    processor = read_processor(checkpoint.directory)
    tokenizer = getattr(processor, "tokenizer", processor)
    placement = choose_placement(settings)
    report(f"loading {architecture.model_class.__name__}")
    model = load_network(checkpoint.directory, architecture, placement)
    if checkpoint.adapter is not None:
        changes = read_adapter(checkpoint.adapter, open_adapter(checkpoint.adapter))
        merge_changes(model, changes, str(checkpoint.adapter))
    place(model, placement)
    obstacle = architecture.obstacle
    largest = Specimens(processor, model.config, placement.dtype, settings.media_limits).largest
    runner = _start(model, obstacle, settings, context, report, largest)
    decoder = AnswerTokenizer(deepcopy(tokenizer))  # the engine's thread reads while others write
    return Generic(
        facts=ModelFacts(
            modalities=modalities(processor),
            max_model_len=runner.max_model_len,
            sampling=read_sampling(checkpoint.directory),
            device=str(placement),
            digest=checkpoint.digest,
            has_system=False,
            template_format=find_format(Template(processor)),
            max_num_seqs=None if obstacle is None else 1,
        ),
        runner=runner,
        processor=processor,
        tokenizer=tokenizer,
        escaper=Escaper(tokenizer, str(processor.chat_template), _placeholders(processor)),
        decoder=decoder,
        call_decoders=showing_calls(decoder, tokenizer),
        stop_token_ids=_stop_token_ids(model.generation_config.eos_token_id, tokenizer.eos_token_id),
        counts_prompt=not model.config.is_encoder_decoder,
        config=model.config,
        dtype=placement.dtype,
        system=checkpoint.system,
    )


def _start(
    model: Any,
    obstacle: str | None,
    settings: WorkerSettings,
    context: int,
    report: Callable[[str], None],
    largest: Largest,
) -> TorchRunner | AloneRunner:
    if obstacle is None:
        return start_runner(model, settings, context, report, largest)
    report(f"runs one request at a time: {obstacle}")
    return start_alone(model, settings, context, report, largest)


def read_processor(directory: Path) -> Any:
    """Return the processor, of a text model the tokenizer; raises LoadError if it has no chat template."""
    try:
        processor = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
    except (ImportError, ValueError, OSError) as error:
        raise LoadError(f"the processor of {directory} can't be loaded: {str(error).strip()}") from error
    if not processor.chat_template:
        raise LoadError(f"{directory} has no chat template, so it isn't known how its prompts are written")
    return processor


def _placeholders(processor: Any) -> set[str]:
    """Return the strings that a processor replaces by media, special tokens or not."""
    named = {name: value for name, value in vars(processor).items() if name.endswith("_token")}
    return {value for value in named.values() if isinstance(value, str) and value.strip()}


def _stop_token_ids(*given: int | list[int] | None) -> frozenset[int]:
    listed = [[ids] if isinstance(ids, int) else ids or [] for ids in given]
    return frozenset(token_id for ids in listed for token_id in ids)
