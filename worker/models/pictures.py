"""The pictures of a conversation, for families that take nothing else and give each the same number of tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from shared.errors import InvalidMedia
from shared.job import MediaKind, MediaPart, Message
from worker.engine.pieces import place
from worker.engine.prompt import Prompt
from worker.models.largest import Extent, black, media_prompt
from worker.models.refusal import check_room, check_turn


def find_pictures(messages: Sequence[Message], num_tokens: int, max_model_len: int) -> list[MediaPart]:
    """Return the pictures, of `num_tokens` each, in their order.

    Raises InvalidRequest for what such families can't be asked, before any picture is decoded.
    """
    pictures: list[MediaPart] = []
    for index, message in enumerate(messages):
        check_turn(message, index)
        for part in message.parts:
            if isinstance(part, MediaPart):
                if part.kind is not MediaKind.IMAGE:
                    raise InvalidMedia(f"the model takes pictures only, no {part.kind}", param=part.param)
                pictures.append(part)
                check_room(num_tokens * len(pictures), max_model_len, part.param)
    return pictures


def see(pictures: Sequence[torch.Tensor], places: Sequence[int], num_tokens: int) -> dict[str, Any]:
    """Return a prompt's pictures, each [3, side, side]; `places` are the indices of all their tokens in it."""
    pixels = torch.stack([*pictures])
    given = [{"pixel_values": picture} for picture in torch.split(pixels, 1)]
    return {
        "features": {"pixel_values": pixels, "image_positions": torch.tensor(places)},
        "pieces": place("image", given, places, [num_tokens] * len(given)),
    }


def largest_prompt(placeholder: int, num_tokens_each: int, side: int, extent: Extent, **more: Any) -> Prompt:
    """Return a prompt full of pictures of side x side pixels."""

    def see_black(count: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": black(count, 3, side, side)}

    prompt = media_prompt(extent, "image", placeholder, num_tokens_each, see_black, **more)
    positions = torch.arange(num_tokens_each * len(prompt.pieces))
    return replace(prompt, features={**prompt.features, "image_positions": positions}) if prompt.pieces else prompt
