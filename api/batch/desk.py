"""The parts behind /v1/files and /v1/batches, put together."""

from collections.abc import Callable

from redis.asyncio import Redis

from api.batch.endpoint import Doors
from api.batch.hold import Holds
from api.batch.ledger import BatchLedger
from api.batch.pace import Pace
from api.batch.run import Equipment
from api.batch.runner import BatchRunner
from api.batch.shelf import FileShelf
from api.batch.upload import Uploads
from api.departure import Departure
from api.dispatch import Dispatcher
from api.keyring import KeyRing
from api.metrics import GatewayMetrics
from api.queue import JobQueue
from api.registry import WorkerRegistry
from api.settings import ApiSettings


class BatchDesk:
    """What the routes of files and batches work with, and what runs behind them."""

    def __init__(
        self,
        settings: ApiSettings,
        gateway_id: str,
        *,
        redis: Redis,
        registry: WorkerRegistry,
        queue: JobQueue,
        keyring: KeyRing,
        doors: Doors,
        new_dispatcher: Callable[[Departure], Dispatcher],
        metrics: GatewayMetrics,
        departure: Departure,
    ) -> None:
        self.shelf = FileShelf(redis)
        self.uploads = Uploads(self.shelf, settings)
        self.ledger = BatchLedger(redis, self.shelf, settings)
        equipment = Equipment(
            settings=settings,
            redis=redis,
            shelf=self.shelf,
            holds=Holds(redis, gateway_id),
            pace=Pace(redis, registry, queue, settings.max_queue_len),
            keyring=keyring,
            doors=doors,
            new_dispatcher=new_dispatcher,
            metrics=metrics,
        )
        self.runner = BatchRunner(equipment, departure)
