"""The engine behind HTTP, queue and pub/sub beside the offline limit: the same requests with nothing around it.

It also says what a request takes of the processor, and of whose.

Run: python -m benchmarks.engine
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from baton.bench.settings import BenchSettings
from baton.bench.workload import Conversation, Workload
from benchmarks.checkpoint import SHAPES, checkpoint
from benchmarks.page import heading, table
from benchmarks.stack import Stack, bench, processor_s
from benchmarks.venv import CACHE
from shared.job import MediaKind, MediaPart, Message, Role, SamplingParams, TextPart
from worker.engine.engine import Engine
from worker.engine.sequence import Sequence
from worker.models.family import Model
from worker.models.registry import load_model
from worker.settings import WorkerSettings

CONCURRENCY = (8, 32)
ROUNDS = {"1M": 8, "80M": 2}
"""So many requests for each of the concurrent ones, by the model's size: each measurement takes seconds."""
REQUEST = ("--images=1", "--image_size=120x90", "--prompt_words=16", '--extra_body={"temperature": 0}')
ANSWER_TOKENS = 64
GOAL = "90 %"


def limit(directory: Path, concurrency: int, answer_tokens: int, rounds: int) -> float:
    """Return tokens/s of the engine in a process of its own, with nothing around it."""
    load = (str(concurrency), str(answer_tokens), str(rounds))
    command = [sys.executable, "-m", "benchmarks.engine", str(directory), *load]
    ran = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    return float(ran.stdout)


def _offline(directory: Path, concurrency: int, answer_tokens: int, rounds: int) -> float:
    """Ask for everything at once, and step until it is answered."""
    settings = WorkerSettings(model_id_or_path=str(directory), max_num_seqs=concurrency)
    model = load_model(settings, lambda words: None)
    load = (*REQUEST, f"--answer_tokens={answer_tokens}")
    asked = BenchSettings.read([*load, f"--num_requests={concurrency * rounds}", f"--num_warmups={concurrency}"])
    workload = Workload(asked, {"any": 1.0})
    _generate(model, list(workload.warmups()), concurrency)
    conversations = list(workload.draw())
    began_s = time.perf_counter()
    num_tokens = _generate(model, conversations, concurrency)
    return num_tokens / (time.perf_counter() - began_s)


def _generate(model: Model, conversations: list[Conversation], concurrency: int) -> int:
    engine = Engine(model.runner, concurrency)
    sequences = [_sequence(model, str(index), conversation) for index, conversation in enumerate(conversations)]
    for sequence in sequences:
        engine.add(sequence)
    while engine.has_work:
        engine.step()
    return sum(len(sequence.token_ids) for sequence in sequences)


def _sequence(model: Model, name: str, conversation: Conversation) -> Sequence:
    """Prepare one request, its picture from the bytes of its file on, as a worker does."""
    (turn,) = conversation.turns
    picture, text = json.loads(bytes(turn.content))
    part = MediaPart(MediaKind.IMAGE, name, "messages")
    content = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
    prompt = model.prepare((Message(Role.USER, (part, TextPart(text["text"]))),), {part: content})
    return Sequence(name, prompt, SamplingParams(temperature=0), turn.max_tokens)


@dataclass(frozen=True, slots=True)
class Served:
    """What came through HTTP, and what each process took for it."""

    tokens_per_s: float
    worker_ms: float
    """Processor time a request, as the next two."""
    gateway_ms: float
    client_ms: float


def over_http(directory: Path, concurrency: int, rounds: int) -> Served:
    """Ask the same requests through a gateway, by as many clients."""
    with Stack() as stack:
        url, gateway = stack.gateway()
        (worker,) = stack.workers(1, f"--model_id_or_path={directory}", f"--max_num_seqs={concurrency}")
        load = (*REQUEST, f"--answer_tokens={ANSWER_TOKENS}", f"--concurrency={concurrency}")
        bench(url, *load, f"--num_requests={concurrency}", "--seed=1")  # other pictures
        before_s = processor_s(worker), processor_s(gateway)
        report = bench(url, *load, f"--num_requests={concurrency * rounds}")
        after_s = processor_s(worker), processor_s(gateway)
    assert report.num_answered == report.num_requests, report.errors
    took_s = [after - before for after, before in zip(after_s, before_s, strict=True)]
    took_s.append(report.client.core_share * report.duration_s)
    return Served(report.tokens_per_s, *(1e3 * each / report.num_requests for each in took_s))


def rows() -> Iterator[tuple[object, ...]]:
    for shape in SHAPES:
        directory, rounds = checkpoint(shape, CACHE), ROUNDS[shape.name]
        for concurrency in CONCURRENCY:
            most = limit(directory, concurrency, ANSWER_TOKENS, rounds)
            served = over_http(directory, concurrency, rounds)
            took = f"{served.worker_ms:.0f} / {served.gateway_ms:.0f} / {served.client_ms:.0f}"
            reached = f"{served.tokens_per_s / most:.0%}"
            yield shape.name, concurrency, f"{most:,.0f}", f"{served.tokens_per_s:,.0f}", reached, GOAL, took


def main() -> None:
    """Print the table."""
    heading("python -m benchmarks.engine")
    columns = ("parameters", "concurrent image requests", "offline, tokens/s", "through HTTP", "of the limit", "goal")
    table((*columns, "processor ms a request: worker / gateway / client"), rows())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(_offline(Path(sys.argv[1]), *map(int, sys.argv[2:])))
    else:
        main()
