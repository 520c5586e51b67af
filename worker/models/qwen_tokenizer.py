"""Qwen's first tokenizer: a file of ranked byte strings, and control tokens that no file lists."""

import unicodedata
from base64 import b64decode
from pathlib import Path

from tiktoken import Encoding

from worker.models.family import LoadError
from worker.models.vocabulary import ControlToken, Vocabulary

GROUNDING = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
IMAGE_START, IMAGE_END, IMAGE_PAD = "<img>", "</img>", "<imgpad>"

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where text is cut before bytes are merged, and the order of the control tokens: tokenization_qwen.py of 2023."""
_CONTROLS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|extra_{number}|>" for number in range(205)),
    *GROUNDING,
    *(IMAGE_START, IMAGE_END, IMAGE_PAD),
)


class RankCodec:
    """A rank file; it knows no control tokens, so text never becomes one."""

    def __init__(self, path: Path) -> None:
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        ranks = {b64decode(token, validate=True): int(rank) for token, rank in lines}
        self._encoding = Encoding(path.name, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
        self.size = len(ranks)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text, which is composed (NFC) first."""
        return self._encoding.encode_ordinary(unicodedata.normalize("NFC", text))

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of ordinary tokens; the rows that round the model's vocabulary have none."""
        whole = self._encoding.decode_bytes([token_id for token_id in token_ids if token_id < self.size])
        return whole.decode("utf-8", errors="replace")

    def piece(self, token_id: int) -> str | None:
        """Nothing: no piece is spelled like a control token."""
        return None


class RankVocabulary(Vocabulary):
    """Its codec can't make control tokens of text, so there is nothing to escape."""

    def encode(self, text: str, *, escapes: bool = True) -> list[int]:
        """Return the ids of one run of text, `escapes` or not."""
        return self._codec.encode(text)


def read_ranks(path: Path) -> RankVocabulary:
    """Return the vocabulary of a `qwen.tiktoken`; raises LoadError if it can't be read."""
    try:
        codec = RankCodec(path)
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} can't be read: {error}") from error
    controls = [ControlToken(text, codec.size + index) for index, text in enumerate(_CONTROLS)]
    return RankVocabulary(codec, controls, bos=None, unknown_id=None)
