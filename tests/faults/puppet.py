"""A worker whose model writes characters that depend on everything written so far, and breaks when told to.

`python -m tests.faults.puppet` takes the options of a worker. SIGUSR1 breaks its next step, SIGUSR2 leaves it memory
for two rows for a while, SIGHUP takes its device away, SIGALRM lets its next step last for ever. POISON in a prompt
breaks every step that it is part of, GIANT fits into no memory.
"""

import signal
import sys
import threading
import time
import zlib
from dataclasses import dataclass

from worker.__main__ import main
from worker.engine.flight import Landed
from worker.engine.prompt import Prompt
from worker.engine.token import Scored, Token
from worker.models import fake

POISON = "☠"
GIANT = "🐘"
NUM_TIGHT_STEPS = 40


@dataclass(frozen=True, slots=True)
class Letters:
    """One token is one byte, so that most characters are cut by a token's edge."""

    alphabet: str

    def decode(self, token_ids):
        return bytes(token_ids).decode(errors="replace")

    def token_bytes(self, token_id):
        return bytes([token_id])


def next_byte(alphabet: str, seed: int, token_ids) -> int:
    """Finish the character that was begun, or choose another one by all that was written."""
    so_far = bytes(token_ids)
    begun = so_far[len(so_far.decode(errors="ignore").encode()) :]
    if begun:
        return next(c.encode()[len(begun)] for c in alphabet if c.encode().startswith(begun))
    return alphabet[zlib.crc32(so_far, seed) % len(alphabet)].encode()[0]


def written(alphabet: str, seed: int, num_tokens: int) -> list[Token]:
    """What an undisturbed puppet writes, one byte after the other."""
    token_ids: list[int] = []
    tokens = []
    for _ in range(num_tokens):
        tokens.append(scored(next_byte(alphabet, seed, token_ids), token_ids))
        token_ids.append(tokens[-1].id)
    return tokens


def scored(token_id: int, token_ids) -> Token:
    """Give the byte a log-probability that depends on all that was written before."""
    logprob = -(zlib.crc32(bytes(token_ids)) % 64) / 16
    return Token(token_id, logprob, (Scored(token_id, logprob),))


class Strings:
    """What is pulled by signals, which reach the main thread only."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.num_tight_steps = 0
        self.is_stuck = False

    def tie(self) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: self._break(RuntimeError("a string was pulled")))
        signal.signal(signal.SIGHUP, lambda *_: self._break(RuntimeError("CUDA error: a string was pulled")))
        signal.signal(signal.SIGUSR2, lambda *_: self._tighten())
        signal.signal(signal.SIGALRM, lambda *_: self._stick())

    def _break(self, error: Exception) -> None:
        self.error = error

    def _stick(self) -> None:
        self.is_stuck = True

    def _tighten(self) -> None:
        self.num_tight_steps = NUM_TIGHT_STEPS


STRINGS = Strings()


class PuppetRunner(fake.FakeRunner):
    """The fake model's times, and strings to pull."""

    def launch(self, sequences, before):
        time.sleep(self._itl_s)
        self._meet_fate(sequences)
        return Landed(sequences, [chosen(sequence) for sequence in sequences])

    def _meet_fate(self, sequences):
        alphabets = [sequence.prompt.tokenizer.alphabet for sequence in sequences]
        if any(POISON in alphabet for alphabet in alphabets):
            raise RuntimeError("the model breaks on this prompt")
        if any(GIANT in alphabet for alphabet in alphabets):
            raise MemoryError("the prompt is too large")
        if (error := STRINGS.error) is not None:
            STRINGS.error = None
            raise error
        if STRINGS.is_stuck:
            threading.Event().wait()
        if STRINGS.num_tight_steps > 0:
            STRINGS.num_tight_steps -= 1
            if len(sequences) > 2:
                raise MemoryError("there is room for two")


class PuppetModel(fake.FakeModel):
    """Knows the alphabet of each prompt: the characters of its last message."""

    def __init__(self, settings) -> None:
        super().__init__(settings)
        self.runner = PuppetRunner(settings.fake_ttft_ms / 1000, settings.fake_itl_ms / 1000, vocab_size=256)

    def prepare(self, messages, media, processor=fake.AS_TRAINED):
        alphabet = messages[-1].parts[0].text
        return Prompt(token_ids=tuple(range(len(alphabet))), tokenizer=Letters(alphabet))


def chosen(sequence) -> Token:
    sampling, token_ids = sequence.sampling, sequence.token_ids
    seed = sampling.seed if sampling.temperature > 0 else 0
    token_id = next_byte(sequence.prompt.tokenizer.alphabet, seed, token_ids)
    return Token(token_id) if sampling.num_logprobs is None else scored(token_id, token_ids)


if __name__ == "__main__":
    STRINGS.tie()
    fake.FakeModel = PuppetModel
    sys.exit(main())
