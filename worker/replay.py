"""What earlier attempts already said of a job, read back from its log."""

from dataclasses import dataclass

from redis.asyncio import Redis

from shared import keys, wire
from shared.events import Started, TextDelta, is_terminal
from shared.job import JobId


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer so far."""

    last_seq: int = 0
    has_started: bool = False
    has_ended: bool = False
    token_ids: tuple[int, ...] = ()


async def read_replay(redis: Redis, job_id: JobId) -> Replay:
    """Return what the log holds; an empty replay if nothing was said yet."""
    entries = await redis.xrange(keys.log(job_id))
    events = [wire.decode_event(fields[b"e"]) for _, fields in entries]
    return Replay(
        last_seq=events[-1].seq if events else 0,
        has_started=any(isinstance(event, Started) for event in events),
        has_ended=any(is_terminal(event) for event in events),
        token_ids=tuple(t for event in events if isinstance(event, TextDelta) for t in event.token_ids),
    )
