"""One checkpoint's tokenizer, reduced to what prompts and answers need.

Control tokens come from the prompt's template only: text is encoded so that it never becomes one,
whatever a user types. It knows no prompt format.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

from shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Control:
    """A token of the prompt's skeleton, by its string."""

    token: str


Segment = Control | str
"""Prompts are lists of these; text beside text is one run, as its merges may cross the border."""


class Codec(Protocol):
    """A tokenizer's plain half: no control tokens, in neither direction."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of ordinary tokens; what isn't valid UTF-8 becomes U+FFFD."""
        ...

    def piece(self, token_id: int) -> str | None:
        """The string the codec itself has for this id; None if it has none."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text; nothing if the codec doesn't know it."""
        ...


@dataclass(frozen=True, slots=True)
class ControlToken:
    """One control token, as the checkpoint lists it."""

    text: str
    id: int
    strips_right: bool = False
    """Whether white space after it is dropped."""
    is_piece: bool = False
    """Whether it is an ordinary piece to the codec, which makes it of text unless that is escaped."""


class Vocabulary:
    """Safe for many threads; built once per model."""

    def __init__(self, codec: Codec, controls: Iterable[ControlToken], bos: str | None, unknown_id: int | None) -> None:
        self._codec = codec
        self._controls = {control.text: control for control in controls}
        self.bos: list[Segment] = [] if bos is None else [Control(bos)]
        """What every prompt begins with."""
        self._texts = {control.id: control.text for control in self._controls.values()}
        self._forbidden = self._texts.keys() - {unknown_id}
        self._split = re.compile(_any_of(text for text, control in self._controls.items() if not control.is_piece))
        pieces = {piece for token_id in self._texts if (piece := codec.piece(token_id)) is not None}
        self._literals = re.compile(f"(?={_any_of({*self._controls, *pieces})})")  # overlapping ones as well

    @property
    def control_ids(self) -> dict[str, int]:
        """Every control token's id."""
        return {control.text: control.id for control in self._controls.values()}

    def render(self, segments: Iterable[Segment], *, escapes: bool = True) -> list[int]:
        """Return the ids of a prompt; without `escapes` text may name control tokens, as the authors' code lets it."""
        token_ids: list[int] = []
        strips = False
        for is_control, group in groupby(segments, key=lambda segment: isinstance(segment, Control)):
            if is_control:
                controls = [self._controls[segment.token] for segment in group]  # type: ignore[union-attr]  # grouped
                token_ids += [control.id for control in controls]
                strips = controls[-1].strips_right
            else:
                text = "".join(group)  # type: ignore[arg-type]  # grouped
                token_ids += self.encode(text.lstrip() if strips else text, escapes=escapes)
        return token_ids

    def encode_raw(self, prompt: str | tuple[int, ...], *, is_bare: bool) -> tuple[int, ...]:
        """Return the ids of a prompt without a skeleton; token ids are what they are."""
        if not isinstance(prompt, str):
            return prompt
        return tuple(self.render([*([] if is_bare else self.bos), prompt]))

    def encode(self, text: str, *, escapes: bool = True) -> list[int]:
        """Return the ids of one run of text."""
        if not escapes:
            return self._encode_with_controls(text)
        # Every literal loses its first character to the fragment before, so that no fragment contains one.
        cuts = [0, *(match.start() + 1 for match in self._literals.finditer(text)), len(text)]
        token_ids = [token_id for start, end in pairwise(cuts) for token_id in self._codec.encode(text[start:end])]
        if not self._forbidden.isdisjoint(token_ids):  # a normalizer made a literal of other characters
            raise InvalidRequest("the text contains characters that stand for a control token", param="messages")
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens, control tokens spelled out."""
        if self._texts.keys().isdisjoint(token_ids):  # as nearly always
            return self._codec.decode(list(token_ids))
        return "".join(
            "".join(self._texts[token_id] for token_id in group) if is_control else self._codec.decode(list(group))
            for is_control, group in groupby(token_ids, key=self._texts.__contains__)
        )

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, a control token spelled out."""
        text = self._texts.get(token_id)
        return self._codec.token_bytes(token_id) if text is None else text.encode()

    def text_bytes(self, token_id: int) -> bytes | None:
        """Return what an ordinary token adds to a text; None if it is a control token."""
        return None if token_id in self._texts else self._codec.token_bytes(token_id)

    def _encode_with_controls(self, text: str) -> list[int]:
        token_ids, start = [], 0
        for match in self._split.finditer(text):
            token_ids += [*self._codec.encode(text[start : match.start()]), self._controls[match[0]].id]
            start = match.end()
        return token_ids + self._codec.encode(text[start:])


class AnswerDecoder:
    """Reads answers: control tokens disappear, except those that carry meaning."""

    def __init__(self, vocabulary: Vocabulary, shown: Collection[str]) -> None:
        self._vocabulary = vocabulary
        self._hidden = frozenset(i for token, i in vocabulary.control_ids.items() if token not in shown)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens."""
        return self._vocabulary.decode([token_id for token_id in token_ids if token_id not in self._hidden])

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, hidden or not."""
        return self._vocabulary.token_bytes(token_id)

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Return what the token adds to the text of a constrained answer; None if it is a control token."""
        return self._vocabulary.text_bytes(token_id)


def _any_of(literals: Iterable[str]) -> str:
    return "|".join(re.escape(literal) for literal in sorted(literals, key=len, reverse=True))
