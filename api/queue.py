"""Puts jobs into the queue and takes them back. The only file of the gateway that knows arq."""

import time

from arq.connections import ArqRedis
from redis.asyncio import Redis

from shared import keys, wire
from shared.job import ChatJob

MAX_POKES = 64
"""Pokes nobody waited for; a worker that comes later looks into the queue anyway."""
POKE_TTL_S = 60

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

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._arq = ArqRedis(redis.connection_pool, job_serializer=wire.encode_arq, job_deserializer=wire.decode_arq)
        self._cancel = redis.register_script(_CANCEL)

    async def enqueue(self, job: ChatJob) -> None:
        """Queue the job under its own id, and poke one idle worker; an id that is queued already stays as it is."""
        await self._arq.enqueue_job(
            "chat",
            wire.encode(job),
            _job_id=job.id,
            _queue_name=keys.queue(job.model),
            _expires=max(job.deadline_s - time.time(), 1.0),
        )
        wake = keys.wake(job.model)
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.rpush(wake, job.id)
            pipeline.ltrim(wake, -MAX_POKES, -1)
            pipeline.expire(wake, POKE_TTL_S)
            await pipeline.execute()

    async def cancel(self, job: ChatJob) -> None:
        """Take the job out of the queue, or tell the worker that holds it."""
        await self._cancel(
            keys=[keys.queue(job.model), keys.inflight(job.model), keys.payload(job.id), keys.lease(job.id)],
            args=[job.id, keys.cancel("")],
        )
