"""The live workers, as their heartbeats describe them, and which models can therefore be asked."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from redis.asyncio import Redis

from shared import keys, wire
from shared.catalogue import MODEL_TYPES
from shared.errors import ModelNotFound, ModelUnavailable
from shared.fleet import WorkerInfo, WorkerState

logger = logging.getLogger(__name__)

MAX_AGE_S = 0.5
"""A view of the fleet older than this is read anew by the request that needs it."""
MAX_WAIT_S = 60
UNKNOWN_WAIT_S = 5
"""Advice to come back later, where nothing was measured yet."""
REMEMBERED_S = 86_400.0
"""A model whose last worker died within this time is known, if not available."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers as they were known at one moment."""

    live: tuple[WorkerInfo, ...] = ()
    remembered_models: frozenset[str] = frozenset()
    """Models of live workers and of those that died lately, with their adapters while nobody serves the model."""

    def ready(self) -> tuple[WorkerInfo, ...]:
        """The workers that take new jobs."""
        return tuple(worker for worker in self.live if worker.state is WorkerState.READY)

    def find(self, model: str) -> WorkerInfo:
        """A worker that takes jobs for the model or adapter, or raise ModelNotFound or ModelUnavailable."""
        of_model = [worker for worker in self.live if worker.model == model]
        of_model = of_model or [worker for worker in self.live if model in worker.adapters]
        for worker in of_model:
            if worker.state is WorkerState.READY:
                return worker
        if any(worker.state is WorkerState.LOADING for worker in of_model):
            raise ModelUnavailable(f"The model {model!r} is still loading; please try again shortly.", param="model")
        if model in self.remembered_models or model in MODEL_TYPES:
            raise ModelUnavailable(f"No live worker serves the model {model!r} now.", param="model")
        served = ", ".join(sorted({name for worker in self.ready() for name in ids_of(worker)})) or "none"
        raise ModelNotFound(f"The model {model[:200]!r} does not exist here; served are: {served}.", param="model")


class _Heartbeat(NamedTuple):
    """What a worker said of itself, and until when that holds."""

    worker: WorkerInfo
    stale_s: float


def ids_of(worker: WorkerInfo) -> tuple[str, ...]:
    """What a client can ask the worker for: its model, then its adapters."""
    return (worker.model, *worker.adapters)


class WorkerRegistry:
    """Reads the fleet from Redis, at most twice a second whatever the number of requests."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._fleet = Fleet()
        self._models: set[str] = set()
        self._known: dict[str, _Heartbeat] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[Fleet] | None = None
        self._misread: set[str] = set()

    async def fleet(self) -> Fleet:
        """The workers, as of half a second ago at most."""
        if time.monotonic() - self._read_at <= MAX_AGE_S:
            return self._fleet
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.refresh())
        return await asyncio.shield(self._reading)  # one reading for all, whoever leaves meanwhile

    async def find(self, model: str) -> WorkerInfo:
        """A worker that takes jobs for the model or adapter, or raise ModelNotFound or ModelUnavailable."""
        return (await self.fleet()).find(model)

    def wait_s(self, model: str, num_waiting: int) -> int:
        """How many seconds the model's workers need for the requests that wait, as fast as they are now."""
        jobs_per_s = sum(worker.jobs_per_s for worker in self._fleet.ready() if worker.model == model)
        return min(math.ceil(num_waiting / jobs_per_s), MAX_WAIT_S) if jobs_per_s else UNKNOWN_WAIT_S

    async def refresh(self) -> Fleet:
        """The workers as of now."""
        fleet = await self._read()
        # A Redis that lost its data knows no models until the next heartbeats; this gateway does.
        self._models |= {worker.model for worker in fleet.live}
        self._fleet = replace(fleet, remembered_models=fleet.remembered_models | self._models)
        self._read_at = time.monotonic()
        return self._fleet

    async def _read(self) -> Fleet:
        now = time.time()
        members: list[tuple[bytes, float]] = await self._redis.zrangebyscore(
            keys.WORKERS, now - REMEMBERED_S, "+inf", withscores=True
        )
        stale_s = {member.decode(): score for member, score in members}
        said = await self._redis.mget([keys.worker(name) for name in stale_s]) if stale_s else []
        # Whoever ends or dies stays in the set: who is gone from it was forgotten by Redis, and lives until stale.
        known = {name: beat for name, beat in self._known.items() if name not in stale_s and beat.stale_s > now}
        for (name, stale_at_s), heartbeat in zip(stale_s.items(), said, strict=True):
            if (worker := self._decode(name, heartbeat)) is not None:
                known[name] = _Heartbeat(worker, stale_at_s)
        self._known = known
        return _fleet((beat.worker, beat.stale_s > now) for beat in known.values())

    def _decode(self, worker_id: str, heartbeat: bytes | None) -> WorkerInfo | None:
        if heartbeat is None:  # Redis forgot it since the set was read
            return self._known[worker_id].worker if worker_id in self._known else None
        try:
            return wire.decode_worker(heartbeat)
        except wire.WireError as error:
            if worker_id not in self._misread:
                self._misread.add(worker_id)
                logger.warning("ignoring worker %s: %s", worker_id, error)
            return None


def _fleet(workers: Iterable[tuple[WorkerInfo, bool]]) -> Fleet:
    known = tuple(workers)
    live = tuple(worker for worker, is_live in known if is_live)
    served = {worker.model for worker in live if worker.state is WorkerState.READY}
    remembered = (ids_of(worker)[: 1 if worker.model in served else None] for worker, _ in known)
    return Fleet(live, frozenset(name for names in remembered for name in names))
