"""Where faults are played: a Redis, a gateway and puppets as real processes, and a mixed load in front of them."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import IO

from openai import AsyncOpenAI
from redis.asyncio import Redis

from baton import InferClient
from baton.embedded import free_port
from baton.fleet import local_workers
from shared import keys
from shared.address import open_pool
from shared.fleet import WorkerState
from tests.api.conftest import wait_for_port
from tests.faults.mix import ANSWER_TIMEOUT_S, Answer, Listener, Question, Tally, mixed_load

LEASE_S = 1.5
START_TIMEOUT_S = 60.0

Fault = Callable[["Stage", random.Random], Awaitable[None]]


class Stage:
    """Everything that one fault test breaks; `open` it."""

    def __init__(self, redis_url: str, worker_options: tuple[str, ...], log: IO[bytes] | None) -> None:
        self.redis_url = redis_url
        self.gateway_options: tuple[str, ...] = ()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.gateways: dict[int, subprocess.Popen[bytes]] = {}
        self.tally = Tally()
        self._worker_options = worker_options
        self._log = log
        self._started: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        redis_url: str,
        *,
        num_gateways: int = 1,
        num_workers: int = 2,
        gateway_options: tuple[str, ...] = (),
        log: IO[bytes] | None = None,
        **options: object,
    ) -> AsyncIterator["Stage"]:
        """`options` are the workers'; `log` is where all processes write."""
        dials = {"fake_itl_ms": 20, "max_num_seqs": 4, "lease_s": LEASE_S} | options
        stage = cls(redis_url, tuple(f"--{name}={value}" for name, value in dials.items()), log)
        stage.gateway_options = gateway_options
        try:
            for _ in range(num_gateways):
                stage.start_gateway()
            for _ in range(num_workers):
                stage.start_worker()
            await stage.settle()
            yield stage
        finally:
            await asyncio.to_thread(stage._stop)

    def start_gateway(self, port: int | None = None) -> None:
        port = port or free_port()
        self.gateways[port] = self.start("api", f"--port={port}", "--drain_notice_s=0", *self.gateway_options)

    def start_worker(self) -> None:
        self.workers.append(self.start("tests.faults.puppet", "--model_type=fake", *self._worker_options))

    async def strike(self, rng: random.Random, signum: signal.Signals) -> subprocess.Popen[bytes]:
        """Send a signal to one of the workers that hold jobs; return it."""
        async with Redis.from_pool(open_pool(self.redis_url)) as redis:
            jobs = await redis.zrange(keys.inflight("fake"), 0, -1)
            holders = [await redis.hget(keys.lease(job.decode()), "holder") for job in jobs]
        busy = {int(holder.rpartition(b"/")[0].split(b"-")[-2]) for holder in holders if holder}
        victim = rng.choice([worker for worker in self.workers if worker.pid in busy] or self.workers)
        victim.send_signal(signum)
        return victim

    async def replace(self, victim: subprocess.Popen[bytes]) -> None:
        """Start another worker once this one has ended."""
        await asyncio.to_thread(victim.wait, START_TIMEOUT_S)
        self.workers.remove(victim)
        self.start_worker()

    def hung_gateway(self) -> contextlib.AbstractContextManager[None]:
        """Let the first gateway hang until this is left."""
        return _hung(next(iter(self.gateways.values())))

    def hung_workers(self) -> contextlib.AbstractContextManager[None]:
        """Let all workers hang until this is left."""
        return _hung(*self.workers)

    @property
    def has_all_processes(self) -> bool:
        """Whether nothing has ended by itself."""
        return all(process.poll() is None for process in (*self.gateways.values(), *self.workers))

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}/v1" for port in self.gateways]

    async def settle(self) -> None:
        """Return once every gateway listens and every worker is ready."""
        for port in self.gateways:
            await asyncio.to_thread(wait_for_port, port, START_TIMEOUT_S)
        pids = {worker.pid for worker in self.workers}
        async with asyncio.timeout(START_TIMEOUT_S), Redis.from_pool(open_pool(self.redis_url)) as redis:
            while not pids <= await _ready_pids(redis):
                assert all(worker.poll() is None for worker in self.workers), "a worker has ended by itself"
                await asyncio.sleep(0.05)

    async def ask(self, question: Question) -> Answer | Exception:
        """Ask one question beside the load."""
        async with self._client() as client:
            return await Listener(client, question, asyncio.Event()).ask()

    async def play(
        self,
        fault: Fault,
        rng: random.Random,
        load: list[Question] | None = None,
        infer_client: InferClient | None = None,
    ) -> None:
        """Ask everything at once, let the fault strike somewhere in the answers, and compare what the clients got."""
        questions, has_begun = load or mixed_load(), asyncio.Event()
        async with self._client() as client:
            listeners = [Listener(infer_client or client, question, has_begun) for question in questions]
            asked = [asyncio.create_task(listener.ask()) for listener in listeners]
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await has_begun.wait()
                await self._until_accepted(asked)
            await asyncio.sleep(rng.uniform(0, 1.2))
            struck_s = time.monotonic()
            await fault(self, rng)
            answers = await asyncio.gather(*asked)
        for question, listener, answer in zip(questions, listeners, answers, strict=True):
            self.tally.compare(question, answer)
            if (pause_s := listener.pause_s(struck_s)) is not None:
                self.tally.pauses_s.append(pause_s)
        await self.settle()

    async def keep_asking(
        self, load: list[Question], events: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    ) -> None:
        """Ask every question again and again until `events` are over, and compare all that the clients got.

        `events` is given what waits until all that was being answered is answered.
        """
        clients = [InferClient(base_url=self.urls[n:] + self.urls[:n], timeout=ANSWER_TIMEOUT_S) for n in (0, 1)]
        num_answers, is_over = [0] * len(load), False

        async def ask_on(number: int) -> None:
            while not is_over:
                listener = Listener(clients[number % 2], load[number], asyncio.Event())
                self.tally.compare(load[number], await listener.ask())
                num_answers[number] += 1

        async def answered() -> None:
            before = list(num_answers)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while any(now <= then for now, then in zip(num_answers, before, strict=True)):
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            for number in range(len(load)):
                group.create_task(ask_on(number))
            try:
                await answered()
                await events(answered)
            finally:
                is_over = True

    def _client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.urls[0], api_key="-", max_retries=0, timeout=ANSWER_TIMEOUT_S)

    async def _until_accepted(self, asked: list[asyncio.Task[object]]) -> None:
        """Wait until every request is queued, running or answered: what was not accepted yet may be refused."""
        async with Redis.from_pool(open_pool(self.redis_url)) as redis:
            while sum(task.done() for task in asked) + len(await redis.keys(keys.payload("*"))) < len(asked):
                await asyncio.sleep(0.02)

    def start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a process that is killed in the end, if it has not ended by then."""
        environment = os.environ | {"BATON_REDIS_URL": self.redis_url, "OMP_NUM_THREADS": "1"}
        self._started.append(
            subprocess.Popen([sys.executable, "-m", module, *options], env=environment, stderr=self._log)
        )
        return self._started[-1]

    def _stop(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _hung(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


async def _ready_pids(redis: Redis) -> set[int]:
    return {pid for pid, worker in (await local_workers(redis)).items() if worker.state is WorkerState.READY}
