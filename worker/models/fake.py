"""A model without weights: it says the words of the last user message over and over, one word a token."""

import time
from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass

from shared.errors import InvalidRequest
from shared.job import AS_TRAINED, MediaPart, Message, ProcessorParams, SamplingParams, TextPart
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.models.family import ModelFacts
from worker.settings import WorkerSettings

DEFAULT_MAX_MODEL_LEN = 8192


@dataclass(frozen=True, slots=True)
class Words:
    """Tokenizer of one prompt: token i is its i-th word, on whatever worker."""

    words: tuple[str, ...]

    def decode(self, token_ids: Ids[int]) -> str:
        """Join the words with blanks."""
        return " ".join(self.words[token_id] for token_id in token_ids)


class FakeRunner:
    """Takes as long as it is told to: a time for each prefill, a time for each step whatever its size."""

    adapters = None

    def __init__(self, ttft_s: float, itl_s: float) -> None:
        self._ttft_s = ttft_s
        self._itl_s = itl_s

    def prefill(self, sequence: Sequence, row: int) -> int:
        """Wait, and say the next word."""
        time.sleep(self._ttft_s)
        return _next_word(sequence)

    def decode(self, sequences: list[Sequence]) -> list[int]:
        """Wait once for all rows, and say each one's next word."""
        time.sleep(self._itl_s)
        return [_next_word(sequence) for sequence in sequences]

    def move(self, source: int, target: int) -> None:
        """Nothing lies in a row."""


class FakeModel:
    """Deterministic whatever the sampling, so that any text is known beforehand."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.facts = ModelFacts(
            modalities=(),
            max_model_len=settings.max_model_len or DEFAULT_MAX_MODEL_LEN,
            sampling=SamplingParams(),
            device="none",
        )
        self.runner = FakeRunner(settings.fake_ttft_ms / 1000, settings.fake_itl_ms / 1000)

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Count one token for each word of the conversation; the last message's words are the answer's."""
        words = [_words(message) for message in messages]
        if not words[-1]:
            raise InvalidRequest("the fake model repeats the last message, and it has no words", param="messages")
        num_words = sum(len(said) for said in words)
        return Prompt(token_ids=tuple(range(num_words)), tokenizer=Words(words[-1]))


def load(settings: WorkerSettings, report: Callable[[str], None]) -> FakeModel:
    """Return the model; there is nothing to load."""
    report("nothing to load")
    return FakeModel(settings)


def _words(message: Message) -> tuple[str, ...]:
    return tuple(word for part in message.parts if isinstance(part, TextPart) for word in part.text.split())


def _next_word(sequence: Sequence) -> int:
    words = sequence.prompt.tokenizer
    assert isinstance(words, Words)
    return len(sequence.token_ids) % len(words.words)
