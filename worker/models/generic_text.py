"""Text that people typed, on its way through a checkpoint's chat template.

Templates and processors work on strings, so a typed literal would become a control token or a placeholder. A mark put
into it prevents that; the mark is a token of its own, which is taken out of the ids again.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from tokenizers import AddedToken

from shared.errors import InvalidRequest

MARK = "\U000f0b0b"
"""A private character that no text keeps."""
_LOOKS_LIKE_CONTROL = re.compile(r"<\|.*\|>")


class Escaper:
    """Knows one tokenizer's literals; adds the mark to it."""

    def __init__(self, tokenizer: Any, template: str, placeholders: Iterable[str]) -> None:
        tokenizer.add_tokens([AddedToken(MARK, special=True, normalized=False)])
        self.mark_id: int = tokenizer.convert_tokens_to_ids(MARK)
        self._tokenizer = tokenizer
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
        special = {token.content for token in added if token.special} - {MARK} | {*placeholders}
        written = {t.content for t in added if t.content in template or _LOOKS_LIKE_CONTROL.fullmatch(t.content)}
        self._special = _Literals(special)
        self._all = _Literals(special | written - {MARK})
        self._forbidden = {*tokenizer.convert_tokens_to_ids(sorted(special))} - {tokenizer.unk_token_id}

    def escape(self, text: str, *, is_own: bool) -> str:
        """Return the text with every literal broken; raises InvalidRequest for one that a normalizer would restore.

        What the model itself wrote (`is_own`) may name tokens that aren't special, as `<think>`: templates look for
        them.
        """
        marked = (self._special if is_own else self._all).broken(text.replace(MARK, "\ufffd"))
        token_ids = self._tokenizer(marked, add_special_tokens=False)["input_ids"]
        if not self._forbidden.isdisjoint(token_ids):
            raise InvalidRequest("the text contains characters that stand for a control token", param="messages")
        return marked


class _Literals:
    """Strings that must not come out of a text whole."""

    def __init__(self, literals: set[str]) -> None:
        longest_first = sorted(literals, key=len, reverse=True)
        self._whole = re.compile(f"(?=(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'}))")  # overlapping as well
        self._beginnings = {literal[:size] for literal in literals for size in range(1, len(literal))}
        self._longest = max(map(len, literals), default=0)

    def broken(self, text: str) -> str:
        """Return the text with a mark after each literal's first character, and after a beginning at the end.

        Templates may trim a text and set another one behind it.
        """
        cuts = {match.start() + 1 for match in self._whole.finditer(text)}
        body = text.rstrip()
        if any(body[-size:] in self._beginnings for size in range(1, min(self._longest, len(body)) + 1)):
            cuts.add(len(body))
        edges = [0, *sorted(cuts), len(text)]
        return MARK.join(text[start:end] for start, end in pairwise(edges))
