"""From a request to a job: find the model, check, fetch and store media. It only puts the steps in order."""

import time

from api.fetch import MediaFetcher
from api.media import MediaSource, Turn, place_media, sources_of
from api.order import Order
from api.registry import WorkerRegistry
from api.schema.request import ChatCompletionRequest
from api.settings import ApiSettings
from api.store import MediaStore
from api.validation import chat_job, check_media, processor_params, validate
from shared.job import MediaPart, Message


class Intake:
    """The gateway's door: whatever it lets in is a complete ChatJob."""

    def __init__(
        self, settings: ApiSettings, gateway: str, registry: WorkerRegistry, fetcher: MediaFetcher, store: MediaStore
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._registry = registry
        self._fetcher = fetcher
        self._store = store

    async def accept(self, request: ChatCompletionRequest) -> Order:
        """Agree on the job, or raise the JobError that says why not."""
        created_s = time.time()
        worker = await self._registry.find(request.model)
        sampling = validate(request, worker, self._settings.max_n)
        processor = processor_params(request, worker)
        turns = place_media(request)
        check_media(sources_of(turns), worker, self._settings.max_media)
        contents = await self._fetcher.fetch(sources_of(turns))
        timeout_s = self._settings.request_timeout_s
        stored = await self._store.put_all(contents.values(), created_s + timeout_s)
        sha256s = dict(zip(contents, stored, strict=True))
        messages = tuple(_message(turn, sha256s) for turn in turns)
        job = chat_job(request, worker, self._gateway, messages, sampling, processor, created_s, timeout_s)
        return Order(job, tuple(contents.values()))


def _message(turn: Turn, sha256s: dict[str, str]) -> Message:
    return Message(
        turn.role,
        tuple(
            MediaPart(part.kind, sha256s[part.address], part.param) if isinstance(part, MediaSource) else part
            for part in turn.parts
        ),
    )
