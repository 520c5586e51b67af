"""Who holds which job: claimed, renewed, handed over and released in Redis, each in one Lua call.

A lease is a time (the job's score in `inflight`) and a holder (`<worker>/<attempt>` in the job's
lease hash). The time decides when somebody else may claim the job; the holder decides who may speak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from shared import keys
from shared.job import JobId

LEASE_TTL_MS = 24 * 3600 * 1000
"""A lease hash that everybody forgot is gone after a day."""


class GivenUp(Exception):
    """The job broke the model here: it is handed over, and counts as one that took a worker down."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One job that a worker holds."""

    job_id: JobId
    attempt: int
    num_lost: int
    """Workers that died with this job or broke on it."""
    score: int
    """Place in the queue, to which a handed-over job returns."""
    holder: str
    """The fencing token."""
    has_log: bool
    """Whether an earlier attempt said anything; no other but the holder's can any more."""


_CLAIM = """
local queue, inflight, wake = KEYS[1], KEYS[2], KEYS[3]
local worker, lease_ms, limit, prefix, ttl_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local log_prefix = ARGV[6]
local claims, now = {}, 0

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function claim(id, num_lost)
  local lease = prefix .. id
  local attempt = redis.call('HINCRBY', lease, 'attempt', 1)
  redis.call('HSET', lease, 'holder', worker .. '/' .. attempt)
  redis.call('PEXPIRE', lease, ttl_ms)
  redis.call('ZADD', inflight, now + lease_ms, id)
  local has_log = redis.call('EXISTS', log_prefix .. id)
  claims[#claims + 1] = {id, attempt, num_lost, redis.call('HGET', lease, 'score') or 0, has_log}
end

local oldest = redis.call('ZRANGE', inflight, 0, 0, 'WITHSCORES')
if oldest[1] then
  now = clock()
  if tonumber(oldest[2]) <= now then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', inflight, '-inf', now, 'LIMIT', 0, limit)) do
      claim(id, redis.call('HINCRBY', prefix .. id, 'lost', 1))
    end
    oldest = redis.call('ZRANGE', inflight, 0, 0, 'WITHSCORES')
  end
end
local wanted = limit - #claims
local popped = redis.call('ZPOPMIN', queue, wanted)
if #popped < 2 * wanted then redis.call('DEL', wake) end
if popped[1] and now == 0 then now = clock() end
for i = 1, #popped, 2 do
  local lease = prefix .. popped[i]
  redis.call('HSET', lease, 'score', popped[i + 1])
  claim(popped[i], tonumber(redis.call('HGET', lease, 'lost') or 0))
end
local until_expiry = oldest[1] and math.max(0, tonumber(oldest[2]) - now) or -1
return {claims, until_expiry}
"""

_RENEW = """
local expires = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost = {}
for i = 3, #ARGV, 2 do
  local id, holder = ARGV[i], ARGV[i + 1]
  if redis.call('HGET', ARGV[2] .. id, 'holder') == holder then
    redis.call('ZADD', KEYS[1], now + expires, id)
  else
    lost[#lost + 1] = (i - 3) / 2
  end
end
return lost
"""

_HAND_OVER = """
local queue, inflight, wake, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
redis.call('DEL', KEYS[5])
if redis.call('HGET', lease, 'holder') ~= ARGV[2] then return 0 end
redis.call('HDEL', lease, 'holder')
redis.call('HINCRBY', lease, 'lost', ARGV[3])
redis.call('ZREM', inflight, ARGV[1])
redis.call('ZADD', queue, redis.call('HGET', lease, 'score'), ARGV[1])
redis.call('RPUSH', wake, 1)
return 1
"""

_RELEASE = """
redis.call('DEL', KEYS[4])
if redis.call('HGET', KEYS[2], 'holder') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
"""


class Leases:
    """One worker's hold on the jobs of one model."""

    def __init__(self, redis: Redis, worker_id: str, model: str, lease_s: float) -> None:
        self._worker_id = worker_id
        self._model = model
        self._lease_ms = int(lease_s * 1000)
        self._claim = redis.register_script(_CLAIM)
        self._renew = redis.register_script(_RENEW)
        self._hand_over = redis.register_script(_HAND_OVER)
        self._release = redis.register_script(_RELEASE)

    async def claim(self, limit: int) -> tuple[list[Claim], float | None]:
        """Claim up to `limit` jobs, abandoned ones first.

        Returns them, and the seconds until the next lease of anybody could run out (None: there is none).
        """
        claimed, until_expiry_ms = await self._claim(
            keys=[keys.queue(self._model), keys.inflight(self._model), keys.wake(self._model)],
            args=[self._worker_id, self._lease_ms, limit, keys.lease(JobId("")), LEASE_TTL_MS, keys.log(JobId(""))],
        )
        claims = [
            Claim(
                job_id=JobId(job_id.decode()),
                attempt=attempt,
                num_lost=num_lost,
                score=int(float(score)),
                holder=f"{self._worker_id}/{attempt}",
                has_log=bool(has_log),
            )
            for job_id, attempt, num_lost, score, has_log in claimed
        ]
        return claims, None if until_expiry_ms < 0 else until_expiry_ms / 1000

    async def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Prolong these leases; return the claims that no longer hold their job."""
        holders = [text for claim in claims for text in (claim.job_id, claim.holder)]
        lost = await self._renew(
            keys=[keys.inflight(self._model)], args=[self._lease_ms, keys.lease(JobId("")), *holders]
        )
        return [claims[index] for index in lost]

    async def hand_over(self, claim: Claim, *, is_suspect: bool) -> None:
        """Put the job back into its old place in the queue, for another worker to continue at once.

        A suspect one counts as if it had taken this worker down.
        """
        model, job_id = self._model, claim.job_id
        await self._hand_over(
            keys=[keys.queue(model), keys.inflight(model), keys.wake(model), keys.lease(job_id), keys.tries(job_id)],
            args=[job_id, claim.holder, int(is_suspect)],
        )

    async def release(self, claim: Claim) -> None:
        """Forget a job that ended; its terminal event usually did so already."""
        await self._release(
            keys=[
                *(keys.inflight(self._model), keys.lease(claim.job_id)),
                *(keys.payload(claim.job_id), keys.tries(claim.job_id)),
            ],
            args=[claim.job_id, claim.holder],
        )
