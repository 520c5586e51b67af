"""Which adapters each base model is to have: changed in Redis here, carried out by every worker of the model."""

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis

from api.registry import Fleet, WorkerRegistry, ids_of
from shared import keys
from shared.errors import InvalidRequest, ModelNotFound, ModelUnavailable
from shared.fleet import WorkerInfo

POLL_S = 0.05
"""Pause between looks at the workers' heartbeats, which they send as soon as they are done."""
CONFIRM_S = 120.0
"""Longest time the workers may take; a large adapter is read from a slow disk in this time."""


class AdapterDesk:
    """Takes adapters in and out, and waits until the whole fleet has followed."""

    def __init__(self, redis: Redis, registry: WorkerRegistry) -> None:
        self._redis = redis
        self._registry = registry

    async def load(self, name: str, path: str, base_model: str | None) -> WorkerInfo:
        """Return a worker once all of the base model have the adapter; asking again for one that is there is fine.

        Raises InvalidRequest with their reasons if some can't load it, and then none keeps it.
        """
        fleet = await self._registry.refresh()
        base = _choose(fleet, base_model)
        _check_name(fleet, name, base.model)
        is_new = await self._want(base.model, name, path)
        workers = await self._settled(base.model, lambda worker: name in {*worker.adapters, *worker.refused_adapters})
        if not workers:
            raise ModelUnavailable(f"The workers of {base.model!r} are gone; the next one will load the adapter.")
        refusals = {w.id: w.refused_adapters[name] for w in workers if name in w.refused_adapters}
        if not refusals:
            return base
        if is_new:
            await self._withdraw(base.model, name)
        reasons = "; ".join(f"{reason} (worker {worker})" for worker, reason in refusals.items())
        raise InvalidRequest(f"The adapter {name!r} can't be loaded: {reasons}.", param="lora_path")

    async def unload(self, name: str) -> None:
        """Return once no worker takes new jobs for the adapter; raises ModelNotFound if there is none."""
        for model in sorted({worker.model for worker in (await self._registry.refresh()).live}):
            if await self._withdraw(model, name):
                return
        raise ModelNotFound(f"No adapter {name[:200]!r} is loaded.", param="lora_name")

    async def _want(self, model: str, name: str, path: str) -> bool:
        """Write down that the model is to have the adapter; return whether that is new."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.adapters(model), keys.ADAPTERS_KNOWN, "")
            pipeline.hsetnx(keys.adapters(model), name, path)
            pipeline.hget(keys.adapters(model), name)
            pipeline.publish(keys.reconcile(model), name)
            _, is_new, known, _ = await pipeline.execute()
        if known.decode() != path:
            raise InvalidRequest(
                f"An adapter {name!r} is loaded already, from {known.decode()}; unload it first.", param="lora_name"
            )
        return bool(is_new)

    async def _withdraw(self, model: str, name: str) -> bool:
        """Take the adapter from the model and wait until all workers know; False if the model has none of that name."""
        if not await self._redis.hdel(keys.adapters(model), name):  # type: ignore[misc]  # both clients' type
            return False
        await self._redis.publish(keys.reconcile(model), name)
        await self._settled(model, lambda worker: name not in {*worker.adapters, *worker.refused_adapters})
        return True

    async def _settled(self, model: str, has_followed: Callable[[WorkerInfo], bool]) -> list[WorkerInfo]:
        """Return the model's ready workers once all have followed; raises ModelUnavailable if that takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONFIRM_S
        while True:
            workers = [worker for worker in (await self._registry.refresh()).ready() if worker.model == model]
            late = [worker.id for worker in workers if not has_followed(worker)]
            if not late:
                return workers
            if loop.time() > deadline:
                raise ModelUnavailable(f"{', '.join(late)} did not follow within {CONFIRM_S:g} s; it may still.")
            await asyncio.sleep(POLL_S)


def _choose(fleet: Fleet, base_model: str | None) -> WorkerInfo:
    """A worker of the base model that is named, or of the only one there is."""
    if base_model is None:
        served = sorted({worker.model for worker in fleet.ready()})
        if len(served) > 1:
            raise InvalidRequest(f"Several models are served: name one of {', '.join(served)}.", param="base_model")
        if not served:
            raise ModelUnavailable("No live worker serves any model now.")
        base_model = served[0]
    worker = fleet.find(base_model)
    if worker.model != base_model:
        raise InvalidRequest(f"{base_model!r} is itself an adapter, of {worker.model}.", param="base_model")
    return worker


def _check_name(fleet: Fleet, name: str, base_model: str) -> None:
    for worker in fleet.live:
        if name == worker.model or (worker.model != base_model and name in ids_of(worker)):
            raise InvalidRequest(f"The name {name!r} is taken by a model that is served.", param="lora_name")
