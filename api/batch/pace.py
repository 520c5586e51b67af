"""How many lines of a batch are under way: enough to fill the workers, and never the queue."""

from redis.asyncio import Redis

from api.keyring import Caller
from api.queue import JobQueue
from api.registry import WorkerRegistry
from shared import keys
from shared.errors import ModelNotFound, ModelUnavailable


class Pace:
    """Lets lines go while workers could take them soon.

    In the queue, lines of all batches together take as many places as the model's workers have rows, and never more
    than half of it; the other half stays free for requests that would be refused otherwise.
    """

    def __init__(self, redis: Redis, registry: WorkerRegistry, queue: JobQueue, max_queue_len: int) -> None:
        self._redis = redis
        self._registry = registry
        self._queue = queue
        self._max_waiting = max(max_queue_len // 2, 1)

    async def has_room(self, model: str, caller: Caller, num_open: int) -> bool:
        """Whether one more line may be asked, of a batch that has `num_open` under way."""
        try:
            base = (await self._registry.find(model)).model
        except ModelUnavailable:
            return False
        except ModelNotFound:  # its answer will say so
            return True
        workers = (await self._registry.fleet()).ready()
        num_rows = min(sum(worker.slots for worker in workers if worker.model == base) or 1, self._max_waiting)
        if num_open >= 2 * num_rows or await self._redis.zcard(keys.queue(base)) >= num_rows:
            return False
        return not caller.is_limited or await self._queue.find_refusal(base, caller) is None
