"""The text of an answer's tokens, as a checkpoint's own tokenizer tells it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from transformers import TokenizersBackend

from worker.models.piece import bytes_of, spells_bytes


class AnswerTokenizer:
    """Reads answers; special tokens disappear."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._tokenizer = tokenizer
        self._decode = _innermost(tokenizer)
        self._special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._spells_bytes = backend is not None and spells_bytes(backend)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens."""
        return self._decode(token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, special or not."""
        return bytes_of(self._tokenizer.convert_ids_to_tokens(token_id) or "", spells=self._spells_bytes)

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Return what the token adds to the text of a constrained answer; None if it is special."""
        return None if token_id in self._special else self.token_bytes(token_id)


def _innermost(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Return what decodes: the library beneath, where the tokenizer only calls it, and takes four times as long."""
    kind = type(tokenizer)
    if issubclass(kind, TokenizersBackend) and (kind.decode, kind._decode) == _PLAIN:
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


_PLAIN = TokenizersBackend.decode, TokenizersBackend._decode
