"""From outboxes to Redis: one message per gateway and engine step, fenced and logged in one Lua call."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys, wire
from shared.events import JobEvent, is_terminal
from shared.job import JobId
from worker.outbox import Outbox

logger = logging.getLogger(__name__)

RUNNING_LOG_TTL_S = 24 * 3600
RETRY_PAUSE_S = 0.2

_PUBLISH = """
local channel, inflight = KEYS[1], KEYS[2]
local version, lease_prefix, log_prefix, payload_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local running_ttl_s = ARGV[5]
local bodies, fenced = {}, {}
for i = 6, #ARGV, 5 do
  local id, holder, seq, event, ended_ttl_s = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local lease, log = lease_prefix .. id, log_prefix .. id
  if redis.call('HGET', lease, 'holder') ~= holder then
    fenced[#fenced + 1] = id
  else
    local logged = redis.pcall('XADD', log, seq .. '-0', 'e', event)
    if type(logged) ~= 'table' then bodies[#bodies + 1] = event:sub(#version + 1) end
    if ended_ttl_s ~= '' then
      redis.call('ZREM', inflight, id)
      redis.call('DEL', lease, payload_prefix .. id)
      redis.call('EXPIRE', log, ended_ttl_s)
    elseif seq == '1' then
      redis.call('EXPIRE', log, running_ttl_s)
    end
  end
end
local n = #bodies
if n > 0 then
  local header = version .. string.char(0xdc, math.floor(n / 256), n % 256)
  redis.call('PUBLISH', channel, header .. table.concat(bodies))
end
return fenced
"""


class Publisher:
    """Sends what the outboxes hold; created with the worker, ended by cancelling `run`.

    `on_fenced` is called with the id of a job that somebody else holds by now.
    """

    def __init__(self, redis: Redis, on_fenced: Callable[[JobId], None]) -> None:
        self._publish = redis.register_script(_PUBLISH)
        self._on_fenced = on_fenced
        self._waiting: dict[JobId, Outbox] = {}
        self._has_waiting = asyncio.Event()
        self._flushes: list[asyncio.Future[None]] = []

    def notify(self, outbox: Outbox) -> None:
        """Say that this outbox holds something."""
        self._waiting[outbox.job_id] = outbox
        self._has_waiting.set()

    async def flush(self, outbox: Outbox) -> None:
        """Return once everything this outbox holds is in Redis."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append(sent)
        self.notify(outbox)
        await sent

    async def run(self) -> None:
        """Send for ever; one round at a time, so that a slow Redis merges steps instead of queueing them."""
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            outboxes, self._waiting = self._waiting, {}
            flushes, self._flushes = self._flushes, []
            await self._send(list(outboxes.values()))
            for sent in flushes:
                if not sent.done():
                    sent.set_result(None)

    async def _send(self, outboxes: list[Outbox]) -> None:
        arguments: defaultdict[tuple[str, str], list[str | bytes | int]] = defaultdict(list)
        for outbox in outboxes:
            for event in outbox.take():
                arguments[outbox.gateway, outbox.lane] += _arguments(outbox, event)
        for (gateway, lane), events in arguments.items():
            await self._send_to(gateway, lane, events)

    async def _send_to(self, gateway: str, lane: str, events: list[str | bytes | int]) -> None:
        prefixes = [keys.lease(JobId("")), keys.log(JobId("")), keys.payload(JobId(""))]
        arguments = [wire.VERSION, *prefixes, RUNNING_LOG_TTL_S, *events]
        while True:
            try:
                fenced = await self._publish(keys=[keys.events(gateway), keys.inflight(lane)], args=arguments)
            except RedisError as error:  # the log refuses what arrived before the cut
                logger.warning("publishing waits for Redis: %s", error)
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                break
        for job_id in set(fenced):
            self._on_fenced(JobId(job_id.decode()))


def _arguments(outbox: Outbox, event: JobEvent) -> list[str | bytes | int]:
    ended_ttl_s = outbox.log_ttl_s if is_terminal(event) else ""
    return [outbox.job_id, outbox.holder, event.seq, wire.encode(event), ended_ttl_s]
