"""What following a grammar costs: answers that must match something beside free ones, with vocabularies of real sizes.

Run: python -m benchmarks.constraint
"""

import json
import random
import string
import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Ids
from functools import cached_property
from statistics import mean

import torch
import transformers

import worker.models.companions  # noqa: F401  before transformers imports what it needs
from api.calls.grammar import calls_grammar
from api.grammar import json_grammar, object_grammar
from api.schema.tool import FunctionDefinition
from api.tools import Offer, Toolbox
from benchmarks.page import heading, table
from shared.grammar import GRAMMAR_LIMITS
from shared.job import SamplingParams
from shared.tools import Calling, Tool, ToolFormat
from worker.engine.engine import Engine
from worker.engine.grammar import Grammars
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.engine.torch_runner import TorchRunner

VOCABULARIES = (32_000, 150_000)
ROWS = (1, 8)
NUM_TOKENS = 64
"""Of an answer at most; a row whose answer ends goes on with another one."""
NUM_WARM = 2
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 400},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 3},
        "size": {"type": "number"},
        "kind": {"enum": ["picture", "clip", "recording"]},
    },
    "required": ["title", "tags", "size", "kind"],
    "additionalProperties": False,
}


class Letters:
    """Tokens of every byte, and of random words as long as those of real vocabularies; the last one ends an answer."""

    def __init__(self, size: int) -> None:
        draw = random.Random(0)
        words = {"".join(draw.choices(string.ascii_lowercase, k=draw.choice((2, 3, 4, 5, 6, 8)))) for _ in range(size)}
        spelled = [bytes([byte]) for byte in range(256)]
        spelled += [(b" " + word.encode()) if index % 2 else word.encode() for index, word in enumerate(sorted(words))]
        spelled += [str(index).encode() for index in range(size)]
        self._tokens = list(dict.fromkeys(spelled))[:size]

    def decode(self, token_ids: Ids[int]) -> str:
        """Return the text of these tokens."""
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself."""
        return self._tokens[token_id]

    def answer_bytes(self, token_id: int) -> bytes:
        """Return what the token adds to a constrained answer."""
        return self._tokens[token_id]


class Bench:
    """One vocabulary, and a network of 10 million random weights beside its embeddings."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        config = transformers.Qwen2Config(
            hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
            vocab_size=vocab_size, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = transformers.Qwen2ForCausalLM._from_config(config).eval().to(device)
        self.runner = TorchRunner(network, max(ROWS), 1024)
        self.grammars = Grammars(self.runner.vocab_size, GRAMMAR_LIMITS)
        end = frozenset({vocab_size - 1})
        self.prompt = Prompt(token_ids=(1, 2, 3), tokenizer=Letters(vocab_size), stop_token_ids=end)

    @cached_property
    def table_s(self) -> float:
        """The time to read the vocabulary, once for each model."""
        began_s = time.perf_counter()
        self.grammars.compile(object_grammar(), self.prompt)
        return time.perf_counter() - began_s

    def compile_ms(self, grammar: str) -> float:
        """The time to compile a grammar, the vocabulary being known."""
        began_s = time.perf_counter()
        self.grammars.compile(grammar, self.prompt)
        return (time.perf_counter() - began_s) * 1e3

    def mask_ms(self, grammar: str) -> float:
        """The time to work out which tokens may come next, on average over an answer's tokens."""
        constraint, draw, times = self.grammars.compile(grammar, self.prompt).constraint(), random.Random(0), []
        for _ in range(NUM_TOKENS):
            began_s = time.perf_counter()
            mask = constraint.mask()
            times.append((time.perf_counter() - began_s) * 1e3)
            allowed = [index for index in range(self.vocab_size - 1) if mask[index // 8] >> index % 8 & 1]
            if not allowed:
                break
            constraint.accept(draw.choice(allowed))
        return mean(times)

    def tokens_per_s(self, grammar: str | None, num_rows: int) -> float:
        """The speed of so many rows that run beside each other."""
        self._answer(grammar, num_rows, NUM_WARM)
        began_s = time.perf_counter()
        return self._answer(grammar, num_rows, NUM_TOKENS) / (time.perf_counter() - began_s)

    def _answer(self, grammar: str | None, num_rows: int, num_tokens: int) -> int:
        """Keep the rows busy until they have said so much, and return how much that is: some answers end early."""
        compiled = None if grammar is None else self.grammars.compile(grammar, self.prompt)
        engine, num_said = Engine(self.runner, num_rows), 0
        running: list[Sequence] = []
        while num_said < num_rows * num_tokens:
            num_said += sum(len(sequence.token_ids) for sequence in running if sequence.is_finished)
            running = [sequence for sequence in running if not sequence.is_finished]
            while len(running) < num_rows:
                constraint = None if compiled is None else compiled.constraint()
                sampling = SamplingParams(temperature=1.0, seed=num_said + len(running))
                name = f"{num_said}/{len(running)}"
                running.append(Sequence(name, self.prompt, sampling, num_tokens, constraint=constraint))
                engine.add(running[-1])
            engine.step()
        return num_said + sum(len(sequence.token_ids) for sequence in running)


def forced_call() -> str:
    """Return the grammar of an answer that must call a function."""
    function = FunctionDefinition(name="describe", parameters=SCHEMA)
    offer = Offer(function, Tool("describe", None, json.dumps(SCHEMA)), "tools[0].function.parameters")
    return calls_grammar(Toolbox((offer,), Calling(ToolFormat.HERMES, ("describe",)), must_call=True))


def grammars() -> Mapping[str, str | None]:
    """Return what answers have to match, by what clients call it."""
    return {
        "free": None,
        "json_object": object_grammar(),
        "json_schema": json_grammar(SCHEMA, "response_format"),
        "forced call": forced_call(),
    }


def rows() -> Iterator[tuple[object, ...]]:
    for size in VOCABULARIES:
        bench = Bench(size)
        read = f"{bench.table_s:.2f} s"
        free: dict[int, float] = {}
        for name, grammar in grammars().items():
            speeds = {num_rows: bench.tokens_per_s(grammar, num_rows) for num_rows in ROWS}
            free = free or speeds
            shares = [f"{speeds[num_rows]:,.0f} ({speeds[num_rows] / free[num_rows]:.0%})" for num_rows in ROWS]
            own = () if grammar is None else (f"{bench.compile_ms(grammar):.1f}", f"{bench.mask_ms(grammar):.3f}")
            yield f"{size:,}", name, *shares, *(own or ("", "")), read
            read = ""


def main() -> None:
    """Print the table."""
    heading("python -m benchmarks.constraint")
    speeds = (f"{num_rows} rows, tokens/s" if num_rows > 1 else "1 row, tokens/s" for num_rows in ROWS)
    table(("vocabulary", "answers", *speeds, "to compile, ms", "a mask, ms", "vocabulary read once"), rows())


if __name__ == "__main__":
    main()
