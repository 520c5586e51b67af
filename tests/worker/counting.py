"""A runner that counts: a row is the list of the tokens in it, and the next token the number of tokens so far."""

from worker.engine.flight import Landed
from worker.engine.pieces import identify
from worker.engine.rows import Content
from worker.engine.runner import MediaStats
from worker.engine.token import Token


class Numbers:
    def decode(self, token_ids):
        return "".join(f"{t} " for t in token_ids)

    def answer_bytes(self, token_id):
        return f"{token_id} ".encode()


class CountingPrefill:
    def __init__(self, runner, sequence, row, num_cached):
        self.tokens = tokens_of(sequence)[:-1]
        self.is_poisoned = sequence.id.startswith("poison")
        self.name = sequence.id
        self.runner, self.row = runner, row
        assert runner.rows[row][:num_cached] == self.tokens[:num_cached]
        del runner.rows[row][num_cached:]

    @property
    def num_tokens(self):
        return len(self.runner.rows[self.row])

    @property
    def rest(self):
        return len(self.tokens) - self.num_tokens if self.runner.gathers else 0

    @property
    def is_complete(self):
        return self.num_tokens == len(self.tokens) and not self.is_poisoned

    def advance(self, budget):
        if self.is_poisoned:
            raise RuntimeError("this prompt breaks the model")
        self.runner.need_memory("prefill", [self.name], self.row + 1)
        chunk = self.tokens[self.num_tokens :][:budget]
        self.runner.rows[self.row] += chunk
        self.runner.reads.append(len(chunk))
        return len(chunk)


class CountingRunner:
    """With `gathers` it reads prompts together that end within a step."""

    adapters = None
    gathers = False
    media_stats = MediaStats()
    overlaps = False

    def __init__(self, num_rows=8):
        self.rows = [[] for _ in range(num_rows)]
        self.batch_sizes = []
        self.reads = []
        self.groups = []
        self.fails_once: Exception | None = None
        self.room = {"prefill": num_rows, "decode": num_rows}
        self.too_large = {}

    def content(self, sequence):
        return Content(sequence.adapter, identify(sequence.prompt, sequence.token_ids))

    def prefill(self, sequence, row, num_cached):
        return CountingPrefill(self, sequence, row, num_cached)

    def read(self, prefills):
        assert [prefill.row for prefill in prefills] == [*range(prefills[0].row, prefills[-1].row + 1)]
        self.groups.append([prefill.rest for prefill in prefills])
        if any(prefill.is_poisoned for prefill in prefills):
            raise RuntimeError("a prompt breaks the model")
        for prefill in prefills:
            prefill.advance(prefill.rest)

    def launch(self, sequences, before):
        flying = dict(zip(before.sequences, before.tokens, strict=True)) if before else {}
        for row, sequence in zip(self.rows, sequences, strict=False):
            tokens = [*tokens_of(sequence), *(flying[sequence].id for _ in range(sequence.num_flying))]
            assert row == tokens[:-1]
            row.append(tokens[-1])
        if any(s.id.startswith("bomb") for s in sequences):
            raise RuntimeError("the step breaks")
        self.need_memory("decode", [s.id for s in sequences], len(sequences))
        if self.fails_once is not None:
            error, self.fails_once = self.fails_once, None
            raise error
        self.batch_sizes.append(len(sequences))
        return Landed(sequences, [self.token(s) for s in sequences])

    def token(self, sequence):
        return Token(sequence.num_tokens + sequence.num_flying)

    def need_memory(self, where, names, num_rows):
        if num_rows > self.room[where] or self.too_large.get(where) in names:
            raise MemoryError("no room")

    def copy(self, source, target, num_tokens):
        self.rows[target] = self.rows[source][:num_tokens]

    def swap(self, row, other):
        self.rows[row], self.rows[other] = self.rows[other], self.rows[row]


def tokens_of(sequence):
    return [*sequence.prompt.token_ids, *sequence.token_ids]
