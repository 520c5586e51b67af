"""Pictures, clips and sounds as a checkpoint's processor takes them: decoded by us, never fetched or opened by it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.errors import InvalidMedia
from shared.job import MediaKind, MediaPart
from worker.prepare.audio import decode_audio
from worker.prepare.image import decode_image
from worker.prepare.video import decode_frames

DEFAULT_FPS = 2.0
DEFAULT_NUM_FRAMES = 32
"""Of a clip, where neither the request nor the processor names a number."""


@dataclass(frozen=True, slots=True)
class Medium:
    """One decoded medium: what stands in the conversation, and for a clip where its frames come from."""

    kind: MediaKind
    content: Any
    metadata: dict[str, Any] | None = None


def modalities(processor: Any) -> tuple[MediaKind, ...]:
    """Return what a processor takes beside text."""
    owned = {
        MediaKind.IMAGE: ("image_processor",),
        MediaKind.VIDEO: ("video_processor",),
        MediaKind.AUDIO: ("feature_extractor", "audio_processor"),
    }
    return tuple(kind for kind, names in owned.items() if any(getattr(processor, name, None) for name in names))


def decode(processor: Any, part: MediaPart, content: bytes, num_frames: int | None) -> Medium:
    """Return the medium decoded; raises InvalidMedia if it can't be, or if the model takes none of its kind."""
    if part.kind not in (taken := modalities(processor)):
        raise InvalidMedia(f"the model takes no {part.kind}; it takes text{_listed(taken)}", param=part.param)
    match part.kind:
        case MediaKind.IMAGE:
            return Medium(part.kind, decode_image(content, part.param))
        case MediaKind.VIDEO:
            return _clip(processor.video_processor, part, content, num_frames)
        case MediaKind.AUDIO:
            return Medium(part.kind, decode_audio(content, _sampling_rate(processor), part.param))


def _listed(kinds: Sequence[MediaKind]) -> str:
    return "".join(f", {kind}" for kind in kinds)


def _sampling_rate(processor: Any) -> int:
    owner = getattr(processor, "feature_extractor", None) or processor.audio_processor
    rate: int = owner.sampling_rate
    return rate


def _clip(processor: Any, part: MediaPart, content: bytes, num_frames: int | None) -> Medium:
    chosen: list[int] = []
    metadata: dict[str, Any] = {}

    def choose(total: int, fps: float) -> list[int]:
        metadata.update(total_num_frames=total, fps=fps, duration=total / fps, video_backend="decord")
        chosen.extend(_indices(processor, metadata, num_frames, part.param))
        return chosen

    frames = decode_frames(content, choose, part.param)
    pixels = np.stack([np.asarray(frame) for frame in frames])  # [frames, height, width, 3]
    metadata |= {"height": pixels.shape[1], "width": pixels.shape[2], "frames_indices": chosen}
    return Medium(part.kind, pixels, metadata)


def _indices(processor: Any, metadata: dict[str, Any], num_frames: int | None, param: str) -> list[int]:
    """Return the frames that the processor's own rule picks, or evenly spread ones."""
    from transformers.video_utils import VideoMetadata

    total = metadata["total_num_frames"]
    try:
        chosen = processor.sample_frames(VideoMetadata(**metadata), **_rule(processor, total, num_frames))
    except ValueError as error:
        raise InvalidMedia(f"the model's processor can't take frames of the clip: {error}", param=param) from error
    return [int(index) for index in chosen] or [*range(total)]  # a clip too short for the rule is seen whole


def _rule(processor: Any, total: int, num_frames: int | None) -> dict[str, Any]:
    if num_frames is not None:
        return {"num_frames": min(num_frames, total)}
    if processor.num_frames is not None:
        return {"num_frames": min(processor.num_frames, total)}
    if processor.fps is not None or hasattr(processor, "max_frames"):  # which bounds what the rate makes of a long clip
        return {"fps": processor.fps or DEFAULT_FPS}
    return {"num_frames": min(DEFAULT_NUM_FRAMES, total)}
