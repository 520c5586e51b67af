"""What earlier attempts already said of a job: read back from its log, or brought along by the job."""

from dataclasses import dataclass

from redis.asyncio import Redis

from shared import keys, wire
from shared.events import Started, is_terminal
from shared.job import ChatJob
from shared.progress import Progress
from shared.tally import Tally


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer so far."""

    progress: Progress
    has_started: bool
    has_ended: bool
    has_hole: bool
    """Whether Redis lost events and kept later ones, as it may when it fails over: nothing true can follow."""


async def read_replay(redis: Redis, job: ChatJob, *, has_log: bool) -> Replay:
    """Return what was said so far; an empty replay if it is nothing. A job without a log costs Redis no question.

    The log begins where the job's own progress ends: Redis forgot what lies before.
    """
    tally = Tally(job.progress)
    entries = await redis.xrange(keys.log(job.id)) if has_log else []
    events = [wire.decode_event(fields[b"e"]) for _, fields in entries]
    for event in events:
        tally.add(event)
    return Replay(
        progress=tally.progress(),
        has_started=job.progress.last_seq > 0 or any(isinstance(event, Started) for event in events),
        has_ended=any(is_terminal(event) for event in events),
        has_hole=any(event.seq != seq for seq, event in enumerate(events, start=job.progress.last_seq + 1)),
    )
