"""The parts of one gateway process, and their life: whoever opens one closes it, here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from fastapi import Request
from redis.asyncio import Redis

from api.adapters import AdapterDesk
from api.dispatch import Dispatcher
from api.fetch import MediaFetcher
from api.intake import Intake
from api.network import CheckedNetwork, is_public
from api.queue import JobQueue
from api.registry import WorkerRegistry
from api.replay import AnswerLog
from api.settings import ApiSettings
from api.store import MediaStore
from api.subscriber import EventSubscriber
from shared.connection import open_redis


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the routes work with."""

    settings: ApiSettings
    redis: Redis
    registry: WorkerRegistry
    intake: Intake
    dispatcher: Dispatcher
    answers: AnswerLog
    adapters: AdapterDesk


@asynccontextmanager
async def open_gateway(settings: ApiSettings) -> AsyncIterator[Gateway]:
    """Build the parts and listen for events; Redis need not be there yet."""
    gateway_id = uuid4().hex
    async with open_redis(settings) as redis, MediaFetcher(settings, _media_network(settings)) as fetcher:
        registry = WorkerRegistry(redis)
        store = MediaStore(redis)
        intake = Intake(settings, gateway_id, registry, fetcher, store)
        subscriber = EventSubscriber(redis, gateway_id)
        dispatcher = Dispatcher(JobQueue(redis, settings.max_queue_len), store, subscriber, registry)
        async with subscriber.listening(), dispatcher.running():
            answers, adapters = AnswerLog(redis, settings.request_timeout_s), AdapterDesk(redis, registry)
            yield Gateway(settings, redis, registry, intake, dispatcher, answers, adapters)


def _media_network(settings: ApiSettings) -> CheckedNetwork:
    return CheckedNetwork((lambda _: True) if settings.allow_private_media_hosts else is_public)


def gateway_of(request: Request) -> Gateway:
    """The gateway that the request arrived at."""
    gateway: Gateway = request.app.state.gateway
    return gateway
