"""What a GPU gives of what it has: decoding beside its memory's bandwidth, reading beside its matrix products.

Run: python -m benchmarks.gpu [--tiny]
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from benchmarks.ceiling import bytes_per_s, products_per_s, settle, time_s
from benchmarks.internvl2 import FULL, TINY, Size, ask, build_language, build_network
from benchmarks.page import heading, table
from worker.engine.capture import CudaCapture, rerun
from worker.engine.engine import Engine
from worker.engine.forward import Record
from worker.engine.graphs import Graphs
from worker.engine.torch_runner import TorchRunner
from worker.models.device import Placement, choose_devices, choose_dtype

NUM_WARM_UPS = 4
"""Steps before those that count, in which steps are recorded."""


@dataclass(frozen=True)
class Bench:
    """A network and what it is compared with."""

    size: Size
    network: Any
    device: torch.device
    bytes_per_s: float
    products_per_s: float

    def record(self) -> Record:
        """Return what records steps here."""
        return partial(Graphs, CudaCapture(self.device) if self.device.type == "cuda" else rerun)

    def runner(self, rows: int, *, has_graphs: bool, overlaps: bool) -> TorchRunner:
        """Return a runner with pools for so many rows, and for the longest prompt."""
        size = self.size
        width = max(size.prompt_length + size.num_steps + 4 * NUM_WARM_UPS, size.num_read_tokens)
        record = self.record() if has_graphs else None
        return TorchRunner(self.network, rows, width, record=record, overlaps=overlaps)

    @property
    def read_weights(self) -> int:
        """Bytes of weights that a decode step reads: the language model's without its table of words."""
        language, head = self.network.model.language_model, self.network.lm_head
        parameters = [*language.layers.parameters(), *language.norm.parameters(), *head.parameters()]
        return sum(parameter.nbytes for parameter in parameters)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values of one token."""
        text = self.network.config.text_config
        per_layer = 2 * text.num_key_value_heads * text.hidden_size // text.num_attention_heads
        return int(per_layer * text.num_hidden_layers * self.network.dtype.itemsize)

    def share(self, rows: int, step_s: float) -> str:
        """Return how much of the bandwidth a step's reading of weights, keys and values is."""
        length = self.size.prompt_length + self.size.num_steps / 2
        return f"{(self.read_weights + rows * length * self.bytes_per_token) / step_s / self.bytes_per_s:.0%}"


def decode(bench: Bench, rows: int, *, has_graphs: bool, overlaps: bool) -> float:
    """Return tokens/s of running rows, without the reading of their prompts."""
    runner = bench.runner(rows, has_graphs=has_graphs, overlaps=overlaps)
    engine, size = Engine(runner, rows, 2**20), bench.size
    sequences = [ask(size, index, size.num_steps + 3 * NUM_WARM_UPS) for index in range(rows)]
    for sequence in sequences:
        engine.add(sequence)
    while min(len(sequence.token_ids) for sequence in sequences) < NUM_WARM_UPS:
        engine.step()
    settle(bench.device)
    num_before, began_s = _num_tokens(sequences), time.perf_counter()
    for _ in range(size.num_steps):
        engine.step()
    settle(bench.device)
    return (_num_tokens(sequences) - num_before) / (time.perf_counter() - began_s)


def _num_tokens(sequences: list[Any]) -> int:
    return sum(len(sequence.token_ids) for sequence in sequences)


def steps(bench: Bench) -> Iterator[tuple[object, ...]]:
    for rows in bench.size.rows:
        for has_graphs in (False, True):
            for overlaps in (False, True):
                tokens_per_s = decode(bench, rows, has_graphs=has_graphs, overlaps=overlaps)
                way = "graphs" if has_graphs else "eager"
                order = "launched ahead" if overlaps else "in order"
                yield rows, way, order, f"{tokens_per_s:,.0f}", bench.share(rows, rows / tokens_per_s)


def neighbours(bench: Bench) -> Iterator[tuple[object, ...]]:
    language = build_language(bench.network)
    for rows in bench.size.rows:
        own = decode(bench, rows, has_graphs=True, overlaps=True)
        plain = generate(bench, rows)
        told = (rows, f"{own:,.0f}", f"{plain:,.0f}", f"{own / plain:.1f}")
        if bench.device.type == "cuda":
            batched = generate_batch(bench, language, rows)
            yield *told, f"{batched:,.0f}", f"{own / batched:.1f}"
        else:  # it would take all memory for its pages
            yield *told, "", ""


def generate(bench: Bench, rows: int) -> float:
    """Return tokens/s of `generate()` for rows of one length; what it takes for one token is not counted."""
    ids = torch.tensor([ask(bench.size, index, 1).prompt.token_ids for index in range(rows)], device=bench.device)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}

    def run(num_tokens: int) -> float:
        length = {"min_new_tokens": num_tokens, "max_new_tokens": num_tokens}
        return time_s(lambda: bench.network.generate(**given, **length), bench.device, 1)

    return rows * bench.size.num_steps / (run(bench.size.num_steps + 1) - run(1))


def generate_batch(bench: Bench, language: Any, rows: int) -> float:
    """Return tokens/s of transformers' own continuous batching of text; what it takes for one token is not counted."""
    prompts = [list(ask(bench.size, index, 1).prompt.token_ids) for index in range(rows)]

    def run(num_tokens: int) -> float:
        asked = GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        return time_s(lambda: language.generate_batch(prompts, generation_config=asked), bench.device, 1)

    return rows * bench.size.num_steps / (run(bench.size.num_steps + 1) - run(1))


def reading(bench: Bench) -> Iterator[tuple[object, ...]]:
    num_tokens = bench.size.num_read_tokens
    runner = bench.runner(1, has_graphs=False, overlaps=False)
    asked = ask(bench.size, 0, 1, num_tokens)

    def read() -> None:
        prefill = runner.prefill(asked, 0, 0)
        while not prefill.is_complete:
            prefill.advance(num_tokens)

    took_s = time_s(read, bench.device, 3)
    layers = bench.network.model.language_model.layers
    operations = 2 * (num_tokens - 1) * sum(parameter.numel() for parameter in layers.parameters())
    yield num_tokens, f"{num_tokens / took_s:,.0f}", f"{operations / took_s / bench.products_per_s:.0%}"


def waiting(bench: Bench) -> str:
    """Return whether a step waits for anything but its tokens, as CUDA itself says."""
    if bench.device.type != "cuda":
        return "was not checked, because only CUDA tells"
    runner = bench.runner(2, has_graphs=True, overlaps=True)
    asked = [ask(bench.size, index, 9) for index in range(2)]
    for row, sequence in enumerate(asked):
        prefill = runner.prefill(sequence, row, 0)
        while not prefill.is_complete:
            prefill.advance(2**20)
    flight = runner.launch(asked, None)
    for sequence in asked:
        sequence.num_flying = 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        runner.launch(asked, flight)
    except RuntimeError as error:
        return f"waits: {error}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "waits for nothing"


def main() -> None:
    """Print the tables."""
    is_tiny = sys.argv[1:] == ["--tiny"]
    size, devices = TINY if is_tiny else FULL, choose_devices(None)
    heading("python -m benchmarks.gpu" + " --tiny" * is_tiny)
    dtype, device = choose_dtype("auto", devices), devices[0]
    ceilings = bytes_per_s(size.copied_bytes, device), products_per_s(size.matrix_side, dtype, device)
    print(
        f"{size.name}, random weights, {dtype} on {Placement(devices, dtype)}; prompts of {size.prompt_length} tokens."
    )
    print(f"Measured here: {ceilings[0] / 1e9:,.0f} GB/s copied, {ceilings[1] / 1e12:,.1f} TFLOP/s multiplied.\n")
    bench = Bench(size, build_network(size, device, dtype), device, *ceilings)
    table(("rows", "steps", "order", "tokens/s", "of the bandwidth"), steps(bench))
    beside = ("rows", "Baton, tokens/s", "`generate()`", "times", "`generate_batch()`", "times")
    table(beside, neighbours(bench))
    table(("prompt, tokens", "read, tokens/s", "of the matrix products"), reading(bench))
    print(f"A step {waiting(bench)}.")


if __name__ == "__main__":
    main()
