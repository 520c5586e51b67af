"""Token ids to text that may be shown: no half characters."""

from collections.abc import Sequence
from typing import Protocol

from worker.engine.prompt import Tokenizer

REPLACEMENT = "\ufffd"
MAX_KNOWN = 6
"""Tokens that a window begins with at most: each costs a little, and to forget them one more reading."""
MAX_WAITING = 16
"""A character has four bytes at most; bytes that never make one would wait for ever, and so would special tokens."""


class Decoder(Protocol):
    """Reads tokens."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return their text; what isn't (yet) valid UTF-8 ends in U+FFFD."""
        ...


class SpelledOut:
    """Reads tokens one by one: their text is what they add to an answer, one behind the other, and nothing else."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens."""
        return b"".join(self._tokenizer.answer_bytes(i) or b"" for i in token_ids).decode(errors="replace")


class IncrementalDetokenizer:
    """Decodes one answer token by token, at a cost that doesn't grow with its length.

    Each call decodes a short window: tokens whose text is known, and the new one, which adds new text. If that ends in
    U+FFFD it may be half a character, so it waits, but not for ever.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._num_known = 0
        self._known = ""

    def push(self, token_id: int) -> str:
        """Return the text that became whole; may be empty."""
        self._window.append(token_id)
        text, num_waiting = self._unseen(), len(self._window) - self._num_known
        if num_waiting < MAX_WAITING and (not text or text.endswith(REPLACEMENT)):
            return ""
        if not text:
            del self._window[self._num_known :]
            return ""
        if self._num_known >= MAX_KNOWN:
            del self._window[: self._num_known]
            self._known = self._tokenizer.decode(self._window)
        else:
            self._known += text
        self._num_known = len(self._window)
        return text

    def flush(self) -> str:
        """Return what is left at the end, be it whole or not."""
        text = self._unseen()
        self._known, self._num_known = self._known + text, len(self._window)
        return text

    def _unseen(self) -> str:
        return self._tokenizer.decode(self._window)[len(self._known) :]
