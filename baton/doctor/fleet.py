"""The workers as Redis knows them: who lives, who died lately, and which models wait for nobody."""

import time
from collections import Counter
from importlib.metadata import version

from redis.asyncio import Redis
from redis.exceptions import RedisError

from baton.doctor.finding import Colour, Finding
from shared import keys, wire
from shared.fleet import WorkerInfo, WorkerState

AREA = "workers"


async def look_at_workers(redis: Redis) -> list[Finding]:
    """Return what there is to say of the fleet; nothing if Redis is away, which is said elsewhere."""
    try:
        return await _look(redis)
    except (RedisError, OSError):
        return []


async def _look(redis: Redis) -> list[Finding]:
    stale_at = {name.decode(): stale_s for name, stale_s in await redis.zrange(keys.WORKERS, 0, -1, withscores=True)}
    heartbeats = await redis.mget([keys.worker(name) for name in stale_at]) if stale_at else []
    findings, live = [], []
    for (name, stale_s), heartbeat in zip(stale_at.items(), heartbeats, strict=True):
        worker = _read(heartbeat)
        if isinstance(worker, Finding):
            findings.append(worker)
        elif stale_s > time.time():
            live.append(worker)
        elif worker.state is not WorkerState.DRAINING:  # one that was stopped said so
            findings.append(_dead(name, worker, time.time() - stale_s))
    if not live:
        advice = "start one: worker --model_type …"
        findings.insert(0, Finding(AREA, "live", Colour.YELLOW, "no worker serves anything", advice))
    return [*map(_living, live), *findings, *await _orphans(redis, stale_at, heartbeats, live)]


def _read(heartbeat: bytes | None) -> WorkerInfo | Finding:
    if heartbeat is None:
        return Finding(
            AREA, "heartbeat", Colour.YELLOW, "a worker's heartbeat is lost", "it comes back within two seconds"
        )
    try:
        return wire.decode_worker(heartbeat)
    except wire.WireError as error:
        return Finding(AREA, "heartbeat", Colour.RED, str(error), "run one version of Baton on one Redis")


def _living(worker: WorkerInfo) -> Finding:
    fact = (
        f"{worker.model}, {worker.state}, {worker.running} of {worker.slots} slots, {worker.device or 'no device yet'}"
    )
    if worker.version != version("baton"):
        advice = f"this machine has baton {version('baton')}; run one version everywhere"
        return Finding(AREA, worker.id, Colour.YELLOW, f"{fact}, baton {worker.version}", advice)
    return Finding(AREA, worker.id, Colour.GREEN, fact)


def _dead(name: str, worker: WorkerInfo, silent_s: float) -> Finding:
    fact = f"{worker.model}, silent for {silent_s:,.0f} s"
    return Finding(AREA, name, Colour.YELLOW, fact, f"look at the end of its log on {worker.host}")


async def _orphans(
    redis: Redis, names: dict[str, float], heartbeats: list[bytes | None], live: list[WorkerInfo]
) -> list[Finding]:
    """Return the models that requests wait for and no worker serves."""
    known = [worker for heartbeat in heartbeats if isinstance(worker := _read(heartbeat), WorkerInfo)]
    served = Counter(worker.model for worker in live)
    findings = []
    for model in sorted({worker.model for worker in known} - served.keys()):
        if num_waiting := await redis.zcard(keys.queue(model)):
            fact = f"{num_waiting} requests wait for {model}, and no worker serves it"
            findings.append(Finding(AREA, "queue", Colour.RED, fact, f"start a worker for {model}"))
    return findings
