"""Who asks: one language, chosen wordings, and a memory of what was just spoken of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tools.demo.language import Language
from tools.demo.scene import GRID, Scenes

STEP = 20
"""Boxes are told in thousandths of the picture, to the next of these."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape of one scene."""

    kind: int
    colour: int
    is_large: bool
    radius: float
    centre: tuple[float, float]
    box: tuple[float, ...]

    @property
    def looks(self) -> tuple[int, int]:
        """What it is called by."""
        return self.colour, self.kind

    @property
    def place(self) -> int | None:
        """In which of the three by three parts it clearly lies."""
        thirds = [part for value in self.centre for part in range(3) if abs(value * 3 - part - 0.5) < 0.4]
        return thirds[1] * 3 + thirds[0] if len(thirds) == 2 else None


def things_of(scenes: Scenes, index: int) -> list[Thing]:
    """Return a scene's shapes in reading order, that is by their cells."""
    boxes, cells = scenes.boxes[index].tolist(), scenes.cells[index]
    found = [slot for slot in range(len(cells)) if scenes.is_there[index, slot]]
    return [
        Thing(
            int(scenes.kinds[index, slot]),
            int(scenes.colours[index, slot]),
            bool(scenes.is_large[index, slot]),
            float(scenes.radii[index, slot]),
            tuple(scenes.centres[index, slot].tolist()),
            tuple(boxes[slot]),
        )
        for slot in sorted(found, key=lambda slot: cells[slot] % GRID**2)
    ]


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer."""

    kind: str
    question: str
    answer: str


@dataclass(slots=True)
class Speaker:
    """Asks in one language."""

    rng: np.random.Generator
    words: Language
    topic: Thing | None = None
    """What `it` is."""
    subject: str = ""
    """What the last question asked for; it is what `and the other?` asks for."""

    def choose(self, options: Sequence[T]) -> T:
        """Return one of them."""
        return options[int(self.rng.integers(len(options)))]

    def mark(self, word: str) -> str:
        """Return a word with its borders."""
        return f"{self.words.border}{word}{self.words.border}"

    def name(self, colour: int, kind: int) -> str:
        """Return what a shape is called."""
        return self.words.thing.format(
            colour=self.mark(self.words.colours[colour]), kind=self.mark(self.words.kinds[kind])
        )

    def box(self, thing: Thing) -> str:
        """Return a shape framed, in the form that InternVL2 was trained on."""
        numbers = (f"{round(edge * 1000 / STEP) * STEP}" for edge in thing.box)
        return f"<ref>{self.name(*thing.looks)}</ref><box>[[{', '.join(numbers)}]]</box>"

    def enumerate(self, things: Sequence[Thing]) -> str:
        """Return a list of shapes."""
        return self.words.separator.join(self.name(*thing.looks) for thing in things)

    def truth(self, is_so: bool) -> str:
        """Return yes or no."""
        return self.words.truths[is_so]

    def ask(self, kind: str, answer: str, topic: Thing | None = None, /, **fillings: str) -> Turn:
        """Return a question in one of its wordings; `topic` is what it speaks of."""
        text = self.choose(self.words.wordings[kind])
        for name, word in fillings.items():
            text = text.replace(f"{{{name}}}", word)
        self.topic, self.subject = topic, kind
        return Turn(kind, _with_article(text), answer)


def _with_article(text: str) -> str:
    return text.replace(" a orange", " an orange")
