"""How MiniCPM-V 2.5 and 2.6 write a conversation, and how their answers are read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from shared.job import MediaPart, Message, Part, Role, TextPart
from worker.models.refusal import check_turn
from worker.models.turn import split_open
from worker.models.vocabulary import Control, Segment, Vocabulary

PLACEHOLDER = Control("<unk>")
"""Stands for one vector of a tile."""

CLEAN_UP = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)
"""What `clean_up_tokenization_spaces` meant to the authors' tokenizer: no space before what English joins."""

Grid = tuple[int, int] | None
"""(columns, rows) of a picture's slices; None if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What the two versions write differently."""

    begin: tuple[Segment, ...] = ()
    headers: Mapping[Role, Sequence[Segment]]
    end: tuple[Segment, ...]
    bos: str
    """Dropped from answers, as the stops are."""
    stops: tuple[str, ...]
    system: str | None = None
    """What is said where nobody says anything else."""
    strips_content: bool = False
    has_image_ids: bool = False
    slice_marks: tuple[str, str]
    grid_marks: tuple[str, ...] = ()
    """Around all slices of a picture, if anything."""

    @property
    def controls(self) -> set[str]:
        """Every control token it writes."""
        segments = [*self.begin, *self.end, *(part for header in self.headers.values() for part in header)]
        skeleton = {segment.token for segment in segments if isinstance(segment, Control)}
        ids = ("<image_id>", "</image_id>") if self.has_image_ids else ()
        pictures = {"<image>", "</image>", PLACEHOLDER.token, *self.slice_marks, *self.grid_marks, *ids}
        return skeleton | pictures | {self.bos, *self.stops}


def _llama3(role: Role) -> list[Segment]:
    return [Control("<|start_header_id|>"), str(role), Control("<|end_header_id|>"), "\n\n"]


DIALECTS = {
    "2.5": Dialect(
        begin=(Control("<|begin_of_text|>"),),
        headers={role: _llama3(role) for role in Role},
        end=(Control("<|eot_id|>"),),
        bos="<|begin_of_text|>",
        stops=("<|eot_id|>", "<|end_of_text|>"),
        strips_content=True,
        slice_marks=("<image>", "</image>"),
        grid_marks=("<slice>", "</slice>"),
    ),
    "2.6": Dialect(
        headers={role: [Control("<|im_start|>"), f"{role}\n"] for role in Role},
        end=(Control("<|im_end|>"), "\n"),
        bos="<|im_start|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        system="You are a helpful assistant.",
        has_image_ids=True,
        slice_marks=("<slice>", "</slice>"),
    ),
}
"""By the `version` of config.json, as the chat templates and processors of August 2024."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes prompts of one checkpoint."""

    dialect: Dialect
    tile_length: int
    """Tokens a tile stands for."""
    system: str | None

    def write(
        self, messages: Sequence[Message], grids: Mapping[MediaPart, Sequence[Grid]], *, numbered: bool
    ) -> Iterator[Segment]:
        """Yield the prompt; `grids` has each medium's pictures, and `numbered` gives each an image id."""
        numbers = count() if numbered else None
        messages, begun = split_open(messages)
        yield from self.dialect.begin
        if self.system is not None and messages[0].role is not Role.SYSTEM:
            messages = [Message(Role.SYSTEM, (TextPart(self.system),)), *messages]
        for index, message in enumerate(messages):
            check_turn(message, index)
            body = list(_joined([self._part(part, grids, numbers) for part in message.parts]))
            yield from self.dialect.headers[message.role]
            yield from _stripped(body) if self.dialect.strips_content else body
            yield from self.dialect.end
        yield from self.dialect.headers[Role.ASSISTANT]
        yield from (part.text for part in begun.parts if isinstance(part, TextPart)) if begun is not None else ()

    def num_tokens(self, grid: Grid) -> int:
        """Return how many placeholders a picture takes."""
        num_slices = 0 if grid is None else grid[0] * grid[1]
        return self.tile_length * (1 + num_slices)

    def _part(
        self, part: Part, grids: Mapping[MediaPart, Sequence[Grid]], numbers: Iterator[int] | None
    ) -> list[Segment]:
        if isinstance(part, TextPart):
            return [part.text]
        return list(_joined([self._picture(grid, numbers) for grid in grids[part]]))

    def _picture(self, grid: Grid, numbers: Iterator[int] | None) -> list[Segment]:
        begin, end = [Control(mark) for mark in self.dialect.grid_marks] or ("", "")
        picture = [*_number(numbers), *self._tile("<image>", "</image>")]
        if grid is None:
            return picture
        columns, rows = grid
        slices = _joined([self._tile(*self.dialect.slice_marks) * columns] * rows)
        return [*picture, begin, *slices, end]

    def _tile(self, begin: str, end: str) -> list[Segment]:
        return [Control(begin), *[PLACEHOLDER] * self.tile_length, Control(end)]


class ReplyReader:
    """Reads answers as the authors' chat code does; implements the engine's `Tokenizer`.

    It spells control tokens out, grounding among them, but for those that frame a turn. The token of id 0, a lone
    exclamation mark, is what the authors pad with, and they drop it wherever it stands.
    """

    def __init__(self, vocabulary: Vocabulary, dialect: Dialect) -> None:
        self._vocabulary = vocabulary
        self._dropped = {0, *(vocabulary.control_ids[token] for token in (dialect.bos, *dialect.stops))}

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens."""
        return self._vocabulary.decode([token_id for token_id in token_ids if token_id not in self._dropped])

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, dropped or not."""
        return self._vocabulary.token_bytes(token_id)

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Return what the token adds to the text of a constrained answer, in which an exclamation mark is one."""
        return self._vocabulary.text_bytes(token_id)


def _number(numbers: Iterator[int] | None) -> list[Segment]:
    return [] if numbers is None else [Control("<image_id>"), str(next(numbers)), Control("</image_id>")]


def _joined(parts: Sequence[Sequence[Segment]]) -> Iterator[Segment]:
    for index, part in enumerate(parts):
        if index > 0:
            yield "\n"
        yield from part


def _stripped(body: Sequence[Segment]) -> list[Segment]:
    """Return a message without white space around it."""
    backwards = _without_leading(list(reversed(body)), str.rstrip)
    return _without_leading(backwards[::-1], str.lstrip)


def _without_leading(segments: list[Segment], strip: Callable[[str], str]) -> list[Segment]:
    for index, segment in enumerate(segments):
        if isinstance(segment, Control):
            return segments[index:]
        if rest := strip(segment):
            return [rest, *segments[index + 1 :]]
    return []
