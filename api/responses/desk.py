"""Responses from their request to their end, and after it: what the routes ask for."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from api.cancellation import Canceller
from api.identity import RESPONSE_PREFIX
from api.intake import Intake
from api.keyring import Caller
from api.order import Order
from api.queue import JobQueue
from api.replay import AnswerLog
from api.responses.archive import ResponseArchive
from api.responses.conversation import PREVIOUS, Conversation, conversation, media_of
from api.responses.draft import Draft
from api.responses.wording import in_words_of
from api.schema.responses import LOGPROBS, CreateResponse, ResponseToolChoice, TextOptions
from api.schema.responses_object import ResponseObject, TextShown
from api.store import MediaStore
from api.visit import Visit
from shared.errors import CompletionNotFound, InvalidRequest
from shared.job import ChatJob, JobId, Message
from shared.kept import KeptResponse


@dataclass(frozen=True, slots=True)
class Accepted:
    """A response that may be answered."""

    order: Order
    response: KeptResponse
    """How it is shown, whether or not it is kept."""


class ResponseDesk:
    """Created with the gateway; knows nothing that Redis doesn't."""

    def __init__(
        self,
        intake: Intake,
        archive: ResponseArchive,
        store: MediaStore,
        queue: JobQueue,
        answers: AnswerLog,
        canceller: Canceller,
    ) -> None:
        self._intake = intake
        self._archive = archive
        self._store = store
        self._queue = queue
        self._answers = answers
        self._canceller = canceller

    async def accept(self, asked: CreateResponse, visit: Visit) -> Accepted:
        """Agree on the job, or raise the JobError that says why not."""
        _check(asked)
        before = await self._conversation_before(asked.previous_response_id, visit.caller)
        media = await self._store.get_all(part.sha256 for part in media_of(before))
        if any(part.sha256 not in media for part in media_of(before)):
            raise InvalidRequest(
                "The media of the previous response are kept no longer; send the conversation again.", param=PREVIOUS
            )
        talk = await asyncio.to_thread(conversation, asked, before, media)  # it encodes what may be large
        with in_words_of(talk.places):
            order = await self._intake.accept(talk.request, visit)
        job = msgspec.structs.replace(order.job, id=JobId(f"{RESPONSE_PREFIX}{visit.name}"))
        response = _response(asked, talk, job)
        if asked.is_kept:
            job = msgspec.structs.replace(job, log_ttl_s=self._archive.log_ttl_s)
        kept = response if asked.is_kept else None
        may_call = job.calling is not None and bool(job.calling.names)
        order = replace(order, job=job, kept=kept, is_background=bool(asked.background), needs_all_events=may_call)
        return Accepted(order, response)

    async def find(self, response_id: str, caller: Caller) -> KeptResponse:
        """Return what is kept of the caller's response, or raise CompletionNotFound."""
        if (kept := await self._archive.find(response_id, caller)) is None:
            raise CompletionNotFound(
                f"There is no response {response_id[:100]!r}; it was not stored, is of another API key, or is gone.",
                param="response_id",
            )
        return kept

    async def read(self, kept: KeptResponse) -> Draft:
        """Return the response as it stands."""
        draft = Draft(kept)
        is_open = await self._queue.is_open(kept.id)
        draft.add_all(await self._answers.read(kept.id))
        if not is_open and not draft.has_ended:
            draft.lose()
        return draft

    async def cancel(self, kept: KeptResponse, caller: Caller) -> ResponseObject:
        """Cancel the response if it hasn't ended, and return it as it stands."""
        await self._canceller.cancel(kept.id, caller)
        return (await self.read(kept)).response()

    async def delete(self, kept: KeptResponse, caller: Caller) -> None:
        """Keep the response no longer; one that hasn't ended is cancelled first."""
        await self._canceller.cancel(kept.id, caller)
        await self._archive.delete(kept.id)

    async def _conversation_before(self, response_id: str | None, caller: Caller) -> tuple[Message, ...]:
        if response_id is None:
            return ()
        if (kept := await self._archive.find(response_id, caller)) is None:
            raise InvalidRequest(
                f"There is no previous response {response_id[:100]!r}; it was not stored, is of another API key, or is"
                " gone: send the conversation again.",
                param=PREVIOUS,
            )
        draft = await self.read(kept)
        if draft.status not in {"completed", "incomplete"}:
            raise InvalidRequest(
                f"The previous response is {draft.status}; there is no answer to go on from.", param=PREVIOUS
            )
        return (*kept.messages, draft.said())


def _check(asked: CreateResponse) -> None:
    if asked.stream_options is not None and not asked.stream:
        raise InvalidRequest("stream_options is only allowed when stream is true.", param="stream_options")
    if asked.background and not asked.is_kept:
        raise InvalidRequest("background needs a response that is stored; leave store out or send true.", param="store")
    if asked.wants_logprobs and asked.tools:
        raise InvalidRequest("Log-probabilities are not told beside tools; leave one of them out.", param="include")
    if asked.top_logprobs and not asked.wants_logprobs:
        raise InvalidRequest(f'top_logprobs is only allowed when include has "{LOGPROBS}".', param="top_logprobs")


def _response(asked: CreateResponse, talk: Conversation, job: ChatJob) -> KeptResponse:
    heading = ResponseObject(
        id=job.id,
        created_at=int(job.created_s),
        status="queued" if asked.background else "in_progress",
        background=bool(asked.background),
        instructions=asked.instructions,
        max_output_tokens=asked.max_output_tokens,
        metadata=asked.metadata or {},
        model=job.asked_model,
        parallel_tool_calls=asked.parallel_tool_calls is not False,
        previous_response_id=asked.previous_response_id,
        prompt_cache_key=asked.prompt_cache_key,
        safety_identifier=asked.safety_identifier,
        store=asked.is_kept,
        temperature=job.sampling.temperature,
        tool_choice=_choice_shown(asked.tool_choice),
        tools=[tool.model_dump() for tool in asked.tools or ()],
        text=_text_shown(asked.text),
        top_logprobs=asked.top_logprobs or 0,
        top_p=job.sampling.top_p,
        user=asked.user,
    )
    return KeptResponse(
        id=job.id,
        key_name=job.key_name,
        heading=heading.model_dump_json().encode(),
        messages=talk.kept(job.messages),
        places=talk.places,
    )


def _choice_shown(choice: ResponseToolChoice | None) -> str | dict[str, Any]:
    if choice is None:
        return "auto"
    return choice if isinstance(choice, str) else choice.model_dump()


def _text_shown(asked: TextOptions | None) -> TextShown:
    if asked is None or asked.format is None:
        return TextShown()
    return TextShown(format=asked.format.model_dump(by_alias=True, exclude_none=True))
