"""The largest prompts that a model lets through: rows full of the dearest media it takes.

Each family says what its dearest medium is; nothing here is decoded or drawn, because a tower takes as much for black.
"""

from collections.abc import Callable, Sequence
from typing import Any

from worker.engine.prompt import Prompt

Largest = Callable[[int], Sequence[Prompt]]
"""Returns, for a number of tokens, prompts of at most so many: one for each kind of media, or one of text alone."""
See = Callable[[Sequence[int], Sequence[int], int], dict[str, Any]]
"""Returns a prompt's features and pieces, from its ids, the places of its media and the number of them."""


class Mute:
    """Implements `Tokenizer` for prompts whose answers nobody reads."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Say nothing."""
        return ""

    def token_bytes(self, token_id: int) -> bytes:
        """Say nothing."""
        return b""

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Say nothing."""
        return b""


def text_prompt(num_tokens: int, **more: Any) -> Prompt:
    """Return text of that length."""
    return Prompt(token_ids=(0,) * num_tokens, tokenizer=Mute(), **more)


def media_prompt(num_tokens: int, placeholder: int, length: int, see: See, **more: Any) -> Prompt:
    """Return a prompt of that length that ends in as many media as fit, of `length` tokens each, and a word."""
    count, end = (num_tokens - 1) // length, num_tokens - 1
    begin = end - count * length
    filler = 0 if placeholder else 1
    token_ids = [filler] * begin + [placeholder] * (end - begin) + [filler]
    seen = see(token_ids, range(begin, end), count) if count else {}
    return Prompt(token_ids=tuple(token_ids), tokenizer=Mute(), **seen, **more)
