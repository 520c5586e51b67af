"""The Qwen2-Audio family: how its prompt is written and how its recordings are heard.

The weights and the tower are `qwen2_audio_network`'s.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2AudioConfig, WhisperFeatureExtractor

from shared.catalogue import MODEL_TYPES
from shared.errors import ContextLengthExceeded, InvalidMedia, InvalidRequest
from shared.job import AS_TRAINED, MediaKind, MediaPart, Message, ProcessorParams, Role, TextPart
from worker.checkpoint import check_context, locate, read_json, read_sampling
from worker.engine.pieces import place
from worker.engine.prompt import Prompt
from worker.engine.runner import Runner
from worker.models.device import choose_placement
from worker.models.family import LoadError, ModelFacts, RawPrompt
from worker.models.largest import Extent, black, media_prompt
from worker.models.memory import start_runner
from worker.models.native import build_native
from worker.models.qwen2_audio_network import Qwen2AudioNetwork, num_rows
from worker.models.refusal import check_wishes
from worker.models.tokenizer import read_vocabulary
from worker.models.turn import split_open
from worker.models.vocabulary import AnswerDecoder, Control, Segment, Vocabulary
from worker.models.weights import open_weights
from worker.prepare.media import decode_audio
from worker.settings import WorkerSettings

SYSTEM = "You are a helpful assistant."
"""What the authors' template says where nobody says anything else."""
FRAMES_PER_S = 100
HEARD_S = 30
"""The authors' feature extractor drops what comes later."""

_START, _END, _ENDOFTEXT = Control("<|im_start|>"), Control("<|im_end|>"), Control("<|endoftext|>")
_AUDIO, _AUDIO_BOS, _AUDIO_EOS = Control("<|AUDIO|>"), Control("<|audio_bos|>"), Control("<|audio_eos|>")
_NEEDED = (_START, _END, _ENDOFTEXT, _AUDIO, _AUDIO_BOS, _AUDIO_EOS)


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as the model hears it."""

    mel: np.ndarray  # [bands, frames], padded to HEARD_S
    num_frames: int
    """Frames that are sound, 100 a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2Audio:
    """One loaded checkpoint; implements `Model`."""

    facts: ModelFacts
    runner: Runner
    vocabulary: Vocabulary
    decoder: AnswerDecoder
    extractor: WhisperFeatureExtractor
    system: str = SYSTEM

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation and turn its recordings into log-mel frames."""
        check_wishes(processor, known=())
        recordings = self._listen(messages, media)
        counts = {part: num_rows(recording.num_frames) for part, recording in recordings.items()}
        token_ids = self.render(messages, counts)
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=self.decoder,
            stop_token_ids=self._stop_token_ids,
            **_heard(token_ids, self.vocabulary.control_ids[_AUDIO.token], list(recordings.values())),
        )

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Continue as it stands."""
        token_ids = self.vocabulary.encode_raw(prompt, is_bare=is_bare)
        return Prompt(token_ids=token_ids, tokenizer=self.decoder, stop_token_ids=self._stop_token_ids)

    @property
    def _stop_token_ids(self) -> frozenset[int]:
        return frozenset(self.vocabulary.control_ids[stop.token] for stop in (_END, _ENDOFTEXT))

    def render(
        self, messages: Sequence[Message], counts: Mapping[MediaPart, int], *, escapes: bool = True
    ) -> list[int]:
        """Return the prompt's ids; `counts` says how many rows each recording has.

        Without `escapes` text that names control tokens becomes them, as in the authors' code.
        """
        return self.vocabulary.render(self._segments(messages, counts), escapes=escapes)

    def _segments(self, messages: Sequence[Message], counts: Mapping[MediaPart, int]) -> Iterator[Segment]:
        messages, begun = split_open(messages)
        if messages[0].role is not Role.SYSTEM:
            messages = [Message(Role.SYSTEM, (TextPart(self.system),)), *messages]
        numbers = count(1)  # over the whole conversation
        for index, message in enumerate(messages):
            _check_role(message, index)
            yield from (_START, f"{message.role}\n")
            for part in message.parts:
                if isinstance(part, TextPart):
                    yield part.text
                else:
                    yield from (f"Audio {next(numbers)}: ", _AUDIO_BOS)
                    yield from [_AUDIO] * counts[part]
                    yield from (_AUDIO_EOS, "\n")
            yield from (_END, "\n")
        yield from (_START, f"{Role.ASSISTANT}\n")
        yield from (part.text for part in begun.parts if isinstance(part, TextPart)) if begun is not None else ()

    def _listen(self, messages: Sequence[Message], media: Mapping[MediaPart, bytes]) -> dict[MediaPart, Recording]:
        """Return each recording's frames; raises as soon as they can't fit in the context."""
        recordings: dict[MediaPart, Recording] = {}
        num_tokens = 0
        for part in (part for message in messages for part in message.parts if isinstance(part, MediaPart)):
            recordings[part] = self._hear(part, media[part])
            num_tokens += num_rows(recordings[part].num_frames)
            if num_tokens > self.facts.max_model_len:
                raise ContextLengthExceeded(
                    f"the recordings up to {part.param} alone take {num_tokens} tokens; "
                    f"the model takes {self.facts.max_model_len}",
                    param="messages",
                )
        return recordings

    def _hear(self, part: MediaPart, content: bytes) -> Recording:
        if part.kind is not MediaKind.AUDIO:
            raise InvalidMedia(f"the model takes no {part.kind}", param=part.param)
        rate = self.extractor.sampling_rate
        signal = decode_audio(content, rate, part.param, keep_s=HEARD_S)
        mel = self.extractor(signal, sampling_rate=rate, return_tensors="np")["input_features"][0]
        return Recording(mel, num_frames=ceil(len(signal) / self.extractor.hop_length))


def _frames(recordings: Collection[Recording]) -> dict[str, torch.Tensor]:
    return {
        "input_features": torch.from_numpy(np.stack([recording.mel for recording in recordings])),
        "num_frames": torch.tensor([recording.num_frames for recording in recordings]),
    }


def _heard(token_ids: Sequence[int], placeholder: int, recordings: Sequence[Recording]) -> dict[str, Any]:
    if not recordings:
        return {}
    places = [index for index, token_id in enumerate(token_ids) if token_id == placeholder]
    lengths = [num_rows(recording.num_frames) for recording in recordings]
    given = [_frames([recording]) for recording in recordings]
    return {"features": _frames(recordings), "pieces": place("audio", given, places, lengths)}


def _largest_prompt(placeholder: int, bands: int, extent: Extent) -> tuple[Prompt, ...]:
    """Return a prompt full of recordings that are heard to their ends; one in a context too short for that."""
    num_frames = min(HEARD_S * FRAMES_PER_S, 4 * (extent.num_tokens - 1))

    def hear_nothing(count: int) -> dict[str, torch.Tensor]:
        mel = black(count, bands, HEARD_S * FRAMES_PER_S)
        return {"input_features": mel, "num_frames": torch.full((count,), num_frames)}

    return (media_prompt(extent, "audio", placeholder, num_rows(num_frames), hear_nothing),)


def _check_role(message: Message, index: int) -> None:
    if message.role is Role.SYSTEM and index > 0:
        raise InvalidRequest("only the first message may be the system's", param="messages")
    if message.role is not Role.USER and not all(isinstance(part, TextPart) for part in message.parts):
        raise InvalidRequest("recordings may stand in the user's messages only", param="messages")


def load(settings: WorkerSettings, report: Callable[[str], None]) -> Qwen2Audio:
    """Load the checkpoint that the settings name; raises LoadError if it can't be served."""
    checkpoint = locate(settings, MODEL_TYPES[settings.model_type or ""], report)
    config = _read_config(checkpoint.directory)
    vocabulary = _read_vocabulary(checkpoint.directory)
    trained = config.text_config.max_position_embeddings
    check_context(settings.max_model_len, trained)
    placement = choose_placement(settings)
    weights = open_weights(checkpoint.directory, checkpoint.adapter, report)
    model = build_native(Qwen2AudioNetwork, config, weights, placement)
    largest = partial(_largest_prompt, vocabulary.control_ids[_AUDIO.token], config.audio_config.num_mel_bins)
    runner = start_runner(model, settings, trained, report, largest)
    return Qwen2Audio(
        facts=ModelFacts(
            modalities=(MediaKind.AUDIO,),
            max_model_len=runner.max_model_len,
            sampling=read_sampling(checkpoint.directory),
            device=str(placement),
            digest=checkpoint.digest,
            system=checkpoint.system or SYSTEM,
        ),
        runner=runner,
        vocabulary=vocabulary,
        decoder=AnswerDecoder(vocabulary, shown=()),
        extractor=WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins, chunk_length=HEARD_S),
        system=checkpoint.system or SYSTEM,
    )


def _read_config(directory: Path) -> Qwen2AudioConfig:
    original = read_json(directory / "config.json")
    if (kind := original.get("model_type")) != "qwen2_audio":
        raise LoadError(f"{directory} holds a model of type {kind}, not qwen2_audio")
    return Qwen2AudioConfig.from_dict(original)


def _read_vocabulary(directory: Path) -> Vocabulary:
    vocabulary = read_vocabulary(directory)
    if absent := sorted({control.token for control in _NEEDED} - vocabulary.control_ids.keys()):
        raise LoadError(f"the checkpoint's tokenizer lacks {', '.join(absent)}")
    return vocabulary
