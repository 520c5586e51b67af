"""One job from claim to terminal event. The table of contents is `ChatTask.run`."""

import asyncio
import logging
import time

from redis.asyncio import Redis

from shared import keys
from shared.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InternalError,
    InvalidMedia,
    InvalidRequest,
    JobError,
    OutOfMemory,
    StreamInterrupted,
    WorkerLost,
)
from shared.events import FinishReason, Usage
from shared.job import ChatJob, MediaPart, Message, Role, TextPart
from worker.adapters import Adapter, Adapters
from worker.calls.prompt import prepare
from worker.choices import ChoiceId, Choices
from worker.engine.engine import StepOutput
from worker.engine.failure import Failure
from worker.engine.grammar import MAX_MASK_S, Grammar, GrammarError, Grammars
from worker.engine.prompt import Prompt
from worker.engine.sequence import BASE
from worker.engine.thread import EngineThread, Step
from worker.fingerprint import fingerprint
from worker.lease import Claim, GivenUp
from worker.models.family import Model
from worker.models.raw import echoed, read_raw, spelled
from worker.outbox import Outbox
from worker.prepare.decoder import one_request
from worker.publisher import Publisher
from worker.record import JobRecord
from worker.replay import Replay, read_replay
from worker.room import Place, Room

logger = logging.getLogger(__name__)

MAX_LOST_WORKERS = 2
"""A job that took this many workers down, or broke the model this often, is not tried again."""
NO_MEMORY = (
    "The request needs more memory than the server's device has, even alone: "
    "shorten the conversation, send fewer or smaller media, or lower max_tokens."
)
TOO_COMPLEX = (
    "What the answer has to match (response_format, guided_* or a tool's schema) is too complex to follow any further; "
    f"a token may take {MAX_MASK_S * 1e3:.0f} ms of work: simplify its patterns, and leave one way only to read a text."
)


class ChatTask:
    """Runs one claimed job; it says exactly one terminal event, or none if another attempt goes on with it."""

    def __init__(
        self,
        job: ChatJob,
        claim: Claim,
        *,
        redis: Redis,
        model: Model,
        adapters: Adapters,
        engine: EngineThread,
        grammars: Grammars,
        room: Room,
        publisher: Publisher,
        fingerprint: str,
        record: JobRecord,
    ) -> None:
        self.job = job
        self._claim = claim
        self._redis = redis
        self._model = model
        self._adapters = adapters
        self._adapter: Adapter | None = None
        self._engine = engine
        self._grammars = grammars
        self._room = room
        self._place: Place | None = None
        self._publisher = publisher
        self._fingerprint = fingerprint
        self._record = record
        self._outcome = "handed_over"
        self._outbox = Outbox(job, claim)
        self._choices: Choices | None = None
        self._echo = ""
        self._has_started = False
        self._is_cancelled = False
        self._is_given_up = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Prepare, generate, publish; raise GivenUp if the model broke on it."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self.job.deadline_s - time.time()):
                await self._answer()
        except (asyncio.CancelledError, GivenUp):  # the next attempt continues from what is published
            self._outbox.close()
            await self._publisher.flush(self._outbox)
            self._record.close(self._outcome)
            raise
        except TimeoutError:
            self._fail(DeadlineExceeded("the answer was not finished within the time a request may take"))
        except JobError as error:
            self._fail(error)
        except Exception:  # the process's outermost boundary: every job owes its client an ending
            logger.exception("%s broke", self.job.id)
            self._fail(InternalError())
        finally:
            self._leave_engine()
            self._adapters.release(self._adapter)
            self._leave_room()
        await self._publisher.flush(self._outbox)
        self._record.close(self._outcome)
        logger.info("%s ended after %.2f s, attempt %d", self.job.id, time.monotonic() - began_s, self._claim.attempt)

    def deliver(self, output: StepOutput, step: Step) -> None:
        """Take what one engine step produced for this job, unless it was claimed anew meanwhile."""
        _, run, index = ChoiceId.parse(output.sequence_id)
        if self._outbox.has_ended or (choices := self._choices) is None or choices.run != run:
            return
        if not self._has_started and output.failure is None:
            self._has_started = True
            self._outbox.start(choices.prompt_tokens, self._tuned_fingerprint(), self._echo)
        if output.is_last:
            choices.end(index)
        if output.failure is not None:
            self._give_up(output.failure)
        else:
            logprobs, held = choices.logprobs(output.scored), choices.logprobs(output.held)
            self._outbox.extend(index, output.text, output.token_ids, logprobs, held)
            self._record.generate(len(output.token_ids), step)
        if output.finish_reason is not None:
            self._finish_choice(choices, index, output.finish_reason)
        self._publisher.notify(self._outbox)

    def cancel(self) -> None:
        """The client left: stop before the next step."""
        self._is_cancelled = True
        self._leave_engine()

    def fence(self) -> None:
        """Somebody else holds the job: stop, and say nothing more."""
        self._record.fence()
        self._drop()

    def _drop(self) -> None:
        self._outcome = "fenced"
        self._outbox.close()
        self._leave_engine()
        self._ended.set()

    async def _answer(self) -> None:
        # First of all: an error is numbered after what was said.
        replay = await read_replay(self._redis, self.job, has_log=self._claim.has_log)
        self._outbox.resume(replay.progress)
        self._has_started = replay.has_started
        if replay.has_ended:
            return self._drop()
        if replay.has_hole:
            raise StreamInterrupted("Part of the answer was lost with Redis's data; please ask again.")
        if self._claim.num_lost >= MAX_LOST_WORKERS:
            raise WorkerLost(f"{self._claim.num_lost} workers died or broke on this request; it is not tried again")
        if self.job.lookup is not None:
            return await self._look_up()
        choices = await self._prepare(replay)
        if self._is_cancelled:
            self._outcome = FinishReason.CANCELLED
            return self._outbox.finish(FinishReason.CANCELLED, choices.usage)
        self._choices = choices
        self._record.submit(choices)
        for sequence in choices.running:
            self._engine.submit(sequence)
        await self._ended.wait()
        if self._is_given_up:
            raise GivenUp
        return None

    async def _look_up(self) -> None:
        """Tell the prompt's tokens, which nobody generates."""
        adapter = self._adapter = await self._adapters.hold(self.job.adapter)
        prompt = await self._read(None if adapter is None else adapter.system)
        self._outbox.extend(0, "", (), spelled(prompt))
        self._outcome = FinishReason.STOP
        self._outbox.finish(FinishReason.STOP, Usage(len(prompt.token_ids), 0))

    async def _prepare(self, replay: Replay) -> Choices:
        adapter = self._adapter = await self._adapters.hold(self.job.adapter)
        prompt = await self._read(None if adapter is None else adapter.system)
        self._check_bias()
        if self.job.echoes and self.job.prompt is not None:
            self._echo = echoed(self.job.prompt, prompt)
        max_tokens = self._max_tokens(prompt)
        self._record.prepare(len(prompt.token_ids))
        slot = BASE if adapter is None else adapter.slot
        return Choices(self.job, prompt, max_tokens, slot, replay.progress, await self._compile(prompt))

    async def _compile(self, prompt: Prompt) -> Grammar | None:
        if (grammar := self.job.sampling.grammar) is None:
            return None
        try:
            return await asyncio.to_thread(self._grammars.compile, grammar, prompt)
        except GrammarError as error:
            raise InvalidRequest(f"the answer can't be made to match what was asked for: {error}") from None

    async def _read(self, system: str | None) -> Prompt:
        """Return the prompt, of a conversation with this system text where it has none of its own."""
        if self.job.prompt is not None:
            return await asyncio.to_thread(read_raw, self._model, self.job.prompt, self.job.lookup)
        if not (parts := _media_of(self.job.messages)):
            return await asyncio.to_thread(self._render, _as_tuned(self.job.messages, system), {})
        self._place = await self._room.enter()
        media = await self._load_media(parts)
        prompt = await asyncio.to_thread(self._render, _as_tuned(self.job.messages, system), media)
        self._place.settle(prompt.feature_bytes)
        return prompt

    def _render(self, messages: tuple[Message, ...], media: dict[MediaPart, bytes]) -> Prompt:
        with one_request():
            return prepare(self._model, self.job, messages, media)

    async def _load_media(self, parts: list[MediaPart]) -> dict[MediaPart, bytes]:
        payloads = await self._redis.mget([keys.media(part.sha256) for part in parts])
        for part, payload in zip(parts, payloads, strict=True):
            if payload is None:
                raise InvalidMedia("the media have expired; please send the request again", param=part.param)
        return dict(zip(parts, payloads, strict=True))

    def _max_tokens(self, prompt: Prompt) -> int:
        limit, num_prompt_tokens = self._model.facts.max_model_len, len(prompt.token_ids)
        room = limit - num_prompt_tokens
        wanted = self.job.sampling.max_tokens
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {num_prompt_tokens} tokens and the model's context {limit}; "
                "shorten the conversation or send fewer or smaller media",
                param="messages" if self.job.prompt is None else "prompt",
            )
        if wanted is not None and wanted > room:
            raise ContextLengthExceeded(
                f"the prompt has {num_prompt_tokens} tokens and max_tokens is {wanted}; together they must not "
                f"exceed the model's context of {limit}: ask for at most {room} tokens, or leave max_tokens out",
                param="max_tokens",
            )
        return room if wanted is None else wanted

    def _check_bias(self) -> None:
        vocab_size = self._model.runner.vocab_size
        for token_id, _ in self.job.sampling.logit_bias:
            if token_id >= vocab_size:
                raise InvalidRequest(
                    f"logit_bias names the token {token_id}, but the model's tokens are 0 to {vocab_size - 1}",
                    param="logit_bias",
                )

    def _tuned_fingerprint(self) -> str:
        return self._fingerprint if self._adapter is None else fingerprint(self._fingerprint, self._adapter.digest)

    def _finish_choice(self, choices: Choices, index: int, reason: FinishReason) -> None:
        """Tell a choice's end; the last one's is the answer's, and so is that of a client who left."""
        if choices.running and reason is not FinishReason.CANCELLED:
            self._outbox.finish_choice(index, reason)
        else:
            self._outcome = reason
            self._outbox.finish(reason, choices.usage, index)
            self._ended.set()

    def _give_up(self, failure: Failure) -> None:
        """End here what one of the choices broke: for another attempt, or for good."""
        match failure:
            case Failure.BROKE:
                self._is_given_up = True
                self._outbox.close()
            case Failure.OUT_OF_MEMORY:
                self._fail(OutOfMemory(NO_MEMORY))
            case Failure.LOST:
                self._fail(InvalidRequest(TOO_COMPLEX))
        self._ended.set()

    def _fail(self, error: JobError) -> None:
        logger.info("%s failed: %s", self.job.id, error.code)
        self._outcome = error.code
        self._outbox.fail(error)

    def _leave_room(self) -> None:
        if self._place is not None:
            self._choices = None  # with it goes what it holds, wherever the task itself is still known
            self._place.leave()

    def _leave_engine(self) -> None:
        for sequence in self._choices.running if self._choices is not None else ():
            self._engine.abort(sequence.id)


def _media_of(messages: tuple[Message, ...]) -> list[MediaPart]:
    return [part for message in messages for part in message.parts if isinstance(part, MediaPart)]


def _as_tuned(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """Return the conversation with the system text that the adapter was trained with, unless it has one of its own."""
    if system is None or messages[0].role is Role.SYSTEM:
        return messages
    return (Message(Role.SYSTEM, (TextPart(system),)), *messages)
