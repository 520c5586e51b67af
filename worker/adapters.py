"""The adapters this worker serves beside its base model: what the model is to have by Redis, kept loaded.

The engine knows their slots only, the gateway their names; both meet here.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import ModelNotFound, ModelUnavailable
from worker.engine.thread import EngineThread
from worker.heartbeat import Heartbeat
from worker.models.family import LoadError, Model

if TYPE_CHECKING:  # it brings torch
    from worker.models.tuned import TunedChanges

logger = logging.getLogger(__name__)

RECHECK_S = 15.0
"""Longest time for which a lost poke can leave an adapter behind."""
RETRY_PAUSE_S = 0.5


@dataclass(slots=True, eq=False)
class Adapter:
    """One that was loaded; unloaded, it keeps its slot until the last job that it answers has ended."""

    name: str
    path: str
    slot: int
    system: str | None
    """The system text it was fine-tuned with."""
    digest: str
    """A hash of its files."""
    num_jobs: int = 0
    is_unloaded: bool = False


class Adapters:
    """Created with the worker; `open` comes before its first job, `run` goes on as long as it serves."""

    def __init__(self, redis: Redis, heartbeat: Heartbeat, model: Model, engine: EngineThread) -> None:
        self._redis = redis
        self._heartbeat = heartbeat
        self._model = model
        self._engine = engine
        self._key = keys.adapters(heartbeat.info.model)
        self._channel = keys.reconcile(heartbeat.info.model)
        self._loaded: dict[str, Adapter] = {}
        self._refused: dict[str, tuple[str, str]] = {}  # name → path and reason
        self._taken: set[int] = set()
        self._lock = asyncio.Lock()

    async def open(self, own: Mapping[str, str]) -> None:
        """Load the worker's own adapters and its model's; raises LoadError if one of its own can't be loaded."""
        for name, path in own.items():
            if name == self._heartbeat.info.model:
                raise LoadError(f"an adapter can't have the name of its base model, {name}")
            self._heartbeat.update(progress=f"loading adapter {name}")
            await self._load(name, path)
            if name in self._refused:
                raise LoadError(self._refused[name][1])
        if own:
            await self._redis.hset(self._key, mapping={**own, keys.ADAPTERS_KNOWN: ""})  # type: ignore[misc]  # both clients' type
            await self._redis.publish(self._channel, "")
        await self.reconcile()

    async def run(self) -> None:
        """Reconcile for ever: when told to, after every reconnect, and now and then."""
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._channel)
                    while True:
                        await pubsub.get_message(timeout=RECHECK_S)  # the subscription is a message as well
                        await self.reconcile()
            except RedisError as error:
                logger.warning("watching adapters waits for Redis: %s", error)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def reconcile(self) -> None:
        """Unload what the model is no longer to have, load what is missing, and tell the fleet."""
        async with self._lock:
            wanted = await self._wanted()
            for adapter in [a for a in self._loaded.values() if wanted.get(a.name) != a.path]:
                self._unload(adapter)
            self._refused = {n: (path, why) for n, (path, why) in self._refused.items() if wanted.get(n) == path}
            for name, path in wanted.items():
                if name not in self._loaded and name not in self._refused:
                    await self._load(name, path)
            await self._tell()

    async def hold(self, name: str | None) -> Adapter | None:
        """Return a job's adapter, which stays until it is released; None is the base.

        Raises ModelNotFound or ModelUnavailable if the worker can't have it.
        """
        if name is None:
            return None
        if name not in self._loaded:  # another worker may have been faster, or it has just been unloaded
            await self.reconcile()
        if (adapter := self._loaded.get(name)) is None:
            if name in self._refused:
                raise ModelUnavailable(f"The worker can't load the adapter {name!r} now.", param="model")
            raise ModelNotFound(f"The adapter {name!r} was unloaded.", param="model")
        adapter.num_jobs += 1
        return adapter

    def release(self, adapter: Adapter | None) -> None:
        """Let go of a job's adapter."""
        if adapter is not None:
            adapter.num_jobs -= 1
            self._free(adapter)

    async def _wanted(self) -> dict[str, str]:
        """Return the model's adapters; a Redis that lost them is told what is loaded here."""
        wanted = await self._read_wanted()
        if self._loaded and keys.ADAPTERS_KNOWN not in wanted:
            async with self._redis.pipeline(transaction=True) as pipeline:
                for adapter in self._loaded.values():
                    pipeline.hsetnx(self._key, adapter.name, adapter.path)
                pipeline.hset(self._key, keys.ADAPTERS_KNOWN, "")
                await pipeline.execute()
            wanted = await self._read_wanted()
        return {name: path for name, path in wanted.items() if name != keys.ADAPTERS_KNOWN}

    async def _read_wanted(self) -> dict[str, str]:
        entries: dict[bytes, bytes] = await self._redis.hgetall(self._key)  # type: ignore[misc]  # both clients' type
        return {name.decode(): path.decode() for name, path in entries.items()}

    async def _load(self, name: str, path: str) -> None:
        try:
            slots = self._model.runner.adapters
            if slots is None:
                raise LoadError(f"the model {self._heartbeat.info.model} takes no adapters")
            tuned = await asyncio.to_thread(_read, self._model, path)
            slot = next(slot for slot in count(1) if slot not in self._taken)
            put = self._engine.between_steps(lambda: slots.put(slot, tuned.changes))
            await asyncio.wrap_future(put)
        except (LoadError, MemoryError, RuntimeError) as error:  # torch's own out of memory is a RuntimeError
            self._refused[name] = path, str(error)
            logger.warning("adapter %s can't be loaded: %s", name, error)
        else:
            self._taken.add(slot)
            self._loaded[name] = Adapter(name, path, slot, tuned.system, tuned.digest)
            logger.info("loaded adapter %s from %s", name, path)

    def _unload(self, adapter: Adapter) -> None:
        del self._loaded[adapter.name]
        adapter.is_unloaded = True
        self._free(adapter)
        logger.info("unloaded adapter %s", adapter.name)

    def _free(self, adapter: Adapter) -> None:
        """Empty the slot of an unloaded adapter that no job holds."""
        slots = self._model.runner.adapters
        if adapter.is_unloaded and not adapter.num_jobs and slots is not None:
            self._engine.between_steps(lambda: slots.clear(adapter.slot))
            self._taken.discard(adapter.slot)

    async def _tell(self) -> None:
        self._heartbeat.update(
            adapters=tuple(self._loaded), refused_adapters={name: why for name, (_, why) in self._refused.items()}
        )
        await self._heartbeat.say()


def _read(model: Model, path: str) -> "TunedChanges":
    from worker.models.tuned import read_tuned  # brings torch

    assert model.runner.adapters is not None
    try:
        return read_tuned(path, model.runner.adapters)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise LoadError(f"{path} isn't what it claims to be: {error!r}") from error
