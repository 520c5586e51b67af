"""The limits of the queue and of each API key, and what a client is told when it meets one."""

from collections.abc import Mapping

from api.keyring import Caller
from api.metrics import GatewayMetrics
from api.order import Order
from api.queue import JobQueue, Limit, Refusal
from api.registry import WorkerRegistry
from shared.errors import QueueFull, RateLimited, TooMuch

_MS = 1000
_SENTENCES: Mapping[Limit, str] = {
    Limit.QUEUE: "{amount} requests wait for the model {model!r}, as many as may",
    Limit.WAITING: "{caller.max_queued} requests of the API key {caller.name!r} wait, as many as may (max_queued)",
    Limit.OPEN: "The API key {caller.name!r} has {caller.max_concurrent} requests at once, as many as may "
    "(max_concurrent)",
    Limit.RATE: "The API key {caller.name!r} may send {caller.requests_per_minute} requests a minute "
    "(requests_per_minute), and has",
}


class Admission:
    """Queues jobs that find room; refuses the others at once, with a reason and a time."""

    def __init__(self, queue: JobQueue, registry: WorkerRegistry, metrics: GatewayMetrics) -> None:
        self._queue = queue
        self._registry = registry
        self._metrics = metrics

    async def check(self, model: str, caller: Caller) -> None:
        """Raise TooMuch if a job would be refused now: before its media are fetched for nothing."""
        if (refusal := await self._queue.find_refusal(model, caller)) is not None:
            raise self._refused(refusal, model, caller)

    async def admit(self, order: Order) -> None:
        """Queue the job, or raise TooMuch; a refused job was never in the queue."""
        if (refusal := await self._queue.enqueue(order.job, order.caller)) is not None:
            raise self._refused(refusal, order.job.model, order.caller)

    def _refused(self, refusal: Refusal, model: str, caller: Caller) -> TooMuch:
        self._metrics.rejections.labels(refusal.limit).inc()
        sentence = _SENTENCES[refusal.limit].format(amount=refusal.amount, model=model, caller=caller)
        kind = QueueFull if refusal.limit in {Limit.QUEUE, Limit.WAITING} else RateLimited
        return kind(f"{sentence}; please try again later.", retry_after_s=self._wait_s(refusal, model, caller))

    def _wait_s(self, refusal: Refusal, model: str, caller: Caller) -> int:
        match refusal.limit:
            case Limit.QUEUE:
                return self._registry.wait_s(model, refusal.amount)
            case Limit.WAITING:
                return self._registry.wait_s(model, caller.max_queued or 1)
            case Limit.OPEN:
                return self._registry.wait_s(model, 1)
            case Limit.RATE:
                return -(-refusal.amount // _MS)
