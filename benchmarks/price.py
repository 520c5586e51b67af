"""What gateway, queue and pub/sub add to the times of the engine, which is called directly in the same run.

Run: python -m benchmarks.price
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator

from benchmarks.page import heading, table
from benchmarks.stack import Stack, bench
from benchmarks.streams import MAX_TOKENS, WORDS, open_streams
from shared.job import Message, Role, SamplingParams, TextPart
from worker.engine.engine import Engine, StepOutput
from worker.engine.sequence import Sequence
from worker.engine.thread import EngineThread
from worker.models.fake import FakeModel
from worker.settings import WorkerSettings

NUM_FIRST_TOKENS = 300
REQUESTS_PER_S = 10
NUM_STREAMS, NUM_TIMED = 256, 32
ITL_MS = 23.0
"""256 streams then make about 10,000 tokens/s, with what the step itself takes."""
WARM_UP_S, MEASURED_S = 3.0, 10.0


class Direct:
    """The engine of the fake model in this process, with nothing around it but its thread."""

    def __init__(self, itl_ms: float) -> None:
        settings = WorkerSettings(model_type="fake", fake_itl_ms=itl_ms, max_model_len=2 * MAX_TOKENS)
        self._model = FakeModel(settings)
        self.on_output: Callable[[StepOutput], None] = lambda _: None
        self._engine = EngineThread(Engine(self._model.runner, NUM_STREAMS), self._deliver)
        self._engine.start()
        self._loop = asyncio.get_running_loop()

    def ask(self, name: str, max_tokens: int) -> None:
        """Prepare one prompt and submit it."""
        prompt = self._model.prepare((Message(Role.USER, (TextPart(WORDS),)),), {})
        self._engine.submit(Sequence(name, prompt, SamplingParams(), max_tokens))

    def close(self) -> None:
        """Drop whatever runs."""
        self._engine.stop()

    def _deliver(self, outputs: list[StepOutput]) -> None:
        self._loop.call_soon_threadsafe(lambda: [self.on_output(output) for output in outputs])


async def direct_first_tokens() -> list[float]:
    """Return the seconds to the first token of requests at random moments, sorted."""
    direct, times_s = Direct(0), []
    for number in range(NUM_FIRST_TOKENS):
        heard = asyncio.Event()
        direct.on_output = lambda _, heard=heard: heard.set()  # type: ignore[misc]
        began_s = time.monotonic()
        direct.ask(str(number), max_tokens=1)
        await heard.wait()
        times_s.append(time.monotonic() - began_s)
        await asyncio.sleep(random.uniform(0.005, 0.02))
    direct.close()
    return sorted(times_s)


async def direct_gaps() -> tuple[list[float], float]:
    """Return the seconds between the tokens of each of many streams, sorted, and tokens/s."""
    direct, last_s, gaps_s = Direct(ITL_MS), dict[str, float](), list[float]()

    def note(output: StepOutput) -> None:
        now_s = time.monotonic()
        if output.sequence_id in last_s:
            gaps_s.append(now_s - last_s[output.sequence_id])
        last_s[output.sequence_id] = now_s

    direct.on_output = note
    for number in range(NUM_STREAMS):
        direct.ask(str(number), MAX_TOKENS)
    while len(last_s) < NUM_STREAMS:
        await asyncio.sleep(0.1)
    gaps_s.clear()
    await asyncio.sleep(MEASURED_S)
    direct.close()
    return sorted(gaps_s), len(gaps_s) / MEASURED_S


def first_tokens(url: str) -> tuple[float, float]:
    """Return p50 and p99 in ms over HTTP."""
    load = (f"--request_rate={REQUESTS_PER_S}", f"--num_requests={NUM_FIRST_TOKENS}", "--answer_tokens=2")
    ttft_ms = bench(url, *load, "--prompt_words=9", "--num_warmups=8").ttft_ms
    assert ttft_ms is not None
    return ttft_ms.p50, ttft_ms.p99


async def gaps(url: str) -> tuple[list[float], float]:
    """Return the seconds between the tokens of some of many streams over HTTP, sorted, and tokens/s of all."""
    async with open_streams([url], NUM_STREAMS, NUM_TIMED) as streams:
        await asyncio.sleep(WARM_UP_S)
        rate, gaps_s = await asyncio.gather(streams.rate(MEASURED_S), streams.gaps_s(MEASURED_S))
        return gaps_s, rate


def measured() -> Iterator[tuple[str, ...]]:
    with Stack() as stack:
        url, _ = stack.gateway()
        worker = ("--model_type=fake", f"--max_num_seqs={NUM_STREAMS}", f"--max_model_len={2 * MAX_TOKENS}")
        stack.workers(1, *worker)
        direct = _ms(asyncio.run(direct_first_tokens()))
        yield _cells("to the first token, an idle worker", direct, first_tokens(url), "5 / 12")
    with Stack() as stack:
        url, _ = stack.gateway()
        stack.workers(1, *worker, f"--fake_itl_ms={ITL_MS}")
        alone_s, alone_rate = asyncio.run(direct_gaps())
        gaps_s, rate = asyncio.run(gaps(url))
        name = f"between tokens, {NUM_STREAMS} streams ({rate:,.0f} tokens/s; the engine alone {alone_rate:,.0f})"
        yield _cells(name, _ms(alone_s), _ms(gaps_s), "1 / 6")


def _ms(seconds: list[float]) -> tuple[float, float]:
    return seconds[len(seconds) // 2] * 1000, seconds[int(len(seconds) * 0.99)] * 1000


def _cells(name: str, direct: tuple[float, float], whole: tuple[float, float], goal: str) -> tuple[str, ...]:
    added = (whole[0] - direct[0], whole[1] - direct[1])
    return name, *(f"{p50:.2f} / {p99:.2f}" for p50, p99 in (direct, whole, added)), goal


def main() -> None:
    """Print the table."""
    heading("python -m benchmarks.price")
    table(["p50 / p99 in ms", "the engine, called directly", "through Baton", "added", "goal"], measured())


if __name__ == "__main__":
    main()
