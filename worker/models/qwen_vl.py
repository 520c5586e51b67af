"""Qwen-VL-Chat: how its prompt is written and how it sees pictures.

The network is `qwen_vl_weights`, its vision tower `qwen_vl_vision`, its long texts `qwen_vl_length`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

import torch

from shared.catalogue import MODEL_TYPES
from shared.job import AS_TRAINED, MediaKind, MediaPart, Message, ProcessorParams, Role, TextPart
from worker.checkpoint import Checkpoint, check_context, locate, read_json, read_sampling
from worker.engine.prompt import Prompt
from worker.engine.runner import Runner
from worker.models.device import choose_placement
from worker.models.family import LoadError, ModelFacts, RawPrompt
from worker.models.largest import Extent
from worker.models.memory import start_runner
from worker.models.native import build_native
from worker.models.pictures import find_pictures, largest_prompt, see
from worker.models.pixels import to_pixels
from worker.models.qwen_tokenizer import GROUNDING, IMAGE_END, IMAGE_PAD, IMAGE_START, read_ranks
from worker.models.qwen_vl_length import ATTENTION, LengthTricks
from worker.models.qwen_vl_vision import NUM_QUERIES
from worker.models.qwen_vl_weights import QwenVL, translate_config
from worker.models.refusal import check_wishes
from worker.models.turn import split_open
from worker.models.vocabulary import AnswerDecoder, Control, Segment, Vocabulary
from worker.models.weights import open_weights
from worker.prepare.media import decode_image
from worker.prepare.reduction import shrink
from worker.settings import WorkerSettings

SYSTEM = "You are a helpful assistant."
"""What the authors' chat code says where nobody says anything else."""

_STOPS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenVLChat:
    """One loaded checkpoint; implements `Model`."""

    facts: ModelFacts
    runner: Runner
    vocabulary: Vocabulary
    decoder: AnswerDecoder
    tricks: LengthTricks
    side: int
    """Of a picture, in pixels."""
    system: str = SYSTEM

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation and square its pictures."""
        check_wishes(processor, known={"max_pixels"})
        pictures = find_pictures(messages, NUM_QUERIES + 2, self.facts.max_model_len)
        token_ids = self.render(messages)
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=self.decoder,
            stop_token_ids=self._stop_token_ids,
            **self._features(token_ids, [(part, media[part]) for part in pictures], processor.max_pixels),
            row_features={"ntk_alpha": self.tricks.ntk_alpha(len(token_ids))},
        )

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Continue as it stands."""
        token_ids = self.vocabulary.encode_raw(prompt, is_bare=is_bare)
        return Prompt(
            token_ids=token_ids,
            tokenizer=self.decoder,
            stop_token_ids=self._stop_token_ids,
            row_features={"ntk_alpha": self.tricks.ntk_alpha(max(len(token_ids), 1))},
        )

    @property
    def _stop_token_ids(self) -> frozenset[int]:
        return frozenset(self.vocabulary.control_ids[token] for token in _STOPS)

    def render(self, messages: Sequence[Message], *, escapes: bool = True) -> list[int]:
        """Return the prompt's ids; grounding that anybody types is grounding.

        Without `escapes` typed picture tags are picture tags, as in the authors' code.
        """
        tags = GROUNDING if escapes else (*GROUNDING, IMAGE_START, IMAGE_END, IMAGE_PAD)
        messages, begun = split_open(messages)
        if messages[0].role is not Role.SYSTEM:
            messages = [Message(Role.SYSTEM, (TextPart(self.system),)), *messages]
        render, numbers = self.vocabulary.render, count(1)
        token_ids: list[int] = []
        for message in messages:
            token_ids += self._header(message.role)
            token_ids += self._body(message, numbers, tags)
            token_ids += [*render([Control("<|im_end|>")]), *render(["\n"])]
        token_ids += self._header(Role.ASSISTANT)
        return token_ids if begun is None else token_ids + self._body(begun, numbers, tags)

    def _header(self, role: Role) -> list[int]:
        """Return the beginning of a turn; the original encodes its words apart from what follows."""
        return [*self.vocabulary.render([Control("<|im_start|>"), role.value]), *self.vocabulary.render(["\n"])]

    def _body(self, message: Message, numbers: Iterator[int], tags: Collection[str]) -> list[int]:
        token_ids: list[int] = []
        segments = self._segments(message, numbers, tags)
        for is_picture, group in groupby(segments, key=lambda segment: isinstance(segment, MediaPart)):
            if is_picture:
                token_ids += [token_id for part in group for token_id in self._places(part)]  # type: ignore[arg-type]
            else:
                token_ids += self.vocabulary.render(group)  # type: ignore[arg-type]  # grouped
        return token_ids

    def _segments(
        self, message: Message, numbers: Iterator[int], tags: Collection[str]
    ) -> Iterator[Segment | MediaPart]:
        for part in message.parts:
            if isinstance(part, TextPart):
                pieces = re.split(f"({'|'.join(tags)})", part.text)
                yield from (Control(piece) if piece in tags else piece for piece in pieces)
            else:
                yield from (f"Picture {next(numbers)}: ", part, "\n")

    def _places(self, part: MediaPart) -> list[int]:
        """Return a picture's ids: its tags, and between them a name that nobody reads, as bytes.

        In the original it is a path that the model itself opens; here it tells pictures apart by their content.
        """
        start, pad, end = (self.vocabulary.control_ids[token] for token in (IMAGE_START, IMAGE_PAD, IMAGE_END))
        name = part.sha256.encode()
        return [start, *name, *[pad] * (NUM_QUERIES - len(name)), end]

    def _features(
        self, token_ids: Sequence[int], pictures: Sequence[tuple[MediaPart, bytes]], max_pixels: int | None
    ) -> dict[str, Any]:
        if not pictures:
            return {}
        start = self.vocabulary.control_ids[IMAGE_START]
        starts = torch.tensor([index + 1 for index, token_id in enumerate(token_ids) if token_id == start])
        decoded = [shrink(decode_image(content, part.param), max_pixels) for part, content in pictures]
        places = (starts[:, None] + torch.arange(NUM_QUERIES)).flatten()
        return see([to_pixels(picture, self.side) for picture in decoded], places.tolist(), NUM_QUERIES)


def load(settings: WorkerSettings, report: Callable[[str], None]) -> QwenVLChat:
    """Load the checkpoint that the settings name; raises LoadError if it can't be served."""
    checkpoint = locate(settings, MODEL_TYPES[settings.model_type or ""], report)
    original = read_json(checkpoint.directory / "config.json")
    config, vocabulary = translate_config(original), _read_vocabulary(checkpoint, original)
    trained = config.text_config.max_position_embeddings
    check_context(settings.max_model_len, trained)
    placement = choose_placement(settings)
    weights = open_weights(checkpoint.directory, checkpoint.adapter, report)
    attention = {"text_config": ATTENTION, "vision_config": "sdpa", "": "sdpa"}
    model = build_native(QwenVL, config, weights, placement, attention)
    pad, side = vocabulary.control_ids[IMAGE_PAD], config.vision_config.image_size

    def largest(extent: Extent) -> tuple[Prompt, ...]:
        features = {"ntk_alpha": model.tricks.ntk_alpha(extent.num_tokens)}
        return (largest_prompt(pad, NUM_QUERIES, side, extent, row_features=features),)

    runner = start_runner(model, settings, trained, report, largest)
    return QwenVLChat(
        facts=ModelFacts(
            modalities=(MediaKind.IMAGE,),
            max_model_len=runner.max_model_len,
            sampling=read_sampling(checkpoint.directory),
            device=str(placement),
            digest=checkpoint.digest,
            system=checkpoint.system or SYSTEM,
        ),
        runner=runner,
        vocabulary=vocabulary,
        decoder=AnswerDecoder(vocabulary, shown=GROUNDING),
        tricks=model.tricks,
        side=side,
        system=checkpoint.system or SYSTEM,
    )


def _read_vocabulary(checkpoint: Checkpoint, original: dict[str, Any]) -> Vocabulary:
    vocabulary = read_ranks(checkpoint.directory / "qwen.tiktoken")
    if (found := vocabulary.control_ids[IMAGE_START]) != (wanted := original["visual"]["image_start_id"]):
        raise LoadError(f"qwen.tiktoken puts {IMAGE_START} at {found}, the model at {wanted}: is the file whole?")
    return vocabulary
