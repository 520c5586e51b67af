"""What earlier attempts already said of a job: read back from its log, or brought along by the job."""

from dataclasses import dataclass

from redis.asyncio import Redis

from shared import keys, wire
from shared.events import Started, TextDelta, is_terminal
from shared.job import ChatJob


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer so far."""

    last_seq: int = 0
    has_started: bool = False
    has_ended: bool = False
    token_ids: tuple[int, ...] = ()


async def read_replay(redis: Redis, job: ChatJob) -> Replay:
    """Return what was said so far; an empty replay if it is nothing.

    The log begins where the job's own progress ends: Redis forgot what lies before.
    """
    before = job.progress
    entries = await redis.xrange(keys.log(job.id))
    events = [wire.decode_event(fields[b"e"]) for _, fields in entries]
    logged = (t for event in events if isinstance(event, TextDelta) for t in event.token_ids)
    return Replay(
        last_seq=events[-1].seq if events else before.last_seq,
        has_started=before.last_seq > 0 or any(isinstance(event, Started) for event in events),
        has_ended=any(is_terminal(event) for event in events),
        token_ids=(*before.token_ids, *logged),
    )
