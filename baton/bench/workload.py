"""What is asked: conversations drawn from a seed before the load begins, so that drawing costs it nothing."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from baton.bench.media import clip, picture, recording
from baton.bench.settings import BenchSettings

TEXT = (
    "the of and to in is that for it with as was on be at by this have from or one had not but what all were when we "
    "there can an your which their said if do will each about how up out them then she many some so these would other "
    "into has more her two like him see time could no make than first been its who now people my made over did down "
    "only way find use may water long little very after words called just where most know"
)
WORDS = TEXT.split()


@dataclass(frozen=True, slots=True)
class Turn:
    """One question: its content as JSON, and the most tokens that its answer may have."""

    content: msgspec.Raw
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """Questions to one model, the later ones asked with everything that was said before."""

    model: str
    system: str | None
    turns: tuple[Turn, ...]


class Workload:
    """All conversations of a run; the same settings draw the same ones, whatever the server is."""

    def __init__(self, settings: BenchSettings, models: dict[str, float]) -> None:
        self._settings = settings
        self._models = models
        self._prefixes = [
            self._words(random.Random(f"{settings.seed}/prefix/{index}"), settings.prefix_words)
            for index in range(settings.num_prefixes if settings.prefix_words else 0)
        ]

    def draw(self) -> Iterator[Conversation]:
        """Yield the conversations one by one; media make each of them worth some milliseconds."""
        for index in range(self._settings.num_conversations):
            yield self._conversation(random.Random(f"{self._settings.seed}/{index}"))

    def warmups(self) -> Iterator[Conversation]:
        """Yield conversations of one turn that are none of the others."""
        for index in range(self._settings.num_warmups):
            drawn = self._conversation(random.Random(f"{self._settings.seed}/warm-up/{index}"))
            yield Conversation(drawn.model, drawn.system, drawn.turns[:1])

    def _conversation(self, draws: random.Random) -> Conversation:
        model = draws.choices([*self._models], [*self._models.values()])[0]
        system = draws.choice(self._prefixes) if self._prefixes else None
        return Conversation(model, system, tuple(self._turn(draws) for _ in range(self._settings.num_turns)))

    def _turn(self, draws: random.Random) -> Turn:
        text = self._words(draws, self._settings.prompt_words.draw(draws))
        media = self._media(draws)
        content = [*media, {"type": "text", "text": text}] if media else text
        return Turn(msgspec.Raw(msgspec.json.encode(content)), self._settings.answer_tokens.draw(draws))

    def _media(self, draws: random.Random) -> list[dict[str, Any]]:
        s = self._settings
        pictures = [picture(_seed(draws), s.image_size, s.image_format) for _ in range(s.images)]
        recordings = [recording(_seed(draws), s.audio_s) for _ in range(s.audios)]
        clips = [clip(_seed(draws), s.video_s, s.video_size, s.video_fps) for _ in range(s.videos)]
        return pictures + recordings + clips

    @staticmethod
    def _words(draws: random.Random, num_words: int) -> str:
        return " ".join(draws.choices(WORDS, k=num_words))


def _seed(draws: random.Random) -> int:
    return draws.getrandbits(32)
