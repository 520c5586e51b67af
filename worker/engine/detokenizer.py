"""Token ids to text that may be shown: no half characters."""

from collections.abc import Sequence
from typing import Protocol

from worker.engine.prompt import Tokenizer

REPLACEMENT = "\ufffd"


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

    Each call decodes a short window twice: tokens shown before, and the same with the new ones.
    The difference is new text. A window that ends in U+FFFD may be half a character, so it waits.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._num_shown = 0

    def push(self, token_id: int) -> str:
        """Return the text that became whole; may be empty."""
        self._window.append(token_id)
        text = self._unseen()
        if not text or text.endswith(REPLACEMENT):
            return ""
        del self._window[: self._num_shown]
        self._num_shown = len(self._window)
        return text

    def flush(self) -> str:
        """Return what is left at the end, be it whole or not."""
        text = self._unseen()
        self._num_shown = len(self._window)
        return text

    def _unseen(self) -> str:
        shown = self._tokenizer.decode(self._window[: self._num_shown])
        return self._tokenizer.decode(self._window)[len(shown) :]
