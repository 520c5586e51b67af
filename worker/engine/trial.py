"""The largest request that is let through, made once by the model's own path, for whoever measures what it takes.

What comes out means nothing. The runner it is made with is to be thrown away: another begins as if nothing had been.
"""

from collections.abc import Sequence as Rows
from concurrent.futures import Future

from shared.job import SamplingParams
from worker.engine.alone import AloneRunner
from worker.engine.prefill import ShiftedPositions
from worker.engine.prompt import Prompt
from worker.engine.runner import Prefill
from worker.engine.sequence import Sequence
from worker.engine.torch_runner import TorchRunner

_GREEDY = SamplingParams()
_DEAREST = SamplingParams(
    temperature=1.0,
    top_p=0.9,
    top_k=0,
    repetition_penalty=1.1,
    presence_penalty=0.5,
    frequency_penalty=0.5,
    num_logprobs=20,
)
"""Every stage of the sampler over the whole vocabulary, in memory of its own."""


class Unhindered:
    """Implements `Constraint`: follows nothing, and costs as much as any grammar does."""

    is_quick = True
    is_complete = False
    is_broken = False

    def __init__(self, vocab_size: int) -> None:
        self._mask = b"\xff" * -(-vocab_size // 8)
        self._known: Future[bytes] = Future()
        self._known.set_result(self._mask)

    def begin(self) -> Future[bytes]:
        """There is nothing to work out."""
        return self._known

    def mask(self) -> bytes:
        """Let everything come."""
        return self._mask

    def accept(self, token_id: int) -> None:
        """Whatever came is fine."""


def try_rows(runner: TorchRunner, prompts: Rows[Prompt], num_rows: int, budget: int) -> int:
    """Read the end of each prompt, with a piece of its media encoded, then decode all rows at the length of the last.

    Prompts are as long as one may be. They are read in chunks of at most `budget` tokens, as the engine does. Returns
    how many tokens were read at once, which are more where a prompt can't be cut.
    """
    num_read = 1
    for prompt in prompts:
        sequence = Sequence("trial", prompt, _GREEDY, max_tokens=1)
        prefill = runner.prefill(sequence, 0, _beginning(prompt, max(0, sequence.num_tokens - 1 - budget), budget))
        num_read = max(num_read, _read(prefill, budget))
    for row in range(num_rows):
        runner.claim(row, len(prompt.token_ids))
    runner.launch([_dearest(f"trial {row}", prompt, runner.vocab_size) for row in range(num_rows)], None).collect()
    del prefill  # a prompt is read between steps: what it keeps meanwhile is there while rows are decoded
    ShiftedPositions(runner.adapters.network)
    return num_read


def try_alone(runner: AloneRunner, prompts: Rows[Prompt]) -> int:
    """Read each prompt, which can't be cut, and choose the first token of its answer; return what `try_rows` does."""
    for prompt in prompts:
        sequence = _dearest("trial", prompt, runner.vocab_size)
        runner.prefill(sequence, 0, 0)
        runner.launch([sequence], None).collect()
        runner.end()
    return len(prompt.token_ids)


def _read(prefill: Prefill, budget: int) -> int:
    num_read = 0
    while not prefill.is_complete:
        before = prefill.num_tokens
        prefill.advance(budget)
        num_read = max(num_read, prefill.num_tokens - before)
    return num_read


def _beginning(prompt: Prompt, start: int, budget: int) -> int:
    """Return where to begin, so that no medium is cut that needn't be: some models can't begin in the middle of one.

    What comes before counts as read already, and lies in the row as it may.
    """
    spans = [(int(piece.places[0]), int(piece.places[-1])) for piece in prompt.pieces if piece.features]
    return next((first for first, last in spans if first < start <= last < first + budget), start)


def _dearest(name: str, prompt: Prompt, vocab_size: int) -> Sequence:
    return Sequence(name, prompt, _DEAREST, max_tokens=1, constraint=Unhindered(vocab_size))
