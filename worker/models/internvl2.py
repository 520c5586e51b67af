"""The InternVL2 family, all sizes: how its prompt is written and what it is made of.

The weights' layout is `internvl2_weights`, the pictures' is `internvl2_media`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from shared.catalogue import MODEL_TYPES
from shared.errors import InvalidMedia
from shared.job import AS_TRAINED, MediaKind, MediaPart, Message, Part, ProcessorParams, Role, TextPart
from worker.checkpoint import Checkpoint, check_context, locate, read_json, read_sampling
from worker.engine.prompt import Prompt
from worker.engine.runner import Runner
from worker.models.device import choose_placement
from worker.models.family import LoadError, ModelFacts, RawPrompt
from worker.models.internvl2_media import Tiler, largest_prompt, see
from worker.models.internvl2_weights import build_model, translate_config
from worker.models.memory import start_runner
from worker.models.refusal import check_room, check_turn
from worker.models.tokenizer import read_vocabulary
from worker.models.turn import split_open
from worker.models.vocabulary import AnswerDecoder, Control, Segment, Vocabulary
from worker.models.weights import open_weights
from worker.settings import WorkerSettings

SYSTEM = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
"""What the authors' chat code says where nobody says anything else."""

GROUNDING = frozenset({"<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"})
"""Control tokens that stand in answers as they are."""
_IMAGE = "<IMG_CONTEXT>"


@dataclass(frozen=True, slots=True)
class Template:
    """How turns are written: a header of each role, and what ends each."""

    headers: Mapping[Role, Sequence[Segment]]
    end: Control


def _chatml(role: Role) -> list[Segment]:
    return [Control("<|im_start|>"), f"{role}\n"]


def _phi3(role: Role) -> list[Segment]:
    return [Control(f"<|{role}|>"), "\n"]


_SPEAKERS = (Role.SYSTEM, Role.USER, Role.ASSISTANT)
_CHATML = Template({role: _chatml(role) for role in _SPEAKERS}, Control("<|im_end|>"))
TEMPLATES = {
    "internlm2-chat": _CHATML,
    "Hermes-2": _CHATML,
    "phi3-chat": Template({role: _phi3(role) for role in _SPEAKERS}, Control("<|end|>")),
}
"""By the `template` of config.json, as in the authors' conversation.py of 2024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternVL2:
    """One loaded checkpoint; implements `Model`."""

    facts: ModelFacts
    runner: Runner
    vocabulary: Vocabulary
    decoder: AnswerDecoder
    template: Template
    tiler: Tiler
    tile_length: int
    """Tokens a tile stands for."""
    system: str = SYSTEM

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation and cut its pictures into tiles."""
        tiles = self._cut(messages, media, self.tiler.adjusted(processor))
        counts = {part: [len(picture) for picture in pictures] for part, pictures in tiles.items()}
        token_ids = self.render(messages, counts)
        image = self.vocabulary.control_ids[_IMAGE]
        places = [index for index, token_id in enumerate(token_ids) if token_id == image]
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=self.decoder,
            stop_token_ids=self._stop_token_ids,
            strips_answer=True,
            penalizes_prompt=False,
            **see([torch.cat(pictures) for pictures in tiles.values()], places, self.tile_length),
        )

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Continue as it stands."""
        token_ids = self.vocabulary.encode_raw(prompt, is_bare=is_bare)
        return Prompt(token_ids=token_ids, tokenizer=self.decoder, stop_token_ids=self._stop_token_ids)

    @property
    def _stop_token_ids(self) -> frozenset[int]:
        return frozenset({self.vocabulary.control_ids[self.template.end.token]})

    def render(
        self, messages: Sequence[Message], counts: Mapping[MediaPart, Sequence[int]], *, escapes: bool = True
    ) -> list[int]:
        """Return the prompt's ids; `counts` says for each medium how many tiles its pictures have.

        Without `escapes` text that names control tokens becomes them, as in the authors' code.
        """
        return self.vocabulary.render(self._segments(messages, counts), escapes=escapes)

    def _segments(self, messages: Sequence[Message], counts: Mapping[MediaPart, Sequence[int]]) -> Iterator[Segment]:
        messages, begun = split_open(messages)
        yield from self.vocabulary.bos
        if messages[0].role is not Role.SYSTEM:
            messages = [Message(Role.SYSTEM, (TextPart(self.system),)), *messages]
        for index, message in enumerate(messages):
            check_turn(message, index)
            yield from self.template.headers[message.role]
            body = [segment for part in message.parts for segment in self._part(part, counts)]
            if any(body) or message.role is Role.SYSTEM:  # another turn without content is its header alone
                yield from (*body, self.template.end)
        yield from self.template.headers[Role.ASSISTANT]
        for part in begun.parts if begun is not None else ():
            yield from self._part(part, counts)

    def _part(self, part: Part, counts: Mapping[MediaPart, Sequence[int]]) -> Iterator[Segment]:
        if isinstance(part, TextPart):
            yield part.text
            return
        for number, count in enumerate(counts[part], start=1):
            if part.kind is MediaKind.VIDEO:
                yield f"Frame{number}: "
            yield Control("<img>")
            yield from [Control(_IMAGE)] * (self.tile_length * count)
            yield from (Control("</img>"), "\n")

    def _cut(
        self, messages: Sequence[Message], media: Mapping[MediaPart, bytes], tiler: Tiler
    ) -> dict[MediaPart, list[torch.Tensor]]:
        """Return each medium's pictures as tiles; raises as soon as they can't fit in the context."""
        tiles: dict[MediaPart, list[torch.Tensor]] = {}
        num_tokens = 0
        for part in (part for message in messages for part in message.parts if isinstance(part, MediaPart)):
            tiles[part] = _cut_one(tiler, part, media[part])
            num_tokens += self.tile_length * sum(map(len, tiles[part]))
            check_room(num_tokens, self.facts.max_model_len, part.param)
        return tiles


def _cut_one(tiler: Tiler, part: MediaPart, content: bytes) -> list[torch.Tensor]:
    match part.kind:
        case MediaKind.IMAGE:
            return [tiler.picture(content, part.param)]
        case MediaKind.VIDEO:
            return tiler.frames(content, part.param)
        case MediaKind.AUDIO:
            raise InvalidMedia("the model takes no audio", param=part.param)


def load(settings: WorkerSettings, report: Callable[[str], None]) -> InternVL2:
    """Load the checkpoint that the settings name; raises LoadError if it can't be served."""
    checkpoint = locate(settings, MODEL_TYPES[settings.model_type or ""], report)
    original = read_json(checkpoint.directory / "config.json")
    vocabulary, template = _read_language(checkpoint, original)
    config = translate_config(original, vocabulary.control_ids[_IMAGE])
    trained = config.text_config.max_position_embeddings
    check_context(settings.max_model_len, trained)
    placement = choose_placement(settings)
    weights = open_weights(checkpoint.directory, checkpoint.adapter, report)
    model = build_model(config, weights, placement)
    image, tiler = vocabulary.control_ids[_IMAGE], _read_tiler(original)
    largest = partial(largest_prompt, tiler.size, image, config.image_seq_length)
    runner = start_runner(model, settings, trained, report, largest)
    return InternVL2(
        facts=ModelFacts(
            modalities=(MediaKind.IMAGE, MediaKind.VIDEO),
            max_model_len=runner.max_model_len,
            sampling=read_sampling(checkpoint.directory),
            device=str(placement),
            digest=checkpoint.digest,
            system=checkpoint.system or SYSTEM,
        ),
        runner=runner,
        vocabulary=vocabulary,
        decoder=AnswerDecoder(vocabulary, shown=GROUNDING),
        template=template,
        tiler=tiler,
        tile_length=config.image_seq_length,
        system=checkpoint.system or SYSTEM,
    )


def _read_language(checkpoint: Checkpoint, original: dict[str, Any]) -> tuple[Vocabulary, Template]:
    if (template := TEMPLATES.get(name := original.get("template", ""))) is None:
        raise LoadError(f"the checkpoint's prompt template is {name}; known are {', '.join(TEMPLATES)}")
    vocabulary = read_vocabulary(checkpoint.directory)
    segments = [*(segment for header in template.headers.values() for segment in header), template.end]
    needed = {segment.token for segment in segments if isinstance(segment, Control)} | {"<img>", _IMAGE, "</img>"}
    if absent := sorted(needed - vocabulary.control_ids.keys()):
        raise LoadError(f"the checkpoint's tokenizer lacks {', '.join(absent)}")
    return vocabulary, template


def _read_tiler(original: dict[str, Any]) -> Tiler:
    return Tiler(
        size=original.get("force_image_size") or original["vision_config"]["image_size"],
        max_tiles=original.get("max_dynamic_patch", 12) if original.get("dynamic_image_size", True) else 1,
        has_thumbnail=original.get("use_thumbnail", True),
    )
