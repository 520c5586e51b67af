"""Rotary positions that are others for longer texts: which, from what length on, and how they are kept still before."""

from collections.abc import Iterator
from typing import Any

_LENGTH_DEPENDENT = frozenset({"longrope", "dynamic"})


def stretching(config: Any) -> Iterator[tuple[str, int]]:
    """Yield a language model's kinds of positions that depend on the length, and the length they were trained on."""
    for rope in _by_layer(config).values():
        if (kind := rope.get("rope_type")) in _LENGTH_DEPENDENT:
            named = rope.get("original_max_position_embeddings")
            yield kind, named or getattr(config, "original_max_position_embeddings", config.max_position_embeddings)


def settle(decoder: Any, config: Any, max_model_len: int) -> None:
    """Let positions that no text is long enough to change stay as they are.

    transformers would look at the longest row in each step, and hold the host until the device has come that far.
    """
    changing = {kind for kind, trained in stretching(config) if max_model_len > trained}
    kinds = {layer: rope.get("rope_type", "default") for layer, rope in _by_layer(config).items()}
    still = {layer: "default" if kind in _LENGTH_DEPENDENT - changing else kind for layer, kind in kinds.items()}
    for module in decoder.modules():
        match getattr(module, "rope_type", None):
            case str():
                module.rope_type = still[""]
            case dict():
                module.rope_type |= {layer: still[layer] for layer in module.rope_type}


def _by_layer(config: Any) -> dict[str, dict[str, Any]]:
    """Return what positions are made from by the kind of layer, or under no name where all layers share it."""
    given = getattr(config, "rope_parameters", None) or {}
    is_nested = bool(given) and all(isinstance(value, dict) for value in given.values())
    return given if is_nested else {"": given}
