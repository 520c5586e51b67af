"""A model without weights: it says the words of the last user message over and over, one word a token."""

import time
from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import InvalidRequest
from shared.job import AS_TRAINED, MediaPart, Message, ProcessorParams, SamplingParams, TextPart
from worker.engine.flight import Flight, Landed
from worker.engine.prompt import Prompt
from worker.engine.runner import MediaStats, Prefill
from worker.engine.sequence import Sequence
from worker.engine.token import Token
from worker.models.family import ModelFacts, RawPrompt
from worker.models.refusal import check_wishes
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from worker.engine.sampler import Sampler

DEFAULT_MAX_MODEL_LEN = 8192
LIKELY = 5.0
"""The next word's logit; every other word's is 0."""


@dataclass(frozen=True, slots=True)
class Words:
    """Tokenizer of one prompt: token i is its i-th word, on whatever worker."""

    words: tuple[str, ...]

    def decode(self, token_ids: Ids[int]) -> str:
        """Join the words with blanks."""
        return " ".join(self.words[token_id] for token_id in token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the word as it stands behind another one; nothing for a number that no word has."""
        return f" {self.words[token_id]}".encode() if token_id < len(self.words) else b""

    def answer_bytes(self, token_id: int) -> None:
        """Spell nothing: words that are said over and over match no grammar."""


class FakeRunner:
    """Takes as long as it is told to: a time for each prefill, a time for each step whatever its size.

    The next word is the likeliest one by far; who asks for more than that is served by the models' own sampler.
    """

    adapters = None
    media_stats = MediaStats()
    media_room = None
    overlaps = False

    def __init__(self, ttft_s: float, itl_s: float, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._ttft_s = ttft_s
        self._itl_s = itl_s
        self._sampler: Sampler | None = None

    def content(self, sequence: Sequence) -> None:
        """Nothing lies in a row, and its tokens are numbers of words, whatever the words are."""

    def prefill(self, sequence: Sequence, row: int, num_cached: int) -> "FakePrefill":
        """Begin to read."""
        return FakePrefill(len(sequence.prompt.token_ids), max(self._ttft_s - self._itl_s, 0))

    def read(self, prefills: list[Prefill]) -> None:
        """Nothing is ever left."""

    def launch(self, sequences: list[Sequence], before: Flight | None) -> Landed:
        """Wait once for all rows, and say each one's next word."""
        time.sleep(self._itl_s)
        return Landed(sequences, self._choose(sequences))

    def _choose(self, sequences: list[Sequence]) -> list[Token]:
        if all(s.takes_likeliest and s.sampling.num_logprobs is None for s in sequences):
            return [Token(_next_word(sequence)) for sequence in sequences]
        import torch  # takes seconds, and most fake workers never need it

        from worker.engine.sampler import Sampler

        self._sampler = self._sampler or Sampler()
        logits = torch.full((len(sequences), self.vocab_size), -torch.inf)
        for row, sequence in zip(logits, sequences, strict=True):
            row[: len(_words_of(sequence))] = 0.0
            row[_next_word(sequence)] = LIKELY
        return self._sampler.choose(logits, sequences)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Nothing lies in a row."""

    def swap(self, row: int, other: int) -> None:
        """Nothing lies in a row."""


class FakePrefill:
    """Reads in one go, for as long as the step that says the first word leaves of the time to it."""

    rest = 0

    def __init__(self, num_tokens: int, duration_s: float) -> None:
        self._num_wanted = num_tokens
        self._duration_s = duration_s
        self.num_tokens = 0

    @property
    def is_complete(self) -> bool:
        """Whether it has waited."""
        return self.num_tokens == self._num_wanted

    def advance(self, budget: int) -> int:
        """Wait."""
        time.sleep(self._duration_s)
        self.num_tokens = self._num_wanted
        return self.num_tokens


class FakeModel:
    """Greedy unless asked otherwise, so that any text is known beforehand."""

    def __init__(self, settings: WorkerSettings) -> None:
        max_model_len = settings.max_model_len or DEFAULT_MAX_MODEL_LEN
        self.facts = ModelFacts(
            modalities=(),
            max_model_len=max_model_len,
            sampling=SamplingParams(),
            device="none",
        )
        self.runner = FakeRunner(settings.fake_ttft_ms / 1000, settings.fake_itl_ms / 1000, vocab_size=max_model_len)

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Count one token for each word of the conversation; the last message's words are the answer's."""
        check_wishes(processor, known=())
        words = [_words(message) for message in messages]
        if not words[-1]:
            raise InvalidRequest("the fake model repeats the last message, and it has no words", param="messages")
        num_words = sum(len(said) for said in words)
        return Prompt(token_ids=tuple(range(num_words)), tokenizer=Words(words[-1]))

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Count one token for each word of a text, which are the answer's as well."""
        if not isinstance(prompt, str) or not (words := tuple(prompt.split())):
            raise InvalidRequest("the fake model repeats the words of a text: send one", param="prompt")
        return Prompt(token_ids=tuple(range(len(words))), tokenizer=Words(words))


def load(settings: WorkerSettings, report: Callable[[str], None]) -> FakeModel:
    """Return the model; there is nothing to load."""
    report("nothing to load")
    return FakeModel(settings)


def _words(message: Message) -> tuple[str, ...]:
    return tuple(word for part in message.parts if isinstance(part, TextPart) for word in part.text.split())


def _words_of(sequence: Sequence) -> tuple[str, ...]:
    tokenizer = sequence.prompt.tokenizer
    assert isinstance(tokenizer, Words)
    return tokenizer.words


def _next_word(sequence: Sequence) -> int:
    return len(sequence.token_ids) % len(_words_of(sequence))
