"""The engine behind HTTP, queue and pub/sub beside the offline limit: the same requests with nothing around it.

Run: python -m benchmarks.engine
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from baton.bench.settings import BenchSettings
from baton.bench.workload import Conversation, Workload
from benchmarks.checkpoint import SHAPES, checkpoint
from benchmarks.page import heading, table
from benchmarks.stack import Stack, bench
from benchmarks.venv import CACHE
from shared.job import MediaKind, MediaPart, Message, Role, SamplingParams, TextPart
from worker.engine.engine import Engine
from worker.engine.sequence import Sequence
from worker.models.family import Model
from worker.models.registry import load_model
from worker.settings import WorkerSettings

CONCURRENCY = (8, 32)
ROUNDS = 2
"""So many requests for each of the concurrent ones."""
LOAD = (
    "--images=1",
    "--image_size=120x90",
    "--prompt_words=16",
    "--answer_tokens=64",
    '--extra_body={"temperature": 0}',
)
GOAL = "90 %"


def offline(directory: Path, concurrency: int) -> float:
    """Return tokens/s of the engine in this process: everything is asked at once, and stepped until it is answered."""
    settings = WorkerSettings(model_id_or_path=str(directory), max_num_seqs=concurrency)
    model = load_model(settings, lambda words: None)
    asked = BenchSettings.read([*LOAD, f"--num_requests={concurrency * ROUNDS}", f"--num_warmups={concurrency}"])
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


def over_http(directory: Path, concurrency: int) -> float:
    """Return tokens/s of the same requests through a gateway, by as many clients."""
    with Stack() as stack:
        url, _ = stack.gateway()
        stack.workers(1, f"--model_id_or_path={directory}", f"--max_num_seqs={concurrency}")
        numbers = (f"--concurrency={concurrency}", f"--num_requests={concurrency * ROUNDS}")
        report = bench(url, *LOAD, *numbers, f"--num_warmups={concurrency}")
    assert report.num_answered == report.num_requests, report.errors
    return report.tokens_per_s


def rows() -> Iterator[tuple[object, ...]]:
    for shape in SHAPES:
        directory = checkpoint(shape, CACHE)
        for concurrency in CONCURRENCY:
            command = [sys.executable, "-m", "benchmarks.engine", str(directory), str(concurrency)]
            alone = subprocess.run(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True
            )
            limit, reached = float(alone.stdout), over_http(directory, concurrency)
            yield shape.name, concurrency, f"{limit:,.0f}", f"{reached:,.0f}", f"{reached / limit:.0%}", GOAL


def main() -> None:
    """Print the table."""
    heading("python -m benchmarks.engine")
    columns = ("parameters", "concurrent image requests", "offline, tokens/s", "through HTTP", "of the limit", "goal")
    table(columns, rows())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(offline(Path(sys.argv[1]), int(sys.argv[2])))
    else:
        main()
