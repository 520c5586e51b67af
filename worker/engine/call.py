"""One call of a language model with a whole prompt, as its multimodal model makes it, cut into chunks.

Whatever is special about a family (media put in, positions on three axes, masks, deepstack features) is in the
arguments already.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch

from worker.engine.cache import Mask

_KNOWN = {
    *("self", "input_ids", "inputs_embeds", "position_ids", "attention_mask", "past_key_values", "use_cache"),
    *("cache_position", "output_attentions", "output_hidden_states", "output_router_logits", "return_dict"),
    *("visual_pos_masks", "deepstack_visual_embeds", "per_layer_inputs", "ntk_alpha"),
}
"""Arguments that a chunk has its part of, or that are the same for every chunk."""


class _Recorded(Exception):
    """Unwinds the model's forward at the door of its language model."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments


class Call:
    """The arguments that have one column a token are cut, the others are the same for every chunk."""

    def __init__(self, arguments: dict[str, Any], num_tokens: int) -> None:
        """Take a recorded call; raises ValueError if it isn't known how one of its arguments is cut."""
        self._num_tokens = num_tokens
        self._masks = _by_kind(arguments.pop("attention_mask", None))
        self._cuts = _cuts([mask for mask in self._masks.values() if _is_whole(mask)], num_tokens)
        self._shown = arguments.pop("visual_pos_masks", None)  # [1, tokens]
        self._deepstack = arguments.pop("deepstack_visual_embeds", None)  # a layer's [shown tokens, hidden] each
        self._axes = {name: axis for name, given in arguments.items() if (axis := self._axis(name, given)) is not None}
        self._arguments = arguments
        self.constants = self._constants()
        """What is the same for every chunk, which calls of other prompts may share; None if they can't share a call."""

    @property
    def axes(self) -> dict[str, int]:
        """Which arguments of a chunk have a column a token, and in which dimension."""
        return {"position_ids": 1} | self._axes

    def chunk(self, start: int, end: int, indices: torch.Tensor, mask: Mask) -> dict[str, Any]:
        """Return the arguments for some of the tokens; `indices` and `mask` are used where none were recorded."""
        chunk = dict(self._arguments)
        for name, axis in self._axes.items():
            chunk[name] = chunk[name].narrow(axis, start, end - start)
        if chunk.get("position_ids") is None:
            chunk["position_ids"] = indices
        if self._shown is not None:
            chunk |= self._shown_in(start, end)
        return chunk | {"attention_mask": self._mask(start, end, mask)}

    def last_cut(self, start: int, end: int) -> int:
        """Return the last place in (start, end] where the prompt may be cut, or else the first one behind."""
        behind = torch.nonzero(self._cuts[start + 1 :]).flatten() + start + 1
        within = behind[behind <= end]
        return int(within[-1] if len(within) else behind[0])

    def is_cut(self, place: int) -> bool:
        """Whether no token before the place sees one behind it."""
        return bool(self._cuts[place])

    def _constants(self) -> dict[str, Any] | None:
        """Return them if all that tells tokens apart has a column for each, and masks are the cache's business."""
        rest = {name: given for name, given in self._arguments.items() if name not in self.axes}
        is_plain = self._shown is None and not any(_is_whole(mask) for mask in self._masks.values())
        return rest if is_plain and not any(isinstance(given, torch.Tensor) for given in rest.values()) else None

    def _axis(self, name: str, given: Any) -> int | None:
        if not isinstance(given, torch.Tensor) or given.ndim < 2:
            return None
        if name == "position_ids":  # [1, tokens], or [axes, 1, tokens]
            return given.ndim - 1
        if given.shape[:2] == (1, self._num_tokens):
            return 1
        raise ValueError(f"it isn't known how {name} of shape {[*given.shape]} is cut into chunks")

    def _shown_in(self, start: int, end: int) -> dict[str, Any]:
        before = int(self._shown[:, :start].sum())
        behind = before + int(self._shown[:, start:end].sum())
        return {
            "visual_pos_masks": self._shown[:, start:end],
            "deepstack_visual_embeds": [layer[before:behind] for layer in self._deepstack],
        }

    def _mask(self, start: int, end: int, mask: Mask) -> Mask:
        cut = {kind: given[..., start:end, :end] for kind, given in self._masks.items() if _is_whole(given)}
        if not cut:
            return mask
        own = mask if isinstance(mask, dict) else {}
        by_kind = {kind: cut.get(kind, own.get(kind)) for kind in self._masks}
        single: Mask = by_kind.get("", by_kind)
        return single


def joined(chunks: list[dict[str, Any]], axes: dict[str, int]) -> dict[str, Any]:
    """Return the arguments for chunks of several prompts, a row each; shorter ones end in zeros.

    `axes` says which arguments have a column a token, and where; all others are the same, and the first one's.
    """
    return chunks[0] | {name: _stacked([chunk[name] for chunk in chunks], axis) for name, axis in axes.items()}


def _stacked(rows: list[torch.Tensor], axis: int) -> torch.Tensor:
    """Return tensors of one row each as one; their rows lie in the axis before that of the tokens."""
    shape = list(rows[0].shape)
    shape[axis - 1], shape[axis] = len(rows), max(row.shape[axis] for row in rows)
    stacked = rows[0].new_zeros(shape)
    for index, row in enumerate(rows):
        stacked.narrow(axis - 1, index, 1).narrow(axis, 0, row.shape[axis]).copy_(row)
    return stacked


def record(model: Any, decoder: Any, **inputs: Any) -> Call:
    """Return how a model calls its decoder for a whole prompt of one row; the decoder itself isn't run."""
    with _listening(decoder):
        try:
            model(**inputs)
        except _Recorded as recorded:
            return Call(recorded.arguments, inputs["input_ids"].shape[1])
    raise ValueError("the model's forward doesn't call its language model")


def unknown_arguments(decoder: Any) -> list[str]:
    """Return what a language model takes beside what is known to be cut here."""
    parameters = signature(type(decoder).forward).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return sorted({*named} - _KNOWN)


def find_decoder(model: Any) -> Any:
    """Return the innermost language model: the one that has layers, and no head."""
    while (inner := model.get_decoder()) is not model:
        model = inner
    return model


@contextmanager
def _listening(decoder: Any) -> Iterator[None]:
    """Put an ear in the place of the decoder's forward."""
    named = signature(type(decoder).forward).parameters.values()
    positional = [parameter.name for parameter in named if parameter.kind is parameter.POSITIONAL_OR_KEYWORD][1:]

    def listen(*given: Any, **arguments: Any) -> None:
        arguments |= dict(zip(positional, given, strict=False))
        raise _Recorded({name: value for name, value in arguments.items() if name != "past_key_values"})

    placed = decoder.__dict__.get("forward")  # as by those who spread a model over devices
    decoder.forward = listen
    try:
        yield
    finally:
        del decoder.forward
        if placed is not None:
            decoder.forward = placed


def _by_kind(mask: Any) -> dict[str, Any]:
    """Return masks by the kind of layer they are for; a single one is under no name."""
    return mask if isinstance(mask, dict) else {"": mask}


def _is_whole(mask: Any) -> bool:
    """Whether a mask says of each token what it sees; others only tell padding, of which there is none."""
    return isinstance(mask, torch.Tensor) and mask.ndim == 4


def _cuts(masks: list[torch.Tensor], num_tokens: int) -> torch.Tensor:
    """Return whether a prompt may be cut before each of its tokens and at its end, shape [tokens + 1]."""
    cuts = torch.ones(num_tokens + 1, dtype=torch.bool)
    for mask in masks:
        seen = (mask if mask.dtype is torch.bool else mask == 0)[0, 0]
        last_seen = num_tokens - 1 - seen.flip(-1).byte().argmax(-1)
        cuts[1:] &= (last_seen.cummax(0).values <= torch.arange(num_tokens, device=mask.device)).cpu()
    return cuts
