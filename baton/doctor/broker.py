"""Redis: whether it answers, keeps what it is given, and knows what time it is."""

import statistics
import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from baton.doctor.finding import Colour, Finding, graded

AREA = "redis"
OLDEST_VERSION = (6, 2)
NUM_PINGS = 20
MIN_MAXMEMORY = 256 * 2**20
"""A few requests' media, which may be 64 MiB each."""
LATENCY_MS = (5.0, 50.0)
SKEW_S = (0.5, 3.0)
"""Heartbeats and deadlines compare the clocks of machines; a heartbeat is stale after six seconds."""


async def look_at_redis(redis: Redis) -> list[Finding]:
    """Return what there is to say of a Redis; one finding if it can't be reached."""
    try:
        facts: dict[str, Any] = await redis.info()
        return [
            _version(facts),
            _policy(facts),
            _memory(facts),
            await _latency(redis),
            await _skew(redis),
            await _scripts(redis),
            _persistence(facts),
        ]
    except (RedisError, OSError) as error:
        return [_unreachable(error)]


def _unreachable(error: Exception) -> Finding:
    if isinstance(error, AuthenticationError):
        return Finding(AREA, "reachable", Colour.RED, "refuses the password", "put user and password into --redis_url")
    advice = "start it, or correct --redis_url"
    return Finding(AREA, "reachable", Colour.RED, f"does not answer: {error}", advice)


def _version(facts: dict[str, Any]) -> Finding:
    found = str(facts["redis_version"])
    is_old = tuple(int(part) for part in found.split(".")[:2]) < OLDEST_VERSION
    advice = "Baton needs 6.2 or newer" if is_old else ""
    return Finding(AREA, "version", Colour.RED if is_old else Colour.GREEN, found, advice)


def _policy(facts: dict[str, Any]) -> Finding:
    policy, limit = facts["maxmemory_policy"], int(facts["maxmemory"])
    if policy == "noeviction":
        return Finding(AREA, "eviction", Colour.GREEN, policy)
    advice = "set maxmemory-policy noeviction: evicted jobs and media are lost requests"
    return Finding(AREA, "eviction", Colour.RED if limit else Colour.YELLOW, policy, advice)


def _memory(facts: dict[str, Any]) -> Finding:
    used, limit = int(facts["used_memory"]), int(facts["maxmemory"])
    fact = f"{_mib(used)} of {_mib(limit) if limit else 'unlimited'} used"
    if limit and limit < MIN_MAXMEMORY:
        advice = f"raise maxmemory to {_mib(MIN_MAXMEMORY)} at least: one request's media may be 64 MiB"
        return Finding(AREA, "memory", Colour.RED, fact, advice)
    share = used / limit if limit else 0.0
    return graded(AREA, "memory", share, fact, "raise maxmemory, or lower --max_queue_len", (0.7, 0.9))


async def _latency(redis: Redis) -> Finding:
    pauses_ms = []
    for _ in range(NUM_PINGS):
        began_s = time.perf_counter()
        await redis.ping()
        pauses_ms.append((time.perf_counter() - began_s) * 1000)
    median_ms = statistics.median(pauses_ms)
    fact = f"{median_ms:.2f} ms, at most {max(pauses_ms):.1f} ms"
    return graded(AREA, "latency", median_ms, fact, "move it nearer; every token crosses it", LATENCY_MS)


async def _skew(redis: Redis) -> Finding:
    before_s = time.time()
    seconds, microseconds = await redis.time()
    ahead_s = seconds + microseconds / 1e6 - (before_s + time.time()) / 2
    fact = f"Redis is {abs(ahead_s):.3f} s {'ahead' if ahead_s > 0 else 'behind'}"
    advice = "run NTP on both machines: heartbeats and deadlines compare their clocks"
    return graded(AREA, "clock", abs(ahead_s), fact, advice, SKEW_S)


async def _scripts(redis: Redis) -> Finding:
    try:
        await redis.eval("return 1", 0)  # type: ignore[misc]  # both clients' type
    except ResponseError as error:
        advice = "the Redis user needs +@all on the keys, or at least +@scripting, +@pubsub, +@stream and +@blocking"
        return Finding(AREA, "permissions", Colour.RED, f"scripts are refused: {error}", advice)
    return Finding(AREA, "permissions", Colour.GREEN, "scripts are allowed")


def _persistence(facts: dict[str, Any]) -> Finding:
    fact = "append-only file on: what waits survives a restart"
    if not facts["aof_enabled"]:
        fact = "no append-only file: open requests survive a restart all the same, their gateways know them"
    return Finding(AREA, "persistence", Colour.GREEN, fact)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
