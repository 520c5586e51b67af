"""Pictures, clips and sounds as a checkpoint's processor takes them: decoded by us, never fetched or opened by it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from PIL import ImageOps

from shared.errors import InvalidMedia
from shared.job import MediaKind, MediaPart, ProcessorParams
from worker.models.refusal import check_wish, check_wishes
from worker.prepare.media import decode_audio, decode_frames, decode_image
from worker.prepare.reduction import num_at_rate, shrink

DEFAULT_FPS = 2.0
DEFAULT_NUM_FRAMES = 32
"""Of a clip, where neither the request nor the processor names a number."""


@dataclass(frozen=True, slots=True)
class Medium:
    """One decoded medium: what stands in the conversation, and for a clip where its frames come from."""

    kind: MediaKind
    content: Any
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request wishes of its media, as far as a processor can honour it."""

    num_frames: int | None = None
    fps: float | None = None
    max_pixels: int | None = None
    """Pictures and frames that have more are shrunk first; a picture only where `size` doesn't say it."""
    size: dict[str, int] | None = None
    """Of pictures, in the processor's own terms."""


def modalities(processor: Any) -> tuple[MediaKind, ...]:
    """Return what a processor takes beside text."""
    owned = {
        MediaKind.IMAGE: ("image_processor",),
        MediaKind.VIDEO: ("video_processor",),
        MediaKind.AUDIO: ("feature_extractor", "audio_processor"),
    }
    return tuple(kind for kind, names in owned.items() if any(getattr(processor, name, None) for name in names))


def read_wishes(processor: Any, asked: ProcessorParams) -> Wishes:
    """Return a request's wishes as this processor can honour them; raises InvalidRequest for those it can't."""
    taken = modalities(processor)
    edges = _pixel_edges(processor)
    known = {"max_pixels"} if {MediaKind.IMAGE, MediaKind.VIDEO} & {*taken} else set()
    known |= {"num_frames", "fps"} if MediaKind.VIDEO in taken else set()
    about_media = msgspec.structs.replace(asked, chat_template_kwargs=None)
    check_wishes(about_media, known | ({"min_pixels"} if edges else set()))
    if edges is None or (asked.min_pixels is None and asked.max_pixels is None):
        return Wishes(asked.num_frames, asked.fps, asked.max_pixels)
    least, most = edges
    for name in ("min_pixels", "max_pixels"):
        check_wish(name, getattr(asked, name), most, "pixels of a picture")
    size = {"shortest_edge": asked.min_pixels or least, "longest_edge": asked.max_pixels or most}
    return Wishes(asked.num_frames, asked.fps, asked.max_pixels, size)


def _pixel_edges(processor: Any) -> tuple[int, int] | None:
    """Return the least and the most pixels that a processor makes of a picture, if it counts pixels as Qwen2-VL's."""
    pictures = getattr(processor, "image_processor", None)
    if pictures is None or "max_pixels" not in pictures.valid_kwargs.__annotations__:
        return None
    size = dict(pictures.size)
    least, most = size.get("shortest_edge"), size.get("longest_edge")
    return None if least is None or most is None else (least, most)


def decode(processor: Any, part: MediaPart, content: bytes, wishes: Wishes) -> Medium:
    """Return the medium decoded; raises InvalidMedia if it can't be, or if the model takes none of its kind."""
    if part.kind not in (taken := modalities(processor)):
        raise InvalidMedia(f"the model takes no {part.kind}; it takes text{_listed(taken)}", param=part.param)
    match part.kind:
        case MediaKind.IMAGE:
            picture = ImageOps.exif_transpose(decode_image(content, part.param))  # as transformers' own loader does
            return Medium(part.kind, picture if wishes.size else shrink(picture, wishes.max_pixels))
        case MediaKind.VIDEO:
            return _clip(processor.video_processor, part, content, wishes)
        case MediaKind.AUDIO:
            return Medium(part.kind, decode_audio(content, sampling_rate(processor), part.param))


def _listed(kinds: Sequence[MediaKind]) -> str:
    return "".join(f", {kind}" for kind in kinds)


def sampling_rate(processor: Any) -> int:
    """Return the samples a second that a processor takes."""
    owner = getattr(processor, "feature_extractor", None) or processor.audio_processor
    rate: int = owner.sampling_rate
    return rate


def _clip(processor: Any, part: MediaPart, content: bytes, wishes: Wishes) -> Medium:
    chosen: list[int] = []
    metadata: dict[str, Any] = {}

    def choose(total: int, fps: float) -> list[int]:
        metadata.update(describe_clip(total, fps))
        chosen.extend(_indices(processor, metadata, wishes, part.param))
        return chosen

    frames = [shrink(frame, wishes.max_pixels) for frame in decode_frames(content, choose, part.param)]
    return clip_of(np.stack([np.asarray(frame) for frame in frames]), metadata, chosen)


def clip_of(pixels: np.ndarray, metadata: dict[str, Any], chosen: list[int]) -> Medium:
    """Return a clip of the chosen frames, shape [frames, height, width, 3]."""
    sizes = {"height": pixels.shape[1], "width": pixels.shape[2], "frames_indices": chosen}
    return Medium(MediaKind.VIDEO, pixels, metadata | sizes)


def describe_clip(total: int, fps: float) -> dict[str, Any]:
    """Return what processors want to know of a whole clip."""
    return {"total_num_frames": total, "fps": fps, "duration": total / fps, "video_backend": "decord"}


def _indices(processor: Any, metadata: dict[str, Any], wishes: Wishes, param: str) -> list[int]:
    """Return the frames that the processor's own rule picks, or evenly spread ones."""
    from transformers.video_utils import VideoMetadata

    total = metadata["total_num_frames"]
    try:
        chosen = processor.sample_frames(VideoMetadata(**metadata), **_rule(processor, metadata, wishes))
    except ValueError as error:
        raise InvalidMedia(f"the model's processor can't take frames of the clip: {error}", param=param) from error
    return [int(index) for index in chosen] or [*range(total)]  # a clip too short for the rule is seen whole


def _rule(processor: Any, metadata: dict[str, Any], wishes: Wishes) -> dict[str, Any]:
    total, rate = metadata["total_num_frames"], metadata["fps"]
    if wishes.num_frames is not None:
        return {"num_frames": min(wishes.num_frames, total)}
    if wishes.fps is not None and hasattr(processor, "max_frames"):
        return {"fps": min(wishes.fps, rate)}
    if wishes.fps is not None:
        return {"num_frames": num_at_rate(total, rate, wishes.fps)}
    if processor.num_frames is not None:
        return {"num_frames": min(processor.num_frames, total)}
    if processor.fps is not None or hasattr(processor, "max_frames"):  # which bounds what the rate makes of a long clip
        return {"fps": processor.fps or DEFAULT_FPS}
    return {"num_frames": min(DEFAULT_NUM_FRAMES, total)}
