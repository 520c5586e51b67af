"""How tests ask for responses, and what a stand-in worker answers."""

from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from shared import keys
from shared.events import FinishReason
from tests.api.conftest import MODEL, asking

EVENT = TypeAdapter(ResponseStreamEvent)


def ask(client: AsyncOpenAI, **fields):
    return client.responses.create(**{"model": MODEL, "input": "你好", **fields})


async def end(worker, job, reason=FinishReason.STOP) -> None:
    """End a job as a real worker's script does."""
    await worker.finish(job, reason)
    await worker.redis.delete(keys.payload(job.id), keys.lease(job.id))


async def answered(client, worker, *words: str, **fields) -> tuple:
    async with asking(ask(client, **fields)) as answer:
        job = await worker.take()
        await worker.say(job, *words)
        await end(worker, job)
        return job, await answer


async def heard(stream) -> list:
    events = [event async for event in stream]
    for event in events:
        EVENT.validate_python(event.model_dump())
    return events


async def ask_in_background(client, **fields):
    response = await ask(client, background=True, **fields)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    return response
