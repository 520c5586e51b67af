"""Answers that match a grammar: llguidance says which tokens may come next, by what each adds to the text.

It knows no JSON and no request: what the grammar is about was decided by whoever wrote it.
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from worker.engine.constraint import PATIENCE_S
from worker.engine.prompt import Prompt, Tokenizer

NUM_THREADS = 8
"""However few cores there are, so that a cheap mask needn't wait for a dear one to end."""
MAX_MASK_S = 0.05
"""Of processor time. Ordinary grammars take 0.1 ms; ones written letter by letter up to 10 ms, with many tokens."""
MAX_ACCEPT_S = 0.005
"""Of processor time, in which no other thread of the worker runs; ordinary grammars take up to 1 ms."""
MAX_REASON_LENGTH = 300
NUM_COMPARED = 256
"""Tokens whose table is compared with the tokenizer's own text."""


class GrammarError(Exception):
    """The grammar can't be followed with this model; the message says why."""


class Grammar:
    """One request's grammar, compiled; each of its answers follows it by a constraint of its own."""

    def __init__(self, matcher: LLMatcher, pool: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._pool = pool

    def constraint(self) -> "GrammarConstraint":
        """Return what follows one more answer, from its first token on."""
        return GrammarConstraint(self._matcher.deep_copy(), self._pool)


class GrammarConstraint:
    """Implements `Constraint`; called from one thread at a time, and works out masks in others."""

    def __init__(self, matcher: LLMatcher, pool: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._pool = pool
        self._mask: Future[bytes] | None = None
        self._begun_s = 0.0
        self._mask_s = 0.0
        self._is_too_dear = False

    def begin(self) -> Future[bytes]:
        """Start to work out the next mask, unless that is under way."""
        if self._mask is None:
            self._begun_s = time.monotonic()
            self._mask = self._pool.submit(self._work_out)
        return self._mask

    @property
    def is_quick(self) -> bool:
        """Whether the mask was begun just now, and the last one took little time."""
        return max(self._mask_s, time.monotonic() - self._begun_s) <= PATIENCE_S

    def mask(self) -> bytes:
        """Return which tokens may come next, a bit each."""
        return self.begin().result()

    def accept(self, token_id: int) -> None:
        """Take the token that came, unless its mask was too dear: taking it is about as much, and holds all threads."""
        if self._mask is not None:
            self._mask.result()  # the matcher is one thread's at a time
            self._mask = None
        self._is_too_dear |= self._mask_s > MAX_MASK_S
        if not self._is_too_dear:
            began_s = time.thread_time()
            self._matcher.consume_token(token_id)
            self._is_too_dear = time.thread_time() - began_s > MAX_ACCEPT_S

    @property
    def is_complete(self) -> bool:
        """Whether the text matches, and nothing longer would."""
        return self._matcher.is_stopped() and not self.is_broken

    @property
    def is_broken(self) -> bool:
        """Whether it was too complex to follow this far, or no token can spell what must come."""
        return self._is_too_dear or self._matcher.is_error()

    def _work_out(self) -> bytes:
        began_s = time.thread_time()
        mask: bytes = self._matcher.compute_bitmask()
        self._mask_s = time.thread_time() - began_s
        return mask


class Grammars:
    """Compiles grammars for one model; safe for many threads.

    Its table of tokens is made for the first of them, and once more for answers whose tokens are read otherwise.
    """

    def __init__(self, vocab_size: int, limits: Mapping[str, Any]) -> None:
        self._vocab_size = vocab_size
        self._limits = LLParserLimits(**limits)
        self._lock = threading.Lock()
        self._tables: list[_Table] = []
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="grammar")

    def compile(self, grammar: str, prompt: Prompt) -> Grammar:
        """Return the grammar, ready for the answers to this prompt; raises GrammarError.

        Takes some ms, and once about a second.
        """
        matcher = LLMatcher(self._tokens(prompt), grammar, log_level=0, limits=self._limits)
        began_s = time.thread_time()
        if not matcher.is_error():
            matcher.compute_bitmask()
        if time.thread_time() - began_s > MAX_MASK_S:
            limit_ms = MAX_MASK_S * 1e3
            raise GrammarError(f"its beginning takes more than {limit_ms:.0f} ms of work; give it fewer alternatives")
        if matcher.is_error():
            raise GrammarError(matcher.get_error().partition("\n")[0][:MAX_REASON_LENGTH])
        return Grammar(matcher, self._pool)

    def _tokens(self, prompt: Prompt) -> LLTokenizer:
        with self._lock:
            table = next((table for table in self._tables if table.serves(prompt)), None)
            if table is None:
                table = _read_table(prompt, self._vocab_size)
                self._tables.append(table)
            return table.tokens


@dataclass(frozen=True, slots=True)
class _Table:
    """What a tokenizer's tokens add to a text, and which of them end it."""

    tokenizer: Tokenizer
    stop_token_ids: frozenset[int]
    tokens: LLTokenizer

    def serves(self, prompt: Prompt) -> bool:
        """Whether this prompt's answers are made of these tokens: a model has one reader, or one more for calls."""
        return prompt.tokenizer is self.tokenizer and prompt.stop_token_ids == self.stop_token_ids


class _Vocabulary:
    """A vocabulary as llguidance takes it."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], end: int | None) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = end

    def __call__(self, text: bytes) -> list[int]:
        """Return no tokens: grammars are written so that nothing is spelled for the model, and this isn't asked."""
        return []


def _read_table(prompt: Prompt, vocab_size: int) -> _Table:
    tokenizer, stops = prompt.tokenizer, prompt.stop_token_ids
    spelled = [None if i in stops else tokenizer.answer_bytes(i) for i in range(vocab_size)]
    _check_spelling(tokenizer, spelled)
    special = [i for i, text in enumerate(spelled) if text is None]
    tokens = [f"control {i}".encode() if text is None else text for i, text in enumerate(spelled)]
    ends = sorted(i for i in stops if i < vocab_size)
    vocabulary = TokenizerWrapper(_Vocabulary(tokens, special, ends[0] if ends else None))
    return _Table(tokenizer, stops, LLTokenizer(vocabulary, eos_token=ends or None))


def _check_spelling(tokenizer: Tokenizer, spelled: list[bytes | None]) -> None:
    """Raise GrammarError for a tokenizer that joins its tokens by rules of its own, as those of whole words do."""
    texts = {i: text for i, text in enumerate(spelled) if text and _is_whole(text)}
    compared = [i for i in [*texts][:: max(len(texts) // NUM_COMPARED, 1)] if tokenizer.decode([i]).strip()]
    if not compared:
        raise GrammarError("the model's tokens spell no text")
    first = compared[0]
    begun = tokenizer.decode([first])
    for i in compared:
        if tokenizer.decode([first, i]) != begun + texts[i].decode():
            raise GrammarError(f"the model's tokenizer doesn't say what its token {i} adds to a text")


def _is_whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
