"""One gateway's hold on the batches that it drives: a lease of seconds, and a name without which nothing is written.

As with a job's lease, a time says when another gateway may take the batch, and a holder says who may write.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from redis.asyncio import Redis

from api.batch.page import decode
from api.batch.record import BatchStatus, StoredBatch
from shared import keys
from shared.events import Usage

LEASE_MS = 5000
"""A gateway silent for this long loses its batches to another one."""


class LeaseLost(Exception):
    """Another gateway drives the batch, or Redis has forgotten it."""


class Verdict(StrEnum):
    """In which of the two files a line ends up; also the name of the batch's counter."""

    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Hold:
    """A batch that this gateway drives."""

    batch_id: str
    holder: str
    """The fencing token."""


_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_CLAIM = (
    _CLOCK
    + """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
  local batch = ARGV[1] .. id
  if redis.call('EXISTS', batch) == 1 then
    local holder = ARGV[2] .. '/' .. redis.call('HINCRBY', batch, 'attempt', 1)
    redis.call('HSET', batch, 'holder', holder)
    redis.call('ZADD', KEYS[1], now + ARGV[3], id)
    return {id, holder}
  end
  redis.call('ZREM', KEYS[1], id)
end
"""
)

_RENEW = (
    _CLOCK
    + """
local statuses = {}
for i = 3, #ARGV, 2 do
  local found = redis.call('HMGET', ARGV[1] .. ARGV[i], 'holder', 'status')
  if found[1] == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[i])
    statuses[#statuses + 1] = found[2]
  else
    statuses[#statuses + 1] = ''
  end
end
return statuses
"""
)

_RELEASE = """
if redis.call('HGET', KEYS[2], 'holder') ~= ARGV[2] then return end
redis.call('HDEL', KEYS[2], 'holder')
redis.call('ZADD', KEYS[1], redis.call('HGET', KEYS[2], 'created_s'), ARGV[1])
"""

_ADVANCE = """
local found = redis.call('HMGET', KEYS[1], 'holder', 'status')
if found[1] ~= ARGV[1] then return end
if found[2] ~= ARGV[2] then return found[2] end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
if ARGV[3] ~= '' then
  redis.call('HDEL', KEYS[1], 'holder')
  redis.call('ZREM', KEYS[2], ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return 'advanced'
"""

_RECORD = """
local batch, own, other = KEYS[1], KEYS[2], KEYS[3]
local holder, line, content, counter, expires_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if redis.call('HGET', batch, 'holder') ~= holder then return 0 end
if redis.call('HEXISTS', other, line) == 1 or redis.call('HSETNX', own, line, content) == 0 then return 1 end
redis.call('EXPIREAT', own, expires_s)
redis.call('HINCRBY', batch, counter, 1)
redis.call('HINCRBY', batch, counter .. '_bytes', #content)
for i = 6, #ARGV, 2 do redis.call('HINCRBY', batch, ARGV[i], ARGV[i + 1]) end
return 1
"""
"""A line is written once, whoever asks how often; what was counted for it before is not counted again."""


class Holds:
    """Takes batches, keeps them, and writes what becomes of them."""

    def __init__(self, redis: Redis, gateway_id: str) -> None:
        self._redis = redis
        self._gateway_id = gateway_id
        self._claim = redis.register_script(_CLAIM)
        self._renew = redis.register_script(_RENEW)
        self._release = redis.register_script(_RELEASE)
        self._advance = redis.register_script(_ADVANCE)
        self._record = redis.register_script(_RECORD)

    async def claim(self) -> Hold | None:
        """Take the oldest batch that nobody drives."""
        found: list[bytes] | None = await self._claim(
            keys=[keys.OPEN_BATCHES], args=[keys.batch(""), self._gateway_id, LEASE_MS]
        )
        return None if found is None else Hold(*(text.decode() for text in found))

    async def renew(self, holds: Sequence[Hold]) -> list[BatchStatus | None]:
        """Prolong these leases; return each batch's status, None where the lease is lost."""
        named = [text for hold in holds for text in (hold.batch_id, hold.holder)]
        statuses = await self._renew(keys=[keys.OPEN_BATCHES], args=[keys.batch(""), LEASE_MS, *named])
        return [BatchStatus(status.decode()) if status else None for status in statuses]

    async def release(self, hold: Hold) -> None:
        """Let another gateway go on with the batch at once."""
        await self._release(keys=[keys.OPEN_BATCHES, keys.batch(hold.batch_id)], args=[hold.batch_id, hold.holder])

    async def read(self, hold: Hold) -> StoredBatch:
        """Return the batch as it stands; raises LeaseLost if it is gone."""
        batch = decode(await self._redis.hgetall(keys.batch(hold.batch_id)), StoredBatch)  # type: ignore[misc]
        if batch is None:
            raise LeaseLost
        return batch

    async def advance(self, hold: Hold, batch: StoredBatch, to: BatchStatus, **facts: str | int) -> StoredBatch:
        """Bring the batch from the status it was seen in to another one, and return it as it stands then.

        If its owner has changed the status meanwhile, that is what stands. Raises LeaseLost.
        """
        written: dict[str, str | int] = {"status": to, f"{to}_s": int(time.time()), **facts}
        named = [text for pair in written.items() for text in pair]
        answer = await self._advance(
            keys=[keys.batch(hold.batch_id), keys.OPEN_BATCHES],
            args=[hold.holder, batch.status, hold.batch_id if to.is_end else "", batch.file_ttl_s, *named],
        )
        if answer is None:
            raise LeaseLost
        return await self.read(hold)

    async def record(
        self, hold: Hold, batch: StoredBatch, number: int, content: bytes, verdict: Verdict, usage: Usage | None
    ) -> None:
        """Write one line's answer, unless it has one; raises LeaseLost."""
        files = (batch.output_file_id, batch.error_file_id)
        own, other = files if verdict is Verdict.COMPLETED else files[::-1]
        is_held = await self._record(
            keys=[keys.batch(batch.id), keys.pieces(own), keys.pieces(other)],
            args=[
                *(hold.holder, number, content, verdict, batch.expires_files_s),
                *_counts(usage),
            ],
        )
        if not is_held:
            raise LeaseLost

    async def recorded(self, batch: StoredBatch) -> set[int]:
        """Return the numbers of the lines that are answered."""
        fields = [
            await self._redis.hkeys(keys.pieces(file_id))  # type: ignore[misc]
            for file_id in (batch.output_file_id, batch.error_file_id)
        ]
        return {int(number) for numbers in fields for number in numbers}


def _counts(usage: Usage | None) -> list[str | int]:
    """The batch's counters of tokens, each with what is added to it."""
    if usage is None:
        return []
    counted: list[str | int] = ["prompt_tokens", usage.prompt_tokens, "completion_tokens", usage.completion_tokens]
    return [*counted, "cached_tokens", usage.cached_tokens]
