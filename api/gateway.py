"""The parts of one gateway process, and their life: whoever opens one closes it, here."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import Request
from redis.asyncio import Redis

from api.adapters import AdapterDesk
from api.admission import Admission
from api.batch.desk import BatchDesk
from api.batch.endpoint import Doors
from api.cancellation import Canceller
from api.departure import Departure
from api.dispatch import Dispatcher
from api.fetch import MediaFetcher
from api.intake import Intake
from api.keyring import KeyRing
from api.metrics import GatewayMetrics
from api.network import CheckedNetwork, is_public
from api.ownership import Ownership
from api.position import QueuePositions
from api.queue import JobQueue
from api.registry import WorkerRegistry
from api.replay import AnswerLog
from api.responses.archive import ResponseArchive
from api.responses.background import Background
from api.responses.desk import ResponseDesk
from api.settings import ApiSettings
from api.store import MediaStore
from api.subscriber import EventSubscriber
from shared.connection import open_redis
from shared.tracing import Tracing, open_tracing


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the routes work with."""

    settings: ApiSettings
    departure: Departure
    redis: Redis
    registry: WorkerRegistry
    intake: Intake
    dispatcher: Dispatcher
    answers: AnswerLog
    canceller: Canceller
    ownership: Ownership
    responses: ResponseDesk
    background: Background
    adapters: AdapterDesk
    positions: QueuePositions
    metrics: GatewayMetrics
    tracing: Tracing
    batches: BatchDesk


@asynccontextmanager
async def open_gateway(
    settings: ApiSettings, gateway_id: str, departure: Departure, keyring: KeyRing
) -> AsyncIterator[Gateway]:
    """Build the parts and listen for events; Redis need not be there yet."""
    metrics = GatewayMetrics()
    async with AsyncExitStack() as stack:
        tracing = stack.enter_context(open_tracing("baton-api", gateway_id))
        redis = await stack.enter_async_context(open_redis(settings, on_retry=metrics.redis_reconnects.inc))
        fetcher = await stack.enter_async_context(MediaFetcher(settings, _media_network(settings)))
        registry, store, queue = WorkerRegistry(redis), MediaStore(redis), JobQueue(redis, settings.max_queue_len)
        admission = Admission(queue, registry, metrics)
        archive = ResponseArchive(redis, settings.response_ttl_s, settings.max_stored_bytes, settings.request_timeout_s)
        subscriber, positions = EventSubscriber(redis, gateway_id), QueuePositions(redis)
        new_dispatcher = partial(Dispatcher, queue, admission, store, subscriber, positions, metrics, archive=archive)
        dispatcher = new_dispatcher(departure)
        background = Background(dispatcher)
        intake = Intake(settings, gateway_id, registry, admission, fetcher, store)
        answers, canceller = AnswerLog(redis, settings.request_timeout_s, departure), Canceller(queue)
        responses = ResponseDesk(intake, archive, store, queue, answers, canceller)
        batches = BatchDesk(
            settings,
            gateway_id,
            redis=redis,
            registry=registry,
            queue=queue,
            keyring=keyring,
            doors=Doors(intake, responses),
            new_dispatcher=new_dispatcher,
            metrics=metrics,
            departure=departure,
        )
        for part in (subscriber, positions, dispatcher, background, batches.runner):
            await stack.enter_async_context(part.running())
        yield Gateway(
            settings=settings,
            departure=departure,
            redis=redis,
            registry=registry,
            intake=intake,
            dispatcher=dispatcher,
            answers=answers,
            canceller=canceller,
            ownership=Ownership(queue, answers),
            responses=responses,
            background=background,
            adapters=AdapterDesk(redis, registry),
            positions=positions,
            metrics=metrics,
            tracing=tracing,
            batches=batches,
        )


def _media_network(settings: ApiSettings) -> CheckedNetwork:
    admits = (lambda _: True) if settings.allow_private_media_hosts else is_public
    return CheckedNetwork(admits, settings.allowed_media_hosts)


def gateway_of(request: Request) -> Gateway:
    """The gateway that the request arrived at."""
    gateway: Gateway = request.app.state.gateway
    return gateway
