"""The Yi-VL family, both sizes: how its prompt is written and how it sees pictures.

The weights' layout is `yi_vl_weights`. Prompt and pictures follow the authors' single inference (Yi/VL of 2024).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from shared.catalogue import MODEL_TYPES
from shared.errors import InvalidMedia
from shared.job import AS_TRAINED, MediaKind, MediaPart, Message, ProcessorParams, Role, TextPart
from worker.checkpoint import check_context, locate, read_sampling
from worker.engine.prompt import Prompt
from worker.engine.runner import Runner
from worker.models.device import choose_placement
from worker.models.family import LoadError, ModelFacts, RawPrompt
from worker.models.largest import Extent
from worker.models.memory import start_runner
from worker.models.native import build_native
from worker.models.pictures import find_pictures, largest_prompt, see
from worker.models.pixels import MEAN, to_pixels
from worker.models.refusal import check_wishes
from worker.models.tokenizer import read_vocabulary
from worker.models.turn import split_open
from worker.models.vocabulary import AnswerDecoder, Control, Segment, Vocabulary
from worker.models.weights import open_weights
from worker.models.yi_vl_weights import TOWER, YiVL, read_config
from worker.prepare.media import decode_image
from worker.prepare.reduction import shrink
from worker.settings import WorkerSettings

SYSTEM = (
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. "
    "Read all the images carefully, and respond to the human's questions with informative, helpful, detailed "
    "and polite answers. "
    "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
    "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。"
)
"""What the authors' template says where nobody says anything else."""

_BORDER = "###"
"""Between turns; an ordinary piece to the tokenizer, and still the one that ends answers."""
_UNLISTED = re.compile(rf"<\|.+\|>|{_BORDER}")
_PLACE = "<|startoftext|>"
"""Keeps a picture's places: the original has no token for them, and no prompt of it has this one."""
_END = "<|endoftext|>"
_NAMES = {Role.USER: "Human", Role.ASSISTANT: "Assistant"}
_CANVAS = tuple(int(255 * colour) for colour in MEAN)
MAX_CANVAS_PIXELS = 178_956_970
"""Of the square around a picture, which may be much larger than the picture is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YiVLChat:
    """One loaded checkpoint; implements `Model`."""

    facts: ModelFacts
    runner: Runner
    vocabulary: Vocabulary
    decoder: AnswerDecoder
    side: int
    """Of a picture, in pixels."""
    picture_length: int
    """Tokens a picture stands for."""
    system: str = SYSTEM

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation and square its pictures."""
        check_wishes(processor, known={"max_pixels"})
        pictures = find_pictures(messages, self.picture_length, self.facts.max_model_len)
        token_ids = self.render(messages)
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=self.decoder,
            stop_token_ids=self._stop_token_ids,
            stop=(_BORDER,),
            strips_answer=True,
            **self._features(token_ids, [(part, media[part]) for part in pictures], processor.max_pixels),
        )

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Continue as it stands."""
        token_ids = self.vocabulary.encode_raw(prompt, is_bare=is_bare)
        return Prompt(token_ids=token_ids, tokenizer=self.decoder, stop_token_ids=self._stop_token_ids)

    @property
    def _stop_token_ids(self) -> frozenset[int]:
        return frozenset({self.vocabulary.control_ids[_END]})

    def render(self, messages: Sequence[Message], *, escapes: bool = True) -> list[int]:
        """Return the prompt's ids; without `escapes` text may forge turns, as in the authors' code."""
        return self.vocabulary.render(self._segments(messages), escapes=escapes)

    def _segments(self, messages: Sequence[Message]) -> Iterator[Segment]:
        messages, begun = split_open(messages)
        if messages[0].role is not Role.SYSTEM:
            messages = [Message(Role.SYSTEM, (TextPart(self.system),)), *messages]
        yield from self._body(messages[0])
        yield from ("\n\n", Control(_BORDER), " ")
        for message in messages[1:]:
            yield f"{_NAMES[message.role]}:"
            if any(body := list(self._body(message))):  # a turn without content is its name alone
                yield from (" ", *body, "\n", Control(_BORDER), " ")
        yield f"{_NAMES[Role.ASSISTANT]}:"
        if begun is not None:
            yield from (" ", *self._body(begun))

    def _body(self, message: Message) -> Iterator[Segment]:
        for part in message.parts:
            if isinstance(part, TextPart):
                yield part.text
            else:
                yield from [Control(_PLACE)] * self.picture_length
                yield "\n"

    def _features(
        self, token_ids: Sequence[int], pictures: Sequence[tuple[MediaPart, bytes]], max_pixels: int | None
    ) -> dict[str, Any]:
        if not pictures:
            return {}
        place = self.vocabulary.control_ids[_PLACE]
        places = [index for index, token_id in enumerate(token_ids) if token_id == place]
        seen = [self._see(content, part.param, max_pixels) for part, content in pictures]
        return see(seen, places, self.picture_length)

    def _see(self, content: bytes, param: str, max_pixels: int | None) -> torch.Tensor:
        """Return one picture in the middle of a square of CLIP's mean colour, shape [3, side, side]."""
        picture = shrink(decode_image(content, param), max_pixels)
        longer = max(picture.size)
        if longer**2 > MAX_CANVAS_PIXELS:
            raise InvalidMedia(
                f"the picture's longer side has {longer} pixels; the model sees squares of at most {MAX_CANVAS_PIXELS} "
                "pixels",
                param=param,
            )
        square = Image.new("RGB", (longer, longer), _CANVAS)
        square.paste(picture, ((longer - picture.width) // 2, (longer - picture.height) // 2))
        return to_pixels(square, self.side)


def load(settings: WorkerSettings, report: Callable[[str], None]) -> YiVLChat:
    """Load the checkpoint that the settings name; raises LoadError if it can't be served."""
    checkpoint = locate(settings, MODEL_TYPES[settings.model_type or ""], report)
    vocabulary = read_vocabulary(checkpoint.directory, _UNLISTED)
    if absent := sorted({_BORDER, _PLACE, _END} - vocabulary.control_ids.keys()):
        raise LoadError(f"the checkpoint's tokenizer lacks {', '.join(absent)}")
    config, tower = read_config(checkpoint.directory)
    trained = config.text_config.max_position_embeddings
    check_context(settings.max_model_len, trained)
    placement = choose_placement(settings)
    weights = open_weights(checkpoint.directory, checkpoint.adapter, report, beside={TOWER: tower})
    model = build_native(YiVL, config, weights, placement)
    vision = config.vision_config
    place, length = vocabulary.control_ids[_PLACE], (vision.image_size // vision.patch_size) ** 2

    def largest(extent: Extent) -> tuple[Prompt, ...]:
        return (largest_prompt(place, length, vision.image_size, extent),)

    runner = start_runner(model, settings, trained, report, largest)
    return YiVLChat(
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
        decoder=AnswerDecoder(vocabulary, shown=vocabulary.control_ids.keys() - {_PLACE, _END, "<unk>"}),
        side=vision.image_size,
        picture_length=length,
        system=checkpoint.system or SYSTEM,
    )
