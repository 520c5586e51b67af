"""Puts jobs into the queue and takes them back. The only file of the gateway that knows arq."""

import time
from dataclasses import dataclass
from enum import StrEnum

from arq.jobs import serialize_job
from redis.asyncio import Redis

from api.keyring import ANYBODY, Caller
from shared import keys, wire
from shared.events import Finished, FinishReason, Usage
from shared.job import ChatJob, JobId

MAX_POKES = 64
"""Pokes nobody waited for; a worker that comes later looks into the queue anyway."""
POKE_TTL_S = 60

PRIORITY_STEP_MS = 24 * 3600 * 1000
"""Jobs of one priority lie a day before those of the next one: longer than any of them waits."""
SHARES_TTL_S = 24 * 3600
NO_LIMIT = 2**53
"""The largest whole number that Lua knows."""

_ENQUEUE = """
local queue, payload, wake, open, waiting, rate = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local job, content, ttl_ms, shift_ms, max_pokes, poke_ttl_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local payload_prefix, lease_prefix, shares_ttl_s = ARGV[7], ARGV[8], ARGV[9]
local room, max_waiting, max_open, per_minute = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function is_open(id) return redis.call('EXISTS', payload_prefix .. id) == 1 end
local function is_waiting(id) return is_open(id) and redis.call('HEXISTS', lease_prefix .. id, 'holder') == 0 end
local function is_full(share, limit, counts)
  if not limit or redis.call('SCARD', share) < limit then return false end
  for _, id in ipairs(redis.call('SMEMBERS', share)) do
    if not counts(id) then redis.call('SREM', share, id) end
  end
  return redis.call('SCARD', share) >= limit
end

if redis.call('EXISTS', payload) == 1 then return end
local num_waiting = redis.call('ZCARD', queue)
if num_waiting >= tonumber(room) then return {'queue', num_waiting} end
if is_full(waiting, max_waiting, is_waiting) then return {'waiting', 0} end
if is_full(open, max_open, is_open) then return {'open', 0} end
local used_up = now
if per_minute then
  used_up = math.max(tonumber(redis.call('GET', rate) or 0), now) + 60000 / per_minute
  if used_up - now > 60000 then return {'rate', math.ceil(used_up - now - 60000)} end
end

if content == '' then return end
redis.call('SET', payload, content, 'PX', ttl_ms)
if per_minute then redis.call('SET', rate, used_up, 'PX', math.ceil(used_up - now)) end
for share, limit in pairs({[waiting] = max_waiting, [open] = max_open}) do
  redis.call('SADD', share, job)
  redis.call('EXPIRE', share, shares_ttl_s)
end
redis.call('ZADD', queue, now + shift_ms, job)
redis.call('RPUSH', wake, job)
redis.call('LTRIM', wake, -max_pokes, -1)
redis.call('EXPIRE', wake, poke_ttl_s)
"""
"""What arq's enqueue_job does in four round trips, the limits and the poke, in one; by the clock all gateways share.

A share is a set of ids, counted when it seems full: a job counts as long as it has a payload, so that what a
crashed gateway left behind stops counting when its jobs end. The rate is one time (the generic cell rate
algorithm): a minute's requests may come at once, and after them one each time that one has been earned.
"""

_CANCEL = """
local queue, inflight, payload, lease, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local job, cancels, last_seq, ending, log_ttl_s = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local events, message = ARGV[6], ARGV[7]
local holder = redis.call('HGET', lease, 'holder')
if holder and redis.call('PUBLISH', cancels .. string.match(holder, '^(.*)/'), job) > 0 then return end
if redis.call('EXISTS', payload) == 1 then
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local seq = newest and tonumber(string.match(newest[1], '^%d+')) or 0
  if seq > last_seq then return seq end
  redis.call('XADD', log, (last_seq + 1) .. '-0', 'e', ending)
  redis.call('EXPIRE', log, log_ttl_s)
  redis.call('PUBLISH', events, message)
end
redis.call('ZREM', queue, job)
redis.call('ZREM', inflight, job)
redis.call('DEL', payload, lease)
"""
"""A holder is `<worker id>/<attempt>`. Where nobody hears the cancel, nobody is to claim the job again either, and
the script itself says the end that others may wait for; it returns the log's last number if that is a later one."""


class Limit(StrEnum):
    """What can be used up."""

    QUEUE = "queue"
    """Requests that wait for the model, of whomever."""
    WAITING = "waiting"
    """Requests of the API key that wait."""
    OPEN = "open"
    """Requests of the API key that have not ended."""
    RATE = "rate"
    """Requests of the API key in a minute."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job was not queued."""

    limit: Limit
    amount: int
    """Of `QUEUE` how many wait, of `RATE` the milliseconds until one more may come."""


class JobQueue:
    """The queue as its producers see it."""

    def __init__(self, redis: Redis, max_queue_len: int) -> None:
        self._redis = redis
        self._max_queue_len = max_queue_len
        self._enqueue = redis.register_script(_ENQUEUE)
        self._cancel = redis.register_script(_CANCEL)

    async def enqueue(self, job: ChatJob, caller: Caller = ANYBODY, *, is_accepted: bool = False) -> Refusal | None:
        """Queue the job under its own id, and poke one idle worker; an id that is queued already stays as it is.

        Returns None, or why it may not be queued; a job that was accepted before always finds room.
        """
        now_s = time.time()
        content = serialize_job("chat", (wire.encode(job),), {}, None, int(now_s * 1000), serializer=wire.encode_arq)
        ttl_ms = int(max(job.deadline_s - now_s, 1.0) * 1000)
        arguments: list[bytes | int | str] = [content, ttl_ms, job.priority * PRIORITY_STEP_MS]
        return await self._run(job.lane, job.key_name, job.id, arguments, self._limits(caller, is_accepted))

    async def find_refusal(self, model: str, caller: Caller) -> Refusal | None:
        """Return why a job would not be queued now, if so; nothing is queued or used up."""
        return await self._run(model, caller.name, JobId(""), ["", 0, 0], self._limits(caller, is_accepted=False))

    async def _run(
        self, lane: str, key_name: str, job_id: JobId, job: list[bytes | int | str], limits: list[int | str]
    ) -> Refusal | None:
        refused: tuple[bytes, int] | None = await self._enqueue(
            keys=[
                *(keys.queue(lane), keys.payload(job_id), keys.wake(lane)),
                *(keys.open_jobs(key_name), keys.waiting_jobs(key_name), keys.rate(key_name)),
            ],
            args=[
                *(job_id, *job, MAX_POKES, POKE_TTL_S),
                *(keys.payload(JobId("")), keys.lease(JobId("")), SHARES_TTL_S, *limits),
            ],
        )
        return None if refused is None else Refusal(Limit(refused[0].decode()), refused[1])

    def _limits(self, caller: Caller, is_accepted: bool) -> list[int | str]:
        """The script's limits; where there is none, nothing is counted."""
        asked = (caller.max_queued, caller.max_concurrent, caller.requests_per_minute)
        if not is_accepted:
            return [self._max_queue_len, *("" if limit is None else limit for limit in asked)]
        counted = [NO_LIMIT if limit else "" for limit in asked[:2]]
        return [NO_LIMIT, *counted, ""]

    async def find(self, job_id: JobId) -> ChatJob | None:
        """Return a job that waits or runs, whichever gateway queued it; None once it has ended."""
        content = await self._redis.get(keys.payload(job_id))
        return None if content is None else wire.decode_job(wire.decode_arq(content)["a"][0])

    async def is_open(self, job_id: JobId) -> bool:
        """Return whether the job waits or runs."""
        return bool(await self._redis.exists(keys.payload(job_id)))

    async def cancel(self, job: ChatJob) -> None:
        """Take the job out of the queue and end its log, or tell the worker that holds it to end it."""
        last_seq: int | None = job.progress.last_seq
        while last_seq is not None:
            last_seq = await self._end(job, last_seq)

    async def _end(self, job: ChatJob, last_seq: int) -> int | None:
        """Return None, or the number of the log's last event if it is a later one than this."""
        reason, usage = FinishReason.CANCELLED, Usage(0, 0)
        end = Finished(job_id=job.id, attempt=0, seq=last_seq + 1, reason=reason, usage=usage, key_name=job.key_name)
        ending = wire.encode(end)
        newest: int | None = await self._cancel(
            keys=[
                *(keys.queue(job.lane), keys.inflight(job.lane)),
                *(keys.payload(job.id), keys.lease(job.id), keys.log(job.id)),
            ],
            args=[
                *(job.id, keys.cancel(""), last_seq, ending, job.log_ttl_s),
                *(keys.events(job.gateway), wire.join_events([ending])),
            ],
        )
        return newest
