"""The largest prompts of whatever transformers maps: media grown until they fill the context, or can grow no more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image

from shared.job import MediaKind
from worker.engine.pool import zeros
from worker.engine.prompt import Prompt
from worker.models.generic_media import DEFAULT_FPS, Medium, clip_of, describe_clip, modalities, sampling_rate
from worker.models.generic_pieces import find_pieces
from worker.models.largest import Extent, Mute, num_bytes
from worker.prepare.limits import MediaLimits

PER_TOKEN = ("attention_mask", "token_type_ids", "mm_token_type_ids")
"""What processors return with one column a token."""

_LARGEST_SIDE = 4096
"""No processor that we know makes more of a larger picture."""
_GROWTH = 4.0
_EXACT = 1.1
"""Sizes are found up to this factor."""
_LEAST_AT_ONCE = 8
"""So many media, whatever their lengths, may be in a prompt of which all are encoded at once."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a picture or clip, which are square, or of a recording."""

    side: int = 64
    frames: int = 8
    samples: int = 1600


LEAST = Size()
Inputs = Mapping[str, Any]
Measured = tuple[Size, Inputs]
"""A size, and what the processor makes of a turn with one medium of it."""


@dataclass(frozen=True, slots=True)
class Specimens:
    """Makes prompts for one checkpoint out of media that nobody sent."""

    processor: Any
    config: Any
    dtype: torch.dtype
    limits: MediaLimits

    def largest(self, extent: Extent) -> tuple[Prompt, ...]:
        """Return one prompt for each kind of media that the model takes and the context has room for, or text."""
        found = [self._fullest(kind, extent) for kind in modalities(self.processor)]
        prompts = [prompt for prompt in found if prompt is not None] or [self._prompt(self._text())]
        return tuple(_stretched(prompt, extent) for prompt in prompts)

    def _fullest(self, kind: MediaKind, extent: Extent) -> Prompt | None:
        """Return a prompt with the largest medium of that kind, or with all that fit if they are encoded at once.

        None if not even the least fits.
        """
        least, num_tokens = self._render(kind, LEAST, 1), extent.num_tokens
        if least is None or (length := _length(least)) > num_tokens:
            return None
        is_apart = _is_apart(self._prompt(least))
        room = num_tokens if is_apart else max(num_tokens // _LEAST_AT_ONCE, length)
        size, inputs = self._grow(kind, (LEAST, least), room)
        together = None if is_apart else self._render(kind, size, self._count(kind, size, extent))
        return self._prompt(inputs if together is None or _length(together) > num_tokens else together)

    def _count(self, kind: MediaKind, size: Size, extent: Extent) -> int:
        """Return how many media of that size a prompt has room for, and a request's limit of bytes."""
        few, more = self._render(kind, size, 2), self._render(kind, size, 3)  # some make more of one that is alone
        if few is None or more is None or (each := _length(more) - _length(few)) <= 0:
            return 1
        by_bytes = 2 * extent.feature_bytes // num_bytes(few)
        return max(1, min(2 + (extent.num_tokens - _length(few)) // each, by_bytes))

    def _grow(self, kind: MediaKind, least: Measured, room: int) -> Measured:
        """Return the largest size whose prompt has at most `room` tokens; of a clip first the side, then the frames."""
        limits = self.limits
        match kind:
            case MediaKind.IMAGE:
                return self._grown(kind, "side", least, _side(limits.max_image_pixels), room)
            case MediaKind.AUDIO:
                most = round(limits.max_audio_s * sampling_rate(self.processor))
                return self._grown(kind, "samples", least, most, room)
            case MediaKind.VIDEO:
                wide = self._grown(kind, "side", least, _side(limits.max_video_pixels // least[0].frames), room)
                most = min(limits.max_video_frames, limits.max_video_pixels // wide[0].side ** 2)
                return self._grown(kind, "frames", wide, most, room)

    def _grown(self, kind: MediaKind, what: str, least: Measured, most: int, room: int) -> Measured:
        """Return a size, and what is made of it, grown in one way."""
        best, above = least, most + 1
        power = 2 if what == "side" else 1
        while (wanted := _next(getattr(best[0], what), (room / _length(best[1])) ** (1 / power), above)) is not None:
            size = replace(best[0], **{what: wanted})
            inputs = self._render(kind, size, 1)
            if inputs is None or _length(inputs) > room:
                above = wanted
            elif _length(inputs) <= _length(best[1]):  # the processor makes no more of it
                return best
            else:
                best = size, inputs
        return best

    def _render(self, kind: MediaKind, size: Size, count: int) -> Inputs | None:
        """Return what the processor makes of a turn with so many equal media; None if it or the template refuses."""
        medium = self._medium(kind, size)
        turns = [{"role": "user", "content": [{"type": str(kind), str(kind): medium.content}] * count}]
        clips = [medium.metadata] * count if medium.metadata else []
        given = {"processor_kwargs": {"video_metadata": clips, "do_sample_frames": False}} if clips else {}
        try:
            return dict(
                self.processor.apply_chat_template(
                    turns, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, **given
                )
            )
        except (TemplateError, ValueError):  # as it refuses a client's
            return None

    def _medium(self, kind: MediaKind, size: Size) -> Medium:
        match kind:
            case MediaKind.IMAGE:
                return Medium(kind, Image.new("RGB", (size.side, size.side)))
            case MediaKind.VIDEO:
                return _clip(size)
            case MediaKind.AUDIO:
                return Medium(kind, np.zeros(size.samples, np.float32))

    def _text(self) -> Inputs:
        return dict(self.processor(text=["a"], return_tensors="pt"))

    def _prompt(self, inputs: Inputs) -> Prompt:
        token_ids = inputs["input_ids"][0].tolist()
        named = inputs.keys() - {"input_ids", *PER_TOKEN}
        features = {name: cast(inputs[name], self.dtype) for name in named}
        return Prompt(
            token_ids=tuple(token_ids),
            tokenizer=Mute(),
            features=features,
            token_features={name: inputs[name] for name in PER_TOKEN if name in inputs},
            pieces=find_pieces(features, token_ids, self.config),
        )


def _is_apart(prompt: Prompt) -> bool:
    """Whether its media are encoded by themselves."""
    return all(piece.features for piece in prompt.pieces)


def _stretched(prompt: Prompt, extent: Extent) -> Prompt:
    """Return a prompt whose only medium stands there as often as it fits, and its last token as often as is left."""
    length, pieces, features, order = len(prompt.token_ids), prompt.pieces, prompt.features, [*range(extent.num_tokens)]
    if pieces and _is_apart(prompt):
        begin, end = max(0, int(pieces[0].places[0]) - 1), int(pieces[-1].places[-1]) + 2  # with what marks its ends
        count = 1 + min((extent.num_tokens - length) // (end - begin), extent.feature_bytes // num_bytes(features))
        order = [*range(end), *[*range(begin, end)] * (count - 1), *range(end, extent.num_tokens)]
        moved = ((piece, turn * (end - begin)) for turn in range(count) for piece in pieces)
        pieces = tuple(replace(piece, places=piece.places + by) for piece, by in moved)
        features = {name: _repeated(feature, count) for name, feature in features.items()}
    taken = [min(index, length - 1) for index in order[: extent.num_tokens]]
    return replace(
        prompt,
        token_ids=tuple(prompt.token_ids[index] for index in taken),
        token_features={name: feature[:, taken] for name, feature in prompt.token_features.items()},
        features=features,
        pieces=pieces,
    )


def _repeated(feature: torch.Tensor, count: int) -> torch.Tensor:
    """Return sizes repeated, and as many pixels, which nobody has to look at."""
    if not feature.is_floating_point():
        return feature.repeat(count, *(1 for _ in feature.shape[1:]))
    return zeros((count * len(feature), *feature.shape[1:]), feature.dtype, feature.device)


def cast(feature: Any, dtype: torch.dtype) -> Any:
    """Return a feature as the network takes it."""
    is_real = isinstance(feature, torch.Tensor) and feature.is_floating_point()
    return feature.to(dtype) if is_real else feature


def _length(inputs: Inputs) -> int:
    length: int = inputs["input_ids"].shape[1]
    return length


def _clip(size: Size) -> Medium:
    frames = np.zeros((size.frames, size.side, size.side, 3), np.uint8)
    return clip_of(frames, describe_clip(size.frames, DEFAULT_FPS), [*range(size.frames)])


def _side(num_pixels: int) -> int:
    return min(_LARGEST_SIDE, math.isqrt(num_pixels))


def _next(size: int, factor: float, above: int) -> int | None:
    """Return a size to try, by what factor it may be larger, and smaller than one that doesn't fit; None if none is."""
    most = above - 1 if above > size * _GROWTH else (size + above) // 2
    wanted = min(most, int(size * min(_GROWTH, factor)))
    return wanted if wanted > size * _EXACT else None
