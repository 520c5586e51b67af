"""Qwen's first tokenizer: a file of ranked byte strings, and control tokens that no file lists."""

import unicodedata
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from worker.models.family import LoadError
from worker.models.tokenizer import BackendCodec
from worker.models.vocabulary import ControlToken, Vocabulary

GROUNDING = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
IMAGE_START, IMAGE_END, IMAGE_PAD = "<img>", "</img>", "<imgpad>"

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where text is cut before bytes are merged; as the order of the control tokens, tokenization_qwen.py's of 2023."""
_CONTROLS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|extra_{number}|>" for number in range(205)),
    *GROUNDING,
    *(IMAGE_START, IMAGE_END, IMAGE_PAD),
)
_LETTERS = bytes_to_unicode()
"""How the tokenizers library spells each byte."""


class RankVocabulary(Vocabulary):
    """Its codec can't make control tokens of text, so there is nothing to escape."""

    def encode(self, text: str, *, escapes: bool = True) -> list[int]:
        """Return the ids of one run of text, composed (NFC) first, `escapes` or not."""
        return self._codec.encode(unicodedata.normalize("NFC", text))


def read_ranks(path: Path) -> RankVocabulary:
    """Return the vocabulary of a `qwen.tiktoken`; raises LoadError if it can't be read."""
    try:
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        ranks = {b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} can't be read: {error}") from error
    controls = [ControlToken(text, len(ranks) + index) for index, text in enumerate(_CONTROLS)]
    return RankVocabulary(BackendCodec(_build_backend(ranks)), controls, bos=None, unknown_id=None)


def _build_backend(ranks: Mapping[bytes, int]) -> Tokenizer:
    """Return the tokenizer of these ranks; tiktoken itself panics on a long run of blanks."""
    vocabulary = {_spell(token): rank for token, rank in ranks.items()}
    merges = [(_spell(left), _spell(right)) for left, right in _merges(ranks)]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs that merge, in the order in which they do: by the rank of what they make."""
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _spell(token: bytes) -> str:
    return "".join(_LETTERS[byte] for byte in token)
