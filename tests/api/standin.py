"""A worker without a model: takes jobs and publishes events as the contract says, driven by a test line by line."""

import asyncio
import contextlib
import time

import msgspec
from redis.asyncio import Redis

from shared import keys, wire
from shared.errors import ErrorCode
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.fleet import WorkerInfo, WorkerState
from shared.job import ChatJob, JobId, MediaKind, SamplingParams

DEFAULTS = SamplingParams(temperature=0.7, top_p=0.9, top_k=40)


class StandIn:
    """One worker; `take` waits for a job, the verbs after it say something about one."""

    def __init__(self, redis: Redis, model: str, modalities=(MediaKind.IMAGE, MediaKind.VIDEO), adapters=()) -> None:
        self.redis = redis
        self.facts = WorkerInfo(
            id=f"standin-{model}",
            host="here",
            pid=1,
            version="0",
            device="cpu",
            model=model,
            model_type="fake",
            state=WorkerState.READY,
            modalities=modalities,
            adapters=adapters,
            max_model_len=4096,
            sampling=DEFAULTS,
            started_s=1_700_000_000.0,
        )
        self.seqs: dict[JobId, int] = {}

    async def beat(
        self, state: WorkerState = WorkerState.READY, lives_s: float = 3600, jobs_per_s: float = 0.0, sampling=None
    ) -> None:
        defaults = msgspec.structs.replace(DEFAULTS, **sampling or {})
        facts = msgspec.structs.replace(self.facts, state=state, jobs_per_s=jobs_per_s, sampling=defaults)
        await self.redis.set(keys.worker(facts.id), wire.encode(facts))
        await self.redis.zadd(keys.WORKERS, {facts.id: time.time() + lives_s})

    async def take(self, timeout_s: float = 60) -> ChatJob:
        async with asyncio.timeout(timeout_s):
            while True:
                popped = await self.redis.zpopmin(keys.queue(self.facts.model))
                if popped and (job := await self.claim(JobId(popped[0][0].decode()))) is not None:
                    return job
                await self.redis.blpop([keys.wake(self.facts.model)], timeout=0.2)

    async def claim(self, job_id: JobId) -> ChatJob | None:
        """Return the job, unless it was cancelled meanwhile."""
        if (payload := await self.redis.get(keys.payload(job_id))) is None:
            return None
        envelope = wire.decode_arq(payload)
        assert envelope["f"] == "chat"
        await self.redis.hset(keys.lease(job_id), "holder", f"{self.facts.id}/1")
        return wire.decode_job(envelope["a"][0])

    async def say(self, job: ChatJob, *words: str, **more: object) -> None:
        """Publish deltas in one message; the first one comes with Started."""
        events: list[JobEvent] = []
        if job.id not in self.seqs:
            named, created_s = self.named(job), job.created_s
            echo = {"echo": job.prompt} if job.echoes else {}
            told = {"model": job.model, "created_s": created_s, "num_choices": job.n, "calling": job.calling} | echo
            events.append(Started(**named, prompt_tokens=7, **told))
        events += [TextDelta(**self.named(job), text=word, token_ids=(1,), **more) for word in words]
        await self.publish(job, *events)

    async def finish_choice(self, job: ChatJob, index: int, reason=FinishReason.STOP) -> None:
        await self.publish(job, ChoiceFinished(**self.named(job), index=index, reason=reason))

    async def finish(self, job: ChatJob, reason=FinishReason.STOP, tells=True, index=0) -> None:
        usage = Usage(prompt_tokens=7, completion_tokens=3)
        ended = {"reason": reason, "usage": usage, "index": index, "key_name": job.key_name}
        await self.publish(job, Finished(**self.named(job), **ended), tells=tells)

    async def fail(self, job: ChatJob, code: ErrorCode, message: str, param: str | None = None) -> None:
        told = {"code": code, "message": message, "param": param, "key_name": job.key_name}
        await self.publish(job, Failed(**self.named(job), **told))

    async def answer(self, *words: str) -> ChatJob:
        job = await self.take()
        await self.say(job, *words)
        await self.finish(job)
        return job

    async def publish(self, job: ChatJob, *events: JobEvent, logs=True, tells=True) -> None:
        if logs:
            for event in events:
                await self.redis.xadd(keys.log(job.id), {b"e": wire.encode(event)}, id=f"{event.seq}-0")
        if tells:
            await self.redis.publish(keys.events(job.gateway), wire.join_events(map(wire.encode, events)))

    def named(self, job: ChatJob) -> dict[str, object]:
        self.seqs[job.id] = self.seqs.get(job.id, 0) + 1
        return {"job_id": job.id, "attempt": 1, "seq": self.seqs[job.id]}

    @contextlib.asynccontextmanager
    async def hearing_cancels(self):
        async with self.redis.pubsub() as pubsub:
            await pubsub.subscribe(keys.cancel(self.facts.id))
            await pubsub.get_message(timeout=5)

            async def next_cancel(timeout_s: float = 5) -> str:
                message = await pubsub.get_message(timeout=timeout_s)
                assert message is not None, "no cancel came"
                return message["data"].decode()

            yield next_cancel
