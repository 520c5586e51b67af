"""What responses leave in Redis for later: under whose name, for how long, and how much of it in all."""

import math
import time

from redis.asyncio import Redis

from api.keyring import Caller
from api.responses.conversation import media_of
from api.store import MARGIN_S
from shared import keys, wire
from shared.job import ChatJob, JobId
from shared.kept import KeptResponse

_WEIGH = """
local kept, bytes = KEYS[1], KEYS[2]
local ttl_s, most_s = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_bytes, grace_s = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local function forget(key)
  redis.call('HINCRBY', bytes, '', 0 - (redis.call('HGET', bytes, key) or 0))
  redis.call('HDEL', bytes, key)
  redis.call('ZREM', kept, key)
end

for _, key in ipairs(redis.call('ZRANGEBYSCORE', kept, '-inf', now)) do forget(key) end
for i = 3, #KEYS do
  local key, left_s = KEYS[i], redis.call('TTL', KEYS[i])
  if left_s >= 0 then
    if left_s < ttl_s then
      left_s = ttl_s
      redis.call('EXPIRE', key, ttl_s)
    end
    local size = redis.call('MEMORY', 'USAGE', key)
    redis.call('HINCRBY', bytes, '', size - (redis.call('HGET', bytes, key) or 0))
    redis.call('HSET', bytes, key, size)
    redis.call('ZADD', kept, now + math.min(left_s, most_s), key)
  end
end
while tonumber(redis.call('HGET', bytes, '') or 0) > max_bytes do
  local oldest = redis.call('ZRANGE', kept, 0, 0)[1]
  if not oldest then break end
  if redis.call('TTL', oldest) > grace_s then redis.call('EXPIRE', oldest, grace_s) end
  forget(oldest)
end
"""
"""The one that would expire first goes first. What it needs goes within the grace time, as a running request may still
need it; the same picture in many turns is weighed once, and stays as long as the last of them."""

_DELETE = """
redis.call('DEL', KEYS[3], KEYS[4])
for i = 3, 4 do
  redis.call('HINCRBY', KEYS[2], '', 0 - (redis.call('HGET', KEYS[2], KEYS[i]) or 0))
  redis.call('HDEL', KEYS[2], KEYS[i])
  redis.call('ZREM', KEYS[1], KEYS[i])
end
"""


class ResponseArchive:
    """Keeps responses for a time after their end; Redis is all there is of it."""

    def __init__(self, redis: Redis, ttl_s: int, max_bytes: int, request_timeout_s: float) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._grace_s = math.ceil(request_timeout_s) + MARGIN_S
        self.log_ttl_s = ttl_s + self._grace_s
        """How long the log of a stored response is kept from its end: longer than all else of it."""
        self._weigh = redis.register_script(_WEIGH)
        self._delete = redis.register_script(_DELETE)

    async def keep(self, kept: KeptResponse, job: ChatJob) -> None:
        """Keep the response with its media until its job's deadline, and from then on as long as any."""
        ttl_s = math.ceil(max(job.deadline_s - time.time(), 0)) + self._ttl_s
        await self._redis.set(keys.response(kept.id), wire.encode(kept), ex=ttl_s)
        media = {keys.media(part.sha256) for part in media_of(kept.messages)}
        await self._account([keys.response(kept.id), *media], ttl_s, ttl_s)

    async def weigh_log(self, response_id: JobId) -> None:
        """Count the log of a response that has ended."""
        await self._account([keys.log(response_id)], 0, self.log_ttl_s)

    async def find(self, response_id: str, caller: Caller) -> KeptResponse | None:
        """Return what is kept of a response, if it is the caller's."""
        content = await self._redis.get(keys.response(JobId(response_id)))
        kept = None if content is None else wire.decode_response(content)
        return kept if kept is not None and kept.key_name == caller.name else None

    async def delete(self, response_id: JobId) -> None:
        """Keep nothing of the response."""
        stored = [keys.response(response_id), keys.log(response_id)]
        await self._delete(keys=[keys.KEPT, keys.KEPT_BYTES, *stored])

    async def _account(self, stored: list[str], ttl_s: int, most_s: int) -> None:
        """Count these, and see that they live for at least `ttl_s`; they are counted for at most `most_s`."""
        limits = [ttl_s, most_s, self._max_bytes, self._grace_s]
        await self._weigh(keys=[keys.KEPT, keys.KEPT_BYTES, *stored], args=limits)
