"""Puts jobs into the queue and takes them back. The only file of the gateway that knows arq."""

import sys
import time

from arq.jobs import serialize_job
from redis.asyncio import Redis

from shared import keys, wire
from shared.job import ChatJob

MAX_POKES = 64
"""Pokes nobody waited for; a worker that comes later looks into the queue anyway."""
POKE_TTL_S = 60

_ENQUEUE = """
local queue, payload, wake = KEYS[1], KEYS[2], KEYS[3]
local job, content, ttl_ms, max_pokes, poke_ttl_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local num_waiting = redis.call('ZCARD', queue)
if num_waiting >= tonumber(ARGV[6]) then return num_waiting end
if not redis.call('SET', payload, content, 'PX', ttl_ms, 'NX') then return end
local time = redis.call('TIME')
redis.call('ZADD', queue, time[1] * 1000 + math.floor(time[2] / 1000), job)
redis.call('RPUSH', wake, job)
redis.call('LTRIM', wake, -max_pokes, -1)
redis.call('EXPIRE', wake, poke_ttl_s)
"""
"""What arq's enqueue_job does in four round trips, and the poke, in one; by the clock that all gateways share."""

_CANCEL = """
local queue, inflight, payload, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job, channel = ARGV[1], ARGV[2]
local holder = redis.call('HGET', lease, 'holder')
if holder and redis.call('PUBLISH', channel .. string.match(holder, '^(.*)/'), job) > 0 then
  return
end
redis.call('ZREM', queue, job)
redis.call('ZREM', inflight, job)
redis.call('DEL', payload, lease)
"""
"""A holder is `<worker id>/<attempt>`. Where nobody hears the cancel, nobody is to claim the job again either."""


class JobQueue:
    """The queue as its producers see it."""

    def __init__(self, redis: Redis, max_queue_len: int) -> None:
        self._max_queue_len = max_queue_len
        self._enqueue = redis.register_script(_ENQUEUE)
        self._cancel = redis.register_script(_CANCEL)

    async def enqueue(self, job: ChatJob, *, is_accepted: bool = False) -> int | None:
        """Queue the job under its own id, and poke one idle worker; an id that is queued already stays as it is.

        Returns None, or how many wait if that is as many as may; a job that was accepted before always finds room.
        """
        now_s = time.time()
        content = serialize_job("chat", (wire.encode(job),), {}, None, int(now_s * 1000), serializer=wire.encode_arq)
        ttl_ms = int(max(job.deadline_s - now_s, 1.0) * 1000)
        room = sys.maxsize if is_accepted else self._max_queue_len
        num_waiting: int | None = await self._enqueue(
            keys=[keys.queue(job.model), keys.payload(job.id), keys.wake(job.model)],
            args=[job.id, content, ttl_ms, MAX_POKES, POKE_TTL_S, room],
        )
        return num_waiting

    async def cancel(self, job: ChatJob) -> None:
        """Take the job out of the queue, or tell the worker that holds it."""
        await self._cancel(
            keys=[keys.queue(job.model), keys.inflight(job.model), keys.payload(job.id), keys.lease(job.id)],
            args=[job.id, keys.cancel("")],
        )
