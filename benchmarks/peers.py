"""Baton beside `transformers serve` and ms-swift's `swift deploy`: one checkpoint, one load, one after another.

Run: python -m benchmarks.peers
"""

import os
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from baton.bench.report import Report
from baton.embedded import free_port
from benchmarks.checkpoint import SHAPES, checkpoint
from benchmarks.engine import REQUEST, limit
from benchmarks.page import heading, table
from benchmarks.stack import Stack, answers, bench, running, wait
from benchmarks.venv import CACHE, venv

CONCURRENCY = 8
NUM_REQUESTS = 16
ANSWER_TOKENS = 32
NUM_ROUNDS = 3
"""The machine has moods of its own: each server's median round counts."""
LOAD = (
    *(f"--concurrency={CONCURRENCY}", f"--num_requests={NUM_REQUESTS}", "--num_warmups=2"),
    *(*REQUEST, f"--answer_tokens={ANSWER_TOKENS}"),
)
TORCH = "torch==2.13.0"
GOALS = "at least 3 times the better peer's tokens/s, at most half its median TTFT"

Served = AbstractContextManager[tuple[str, str]]
"""A server while it runs: its /v1 and the model's name."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one server showed."""

    tokens_per_s: float
    ttft_ms: float
    cores: float
    """Of the load generator, in the worst round."""

    @classmethod
    def of(cls, reports: list[Report]) -> "Rounds":
        """Take the medians."""
        ttfts_ms = [report.ttft_ms.p50 for report in reports if report.ttft_ms is not None]
        rates = [report.tokens_per_s for report in reports]
        return cls(statistics.median(rates), statistics.median(ttfts_ms), max(r.client.core_share for r in reports))


@contextmanager
def baton(directory: Path) -> Iterator[tuple[str, str]]:
    """Serve with Baton: Redis, a gateway and a worker."""
    with Stack() as stack:
        url, _ = stack.gateway()
        stack.workers(1, f"--model_id_or_path={directory}", "--served_model_name=tiny")
        yield url, "tiny"


def transformers_serve(directory: Path) -> Served:
    """Serve with `transformers serve`, one request at a time: it batches no vision models."""
    folder = venv("transformers", [TORCH], ["transformers[serving]==5.23.0", "pillow", "accelerate"])
    command = [str(folder / "transformers"), "serve", str(directory), "--device", "cpu", "--dtype", "float32"]
    return peer(command, "/health", str(directory))


def swift_deploy(directory: Path) -> Served:
    """Serve with ms-swift on its transformers back end, in batches of 8."""
    folder = venv("ms-swift", [TORCH], ["ms-swift==4.6.0", "soundfile", "qwen_vl_utils", "librosa"])
    kind = ("--model_type", "llava1_5_hf", "--template", "llava1_5_hf", "--torch_dtype", "float32")
    batch = ("--served_model_name", "tiny", "--max_batch_size", str(CONCURRENCY), "--verbose", "false")
    command = [str(folder / "python"), "-m", "swift.cli.deploy", "--model", str(directory), *kind, *batch]
    return peer(command, "/health", "tiny")


@contextmanager
def peer(command: list[str], health: str, model: str) -> Iterator[tuple[str, str]]:
    """Run a server of somebody else's, with as many threads as Baton's worker has; its output goes to a file."""
    port = free_port()
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "USE_HF": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = CACHE / f"{Path(command[0]).parent.parent.name}.log"
    with (
        log.open("wb") as output,
        running(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            own | offline | {"OMP_NUM_THREADS": "1"},
            cwd=CACHE,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        wait(lambda: answers(f"http://127.0.0.1:{port}{health}"), process)
        yield f"http://127.0.0.1:{port}/v1", model


SERVERS: dict[str, Callable[[Path], Served]] = {
    "Baton": baton,
    "`transformers serve` 5.23.0": transformers_serve,
    "`swift deploy` 4.6.0, batches of 8": swift_deploy,
}


def measure(serve: Callable[[Path], Served], directory: Path) -> Rounds | str:
    """Return what a server shows, or why it shows nothing."""
    try:
        with serve(directory) as (url, model):
            reports = [bench(url, f"--model={model}", *LOAD) for _ in range(NUM_ROUNDS)]
    except (RuntimeError, subprocess.CalledProcessError) as error:
        return str(error)
    if errors := [report.errors for report in reports if report.errors]:
        return str(errors[0])
    return Rounds.of(reports)


def rows() -> Iterator[tuple[object, ...]]:
    """Yield a row for each server, then one that compares."""
    for shape in SHAPES:
        directory = checkpoint(shape, CACHE)
        measured = {name: measure(serve, directory) for name, serve in SERVERS.items()}
        for name, rounds in measured.items():
            if isinstance(rounds, str):
                yield shape.name, name, f"did not run here: {rounds}", "", ""
            else:
                yield (
                    shape.name,
                    name,
                    f"{rounds.tokens_per_s:,.0f}",
                    f"{rounds.ttft_ms:,.0f} ms",
                    f"{rounds.cores:.0%}",
                )
        most = limit(directory, CONCURRENCY, ANSWER_TOKENS, NUM_REQUESTS // CONCURRENCY)
        yield shape.name, "Baton's engine with nothing around it", f"{most:,.0f}", "", ""
        ours, *theirs = (rounds for rounds in measured.values() if isinstance(rounds, Rounds))
        if theirs:
            faster = ours.tokens_per_s / max(peer.tokens_per_s for peer in theirs)
            sooner = ours.ttft_ms / min(peer.ttft_ms for peer in theirs)
            yield shape.name, "**Baton / the better peer**", f"**{faster:.1f}**", f"**{sooner:.2f}**", ""


def main() -> None:
    """Print the table."""
    heading("python -m benchmarks.peers")
    load = f"{CONCURRENCY} clients, {NUM_REQUESTS} streamed image requests of {ANSWER_TOKENS} tokens, one thread each"
    print(f"{load}; goals: {GOALS}\n")
    table(["parameters", "server", "tokens/s", "TTFT p50", "client, of a core"], rows())


if __name__ == "__main__":
    main()
