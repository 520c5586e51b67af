"""Puts one worker together and runs it from start to drain."""

import asyncio
import logging
import os
import secrets
import socket
import time
from concurrent.futures import Future
from contextlib import AsyncExitStack
from importlib.metadata import version

from redis.asyncio import Redis

from shared.catalogue import MODEL_TYPES, Family
from shared.connection import open_redis, wait_for_redis
from shared.fleet import WorkerInfo, WorkerState
from shared.grammar import GRAMMAR_LIMITS
from shared.job import ChatJob, lookup_lane
from shared.logs import current_job
from shared.tracing import Tracing, open_tracing
from worker.adapters import Adapters
from worker.cancellation import listen_for_cancels
from worker.checkpoint import own_adapters
from worker.choices import ChoiceId
from worker.engine.engine import Engine
from worker.engine.failure import EngineBroken
from worker.engine.grammar import Grammars
from worker.engine.thread import EngineThread
from worker.fingerprint import fingerprint
from worker.gpu import hold_gpu
from worker.heartbeat import Heartbeat
from worker.lease import Claim, Leases
from worker.loading import load_in_thread
from worker.metrics import WorkerMetrics
from worker.models.family import Model, ModelFacts
from worker.models.registry import find_model_type, served_name
from worker.prepare.decoder import open_decoder
from worker.publisher import Publisher
from worker.queue import IDLE_CLAIM_INTERVAL_S, QueueWorker
from worker.record import JobRecord
from worker.room import Room
from worker.settings import WorkerSettings
from worker.stop import Stop
from worker.task import ChatTask
from worker.tasks import Tasks

logger = logging.getLogger(__name__)

NUM_RETRIES = 60
"""A worker outlasts a Redis that is away for a minute; nobody waits for its commands as clients do."""

LOOKUPS_AT_ONCE = 2
"""Jobs that only ask the tokenizer, beside those in the engine's rows."""
LOOKUP_IDLE_S = 10.0
"""They are rare: who looks for them as often as for chats doubles what an idle worker asks of Redis."""
HURRY_S = 1.0
"""What the current step may take to end when there is a hurry."""


class Worker:
    """One worker: a model, its engine, and the hands that carry jobs to it and tokens away from it."""

    def __init__(
        self,
        settings: WorkerSettings,
        redis: Redis,
        heartbeat: Heartbeat,
        model: Model,
        metrics: WorkerMetrics,
        tracing: Tracing,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._heartbeat = heartbeat
        self._model = model
        self._metrics = metrics
        self._tracing = tracing
        self._tasks = Tasks()
        self._broken: EngineBroken | None = None
        info, loop = heartbeat.info, asyncio.get_running_loop()
        max_num_seqs = min(settings.max_num_seqs, model.facts.max_num_seqs or settings.max_num_seqs)
        heartbeat.update(slots=max_num_seqs)
        self._publisher = Publisher(redis, self._tasks.fence)
        engine = Engine(
            model.runner,
            max_num_seqs,
            settings.max_num_batched_tokens,
            enable_prefix_caching=settings.enable_prefix_caching,
        )
        metrics.watch(lambda: len(self._tasks), lambda: engine.stats)
        self._engine = EngineThread(
            engine,
            on_step=lambda outputs: loop.call_soon_threadsafe(self._tasks.deliver, outputs, self._engine.last_step),
        )
        self._grammars = Grammars(model.runner.vocab_size, GRAMMAR_LIMITS)
        self._room = Room(model.runner.media_room)
        self._adapters = Adapters(redis, heartbeat, model, self._engine)
        self._queue = self._claimer(info.model, max_num_seqs)
        self._lookups = self._claimer(lookup_lane(info.model), LOOKUPS_AT_ONCE, LOOKUP_IDLE_S)

    def _claimer(self, lane: str, max_jobs: int, idle_s: float = IDLE_CLAIM_INTERVAL_S) -> QueueWorker:
        lease_s = self._settings.lease_s
        return QueueWorker(
            self._redis,
            Leases(self._redis, self._heartbeat.info.id, lane, lease_s),
            model=lane,
            max_jobs=max_jobs,
            lease_s=lease_s,
            run=self._run_job,
            on_fenced=self._tasks.fence,
            idle_s=idle_s,
        )

    async def serve(self, stop: Stop) -> None:
        """Serve until asked to stop, then drain.

        Raises LoadError if one of its adapters can't be loaded, EngineBroken if the model can't go on here.
        """
        loop = asyncio.get_running_loop()
        self._engine.ended.add_done_callback(lambda ended: loop.call_soon_threadsafe(self._take_break, ended, stop))
        self._engine.start()
        await self._adapters.open(own_adapters(self._settings))
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._publisher.run()),
                group.create_task(self._queue.renew()),
                group.create_task(self._lookups.renew()),
                group.create_task(self._adapters.run()),
                group.create_task(self._watch_steps(stop)),
                group.create_task(listen_for_cancels(self._redis, self._heartbeat.info.id, self._tasks.cancel)),
            ]
            claiming = [group.create_task(queue.main()) for queue in (self._queue, self._lookups)]
            await self._announce(WorkerState.READY)
            await stop.asked.wait()
            await self._announce(WorkerState.DRAINING)
            for task in claiming:
                task.cancel()
            drain_s = self._settings.drain_timeout_s
            await asyncio.gather(*(queue.drain(drain_s, stop.hurry) for queue in (self._queue, self._lookups)))
            for task in background:
                task.cancel()
        self._engine.stop(HURRY_S if stop.hurry.is_set() else None)
        if self._broken is not None:
            raise self._broken

    def _take_break(self, ended: Future[None], stop: Stop) -> None:
        """Hand everything over, if the engine has ended by breaking."""
        if isinstance(broken := ended.exception(), EngineBroken):
            self._break(broken, stop)

    async def _watch_steps(self, stop: Stop) -> None:
        """Hand everything over, if a step doesn't end: this loop would renew the leases for ever."""
        self._break(await self._engine.hung(self._settings.step_timeout_s), stop)

    def _break(self, broken: EngineBroken, stop: Stop) -> None:
        self._broken = broken
        self._queue.suspect(ChoiceId.parse(name).job_id for name in broken.suspects)
        stop.hurry.set()
        stop.asked.set()

    async def _announce(self, state: WorkerState) -> None:
        self._heartbeat.update(state=state)
        await self._heartbeat.say()
        logger.info("%s is %s", self._heartbeat.info.id, state)

    async def _run_job(self, job: ChatJob, claim: Claim) -> None:
        task = ChatTask(
            job,
            claim,
            redis=self._redis,
            model=self._model,
            adapters=self._adapters,
            engine=self._engine,
            grammars=self._grammars,
            room=self._room,
            publisher=self._publisher,
            fingerprint=self._heartbeat.info.fingerprint,
            record=JobRecord(job, claim, self._metrics, self._tracing),
        )
        current_job.set(job.id)
        self._tasks.add(task)
        self._heartbeat.update(running=len(self._tasks))
        try:
            await task.run()
        finally:
            self._tasks.remove(task)
            self._heartbeat.count()
            self._heartbeat.update(running=len(self._tasks))


def new_worker_id() -> str:
    """Return a name for this process that no other worker ever had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


async def run_worker(settings: WorkerSettings, worker_id: str) -> None:
    """Load the model and serve it until SIGTERM or SIGINT."""
    stop = Stop()
    stop.listen()
    info = _introduce(settings, worker_id)
    metrics = WorkerMetrics(info.model)
    async with AsyncExitStack() as stack:
        stack.enter_context(metrics.served(settings.metrics_host, settings.metrics_port))
        redis = await stack.enter_async_context(open_redis(settings, NUM_RETRIES, metrics.redis_reconnects.inc))
        await wait_for_redis(redis)
        if MODEL_TYPES[info.model_type].family is not Family.FAKE:
            await stack.enter_async_context(hold_gpu(redis, info.id))
        heartbeat = Heartbeat(redis, info)
        await heartbeat.forget_the_dead()
        beating = asyncio.create_task(heartbeat.run())
        stack.push_async_callback(_end, beating, heartbeat)
        model = await _load(settings, heartbeat, stop.asked)
        if model is not None:
            tracing = stack.enter_context(open_tracing("baton-worker", worker_id))
            decoder = stack.enter_context(open_decoder(settings.decoder_limits, settings.media_limits))
            if model.facts.modalities:
                decoder.warm()
            worker = Worker(settings, redis, heartbeat, model, metrics, tracing)
            await worker.serve(stop)


async def _load(settings: WorkerSettings, heartbeat: Heartbeat, stop: asyncio.Event) -> Model | None:
    """Return the model, or None if the worker was asked to stop meanwhile."""

    def report(words: str) -> None:
        logger.info("%s", words)
        heartbeat.update(progress=words)

    began_s = time.monotonic()
    loading = asyncio.create_task(load_in_thread(settings, report))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not loading.done():
        loading.cancel()
        return None
    model = loading.result()
    facts = model.facts
    heartbeat.update(
        modalities=facts.modalities,
        max_model_len=facts.max_model_len,
        sampling=facts.sampling,
        device=facts.device,
        tool_format=settings.tool_format(MODEL_TYPES[heartbeat.info.model_type].family, facts.template_format),
        fingerprint=_fingerprint(heartbeat.info, facts, settings),
    )
    logger.info("loaded %s in %.1f s on %s", heartbeat.info.model, time.monotonic() - began_s, facts.device)
    return model


def _fingerprint(info: WorkerInfo, facts: ModelFacts, settings: WorkerSettings) -> str:
    kind_of_device = facts.device.partition(":")[0]
    precision = settings.dtype, settings.quantization
    return fingerprint(info.version, info.model_type, facts.digest, *precision, kind_of_device)


def _introduce(settings: WorkerSettings, worker_id: str) -> WorkerInfo:
    model_type = find_model_type(settings)
    return WorkerInfo(
        id=worker_id,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version("baton"),
        device="",
        model=served_name(settings, model_type),
        model_type=model_type.name,
        state=WorkerState.LOADING,
        slots=settings.max_num_seqs,
        started_s=time.time(),
        tool_format=settings.tool_format(model_type.family),
    )


async def _end(beating: asyncio.Task[None], heartbeat: Heartbeat) -> None:
    beating.cancel()
    await heartbeat.stop()
