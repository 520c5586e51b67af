"""MiniCPM-V 2.5 and 2.6: what a conversation becomes, and how a checkpoint is loaded.

The words around it are `minicpmv_prompt`, the pictures `minicpmv_media`, the network `minicpmv_network`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.catalogue import MODEL_TYPES
from shared.errors import InvalidMedia
from shared.job import AS_TRAINED, MediaKind, MediaPart, Message, ProcessorParams
from worker.checkpoint import check_context, locate, read_json, read_sampling
from worker.engine.prompt import Prompt
from worker.engine.runner import Runner
from worker.models.device import choose_placement
from worker.models.family import LoadError, ModelFacts, RawPrompt
from worker.models.memory import start_runner
from worker.models.minicpmv_config import translate_config
from worker.models.minicpmv_media import Cut, Layout, Slicer
from worker.models.minicpmv_network import MiniCPMV as Network
from worker.models.minicpmv_prompt import CLEAN_UP, DIALECTS, PLACEHOLDER, Dialect, Grid, ReplyReader, Writer
from worker.models.native import build_native
from worker.models.refusal import check_room
from worker.models.tokenizer import read_vocabulary
from worker.models.vocabulary import Vocabulary
from worker.models.weights import open_weights
from worker.settings import WorkerSettings

_CLIP_SLICES = 2
"""Most slices of any picture beside a clip, as in the authors' published example; it has no image ids either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniCPMV:
    """One loaded checkpoint; implements `Model`."""

    facts: ModelFacts
    runner: Runner
    vocabulary: Vocabulary
    reader: ReplyReader
    writer: Writer
    slicer: Slicer
    layout: Layout
    cleans_up: bool
    """Whether answers lose spaces before punctuation, as in 2.5."""

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation and cut its pictures into tiles."""
        has_clip = any(part.kind is MediaKind.VIDEO for part in media)
        slicer = self.slicer.adjusted(processor, self._known_wishes, _CLIP_SLICES if has_clip else None)
        cuts = self._cut(messages, media, slicer)
        numbered = not has_clip if processor.use_image_id is None else processor.use_image_id
        grids = {part: [cut.grid for cut in pictures] for part, pictures in cuts.items()}
        token_ids = self.render(messages, grids, numbered=numbered)
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=self.reader,
            stop_token_ids=self._stop_token_ids,
            strips_answer=True,
            penalizes_prompt=False,
            rewrites=CLEAN_UP if self.cleans_up else (),
            **self.layout.see(token_ids, [cut.tiles for pictures in cuts.values() for cut in pictures]),
        )

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Continue as it stands."""
        token_ids = self.vocabulary.encode_raw(prompt, is_bare=is_bare)
        return Prompt(token_ids=token_ids, tokenizer=self.reader, stop_token_ids=self._stop_token_ids)

    @property
    def _stop_token_ids(self) -> frozenset[int]:
        return frozenset(self.vocabulary.control_ids[stop] for stop in self.writer.dialect.stops)

    def render(
        self,
        messages: Sequence[Message],
        grids: Mapping[MediaPart, Sequence[Grid]],
        *,
        numbered: bool = True,
        escapes: bool = True,
    ) -> list[int]:
        """Return the prompt's ids; `grids` says how the pictures of each medium are sliced.

        Without `escapes` text that names control tokens becomes them, as in the authors' code.
        """
        has_ids = numbered and self.writer.dialect.has_image_ids
        return self.vocabulary.render(self.writer.write(messages, grids, numbered=has_ids), escapes=escapes)

    @property
    def _known_wishes(self) -> frozenset[str]:
        ids = {"use_image_id"} if self.writer.dialect.has_image_ids else set()
        frames = {"num_frames", "fps"} if MediaKind.VIDEO in self.facts.modalities else set()
        return frozenset({"max_slice_nums", "max_pixels"} | ids | frames)

    def _cut(
        self, messages: Sequence[Message], media: Mapping[MediaPart, bytes], slicer: Slicer
    ) -> dict[MediaPart, list[Cut]]:
        """Return each medium's pictures as tiles; raises as soon as they can't fit in the context."""
        cuts: dict[MediaPart, list[Cut]] = {}
        num_tokens = 0
        for part in (part for message in messages for part in message.parts if isinstance(part, MediaPart)):
            if part.kind not in self.facts.modalities:
                raise InvalidMedia(f"the model takes no {part.kind}", param=part.param)
            cuts[part] = slicer.pictures(part.kind, media[part], part.param)
            num_tokens += sum(self.writer.num_tokens(cut.grid) for cut in cuts[part])
            check_room(num_tokens, self.facts.max_model_len, part.param)
        return cuts


def load(settings: WorkerSettings, report: Callable[[str], None]) -> MiniCPMV:
    """Load the checkpoint that the settings name; raises LoadError if it can't be served."""
    entry = MODEL_TYPES[settings.model_type or ""]
    checkpoint = locate(settings, entry, report)
    original = read_json(checkpoint.directory / "config.json")
    vocabulary, dialect = _read_language(checkpoint.directory, str(original.get("version")))
    config = translate_config(original, vocabulary.control_ids[PLACEHOLDER.token])
    trained = config.text_config.max_position_embeddings
    check_context(settings.max_model_len, trained)
    placement = choose_placement(settings)
    weights = open_weights(checkpoint.directory, checkpoint.adapter, report)
    model = build_native(Network, config, weights, placement)
    slicer = _read_slicer(read_json(checkpoint.directory / "preprocessor_config.json"))
    layout = Layout(config.image_token_id, config.query_num, slicer.patch_size, config.has_flat_positions)
    runner = start_runner(model, settings, trained, report, partial(layout.largest_prompt, slicer))
    return MiniCPMV(
        facts=ModelFacts(
            modalities=entry.modalities,
            max_model_len=runner.max_model_len,
            sampling=read_sampling(checkpoint.directory),
            device=str(placement),
            digest=checkpoint.digest,
            system=checkpoint.system or dialect.system,
        ),
        runner=runner,
        vocabulary=vocabulary,
        reader=ReplyReader(vocabulary, dialect),
        writer=Writer(dialect, config.query_num, checkpoint.system or dialect.system),
        slicer=slicer,
        layout=layout,
        cleans_up=read_json(checkpoint.directory / "tokenizer_config.json").get("clean_up_tokenization_spaces", False),
    )


def _read_language(directory: Path, version: str) -> tuple[Vocabulary, Dialect]:
    if (dialect := DIALECTS.get(version)) is None:
        raise LoadError(f"the checkpoint is MiniCPM-V of version {version}; served are {', '.join(DIALECTS)}")
    vocabulary = read_vocabulary(directory)
    if absent := sorted(dialect.controls - vocabulary.control_ids.keys()):
        raise LoadError(f"the checkpoint's tokenizer lacks {', '.join(absent)}")
    return vocabulary, dialect


def _read_slicer(original: dict[str, Any]) -> Slicer:
    return Slicer(
        scale=original["scale_resolution"],
        patch_size=original["patch_size"],
        max_slices=original["max_slice_nums"],
    )
