"""From a request to a job: find the model, check, fetch and store media. It only puts the steps in order."""

import asyncio
import time
from dataclasses import replace

import msgspec

from api.admission import Admission
from api.calls.grammar import bound
from api.fetch import MediaFetcher
from api.media import MediaSource, Turn, place_media, sources_of
from api.order import Order
from api.registry import WorkerRegistry
from api.schema.completion import CompletionRequest
from api.schema.request import ChatCompletionRequest
from api.schema.tokens import DetokenizeRequest, TokenizeRequest
from api.settings import ApiSettings
from api.store import MediaStore
from api.structure import Wish, find_wish
from api.tools import open_toolbox
from api.validation import (
    chat_job,
    check_media,
    check_model,
    lookup_job,
    priority,
    processor_params,
    raw_jobs,
    timeout_s,
    validate,
    with_grammar,
)
from api.visit import Visit
from shared.errors import DeadlineExceeded
from shared.job import MediaPart, Message

MAX_GRAMMARS_AT_ONCE = 4
"""The threads that write them are everybody's."""


class Intake:
    """The gateway's door: whatever it lets in is a complete ChatJob."""

    def __init__(
        self,
        settings: ApiSettings,
        gateway: str,
        registry: WorkerRegistry,
        admission: Admission,
        fetcher: MediaFetcher,
        store: MediaStore,
    ) -> None:
        self._admission = admission
        self._settings = settings
        self._gateway = gateway
        self._registry = registry
        self._fetcher = fetcher
        self._store = store
        self._writing = asyncio.Semaphore(MAX_GRAMMARS_AT_ONCE)

    async def accept(self, request: ChatCompletionRequest, visit: Visit) -> Order:
        """Agree on the job, or raise the JobError that says why not."""
        created_s, limit_s = time.time(), timeout_s(request, self._settings.request_timeout_s)
        check_model(request.model, visit.caller)
        try:
            async with asyncio.timeout(limit_s):
                return await self._accept(request, visit, created_s, limit_s)
        except TimeoutError:
            raise DeadlineExceeded(f"The answer was not finished within {limit_s:g} s.") from None

    async def accept_raw(self, request: CompletionRequest, visit: Visit) -> tuple[Order, ...]:
        """Agree on one job for each prompt, or raise the JobError that says why not."""
        order = await self.accept(request.as_chat(), visit)
        return tuple(Order(job, (), order.caller, order.span) for job in raw_jobs(order.job, request, visit.name))

    async def accept_lookup(self, request: TokenizeRequest | DetokenizeRequest, visit: Visit) -> Order:
        """Agree on a job that asks for the tokens of a prompt, or raise the JobError that says why not."""
        order = await self.accept(request.as_chat(), visit)
        return replace(order, job=lookup_job(order.job, request))

    async def _accept(self, request: ChatCompletionRequest, visit: Visit, created_s: float, limit_s: float) -> Order:
        caller = visit.caller
        worker = await self._registry.find(request.model)
        sampling = validate(request, worker, self._settings.max_n)
        urgency = priority(request, caller)
        processor = processor_params(request, worker)
        toolbox = open_toolbox(request, worker)
        turns = place_media(request)
        check_media(sources_of(turns), worker, self._settings.max_media)
        wish = bound(find_wish(request), toolbox)
        if sources_of(turns) or wish is not None:  # they may take long
            await self._admission.check(worker.model, caller)
        if wish is not None:
            sampling = with_grammar(sampling, await self._write(wish), wish.param)
        contents = await self._fetcher.fetch(sources_of(turns))
        stored = await self._store.put_all(contents.values(), created_s + limit_s)
        messages = _messages(turns, dict(zip(contents, stored, strict=True)))
        job = chat_job(
            *(request, worker, self._gateway, messages, sampling, processor, created_s, limit_s, toolbox), visit.name
        )
        job = msgspec.structs.replace(job, priority=urgency, key_name=caller.name, traceparent=visit.span.traceparent)
        return Order(job, tuple(contents.values()), caller, visit.span)

    async def _write(self, wish: Wish) -> str:
        async with self._writing:
            return await asyncio.to_thread(wish.grammar)


def _messages(turns: tuple[Turn, ...], sha256s: dict[str, str]) -> tuple[Message, ...]:
    return tuple(_message(turn, sha256s) for turn in turns)


def _message(turn: Turn, sha256s: dict[str, str]) -> Message:
    return Message(
        turn.role,
        tuple(
            MediaPart(part.kind, sha256s[part.address], part.param) if isinstance(part, MediaSource) else part
            for part in turn.parts
        ),
        turn.calls,
        turn.call_id,
    )
