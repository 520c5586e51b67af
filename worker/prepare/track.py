"""What a container's track is coded in, before anything of it is decoded."""

from typing import Any


def codec_of(track: Any) -> str:
    """Return FFmpeg's name of the codec; `unknown` where it has none."""
    context = track.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)
