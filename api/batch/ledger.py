"""The batches of every API key: made, found, listed, and told to stop."""

import time
from collections.abc import Mapping
from uuid import uuid4

import msgspec
from redis.asyncio import Redis

from api.batch.page import Index, Page
from api.batch.record import BatchStatus, StoredBatch
from api.batch.shelf import FileShelf, StoredFile, new_file_id
from api.settings import ApiSettings
from shared import keys
from shared.errors import BatchNotFound, InvalidRequest

MARGIN_S = 3600
"""An input file lives this long beyond its batch."""

_CANCEL = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= ARGV[1] and status ~= ARGV[2] then return status end
redis.call('HSET', KEYS[1], 'status', ARGV[3], ARGV[3] .. '_s', ARGV[4])
return ARGV[3]
"""


class BatchLedger:
    """Batches as their owners see them; who drives one writes through its own hold on it."""

    def __init__(self, redis: Redis, shelf: FileShelf, settings: ApiSettings) -> None:
        self._redis = redis
        self._shelf = shelf
        self._settings = settings
        self._index = Index(redis, StoredBatch, keys.batch)
        self._cancel = redis.register_script(_CANCEL)

    async def create(
        self, owner: str, endpoint: str, file: StoredFile, metadata: Mapping[str, str] | None, file_ttl_s: int
    ) -> StoredBatch:
        """Write the batch down for whichever gateway takes it first; raises InvalidRequest where there are too many."""
        await self._check_room(owner)
        now_s = time.time()
        batch = StoredBatch(
            id=f"batch_{uuid4().hex}",
            owner=owner,
            endpoint=endpoint,
            input_file_id=file.id,
            output_file_id=new_file_id(),
            error_file_id=new_file_id(),
            file_ttl_s=file_ttl_s,
            metadata=msgspec.json.encode(metadata).decode() if metadata else "",
            created_s=int(now_s),
            expires_s=int(now_s + self._settings.batch_window_s),
        )
        await self._shelf.keep_until(file, batch.expires_s + MARGIN_S)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.batch(batch.id), mapping=msgspec.structs.asdict(batch))
            pipeline.expireat(keys.batch(batch.id), batch.expires_files_s)
            pipeline.zadd(keys.batches_of(owner), {batch.id: int(now_s * 1000)})
            pipeline.zadd(keys.OPEN_BATCHES, {batch.id: batch.created_s})
            await pipeline.execute()
        return batch

    async def find(self, batch_id: str, owner: str) -> StoredBatch:
        """Return the batch, or raise BatchNotFound."""
        batch = await self._index.find(batch_id)
        if batch is None or batch.owner != owner:
            raise BatchNotFound(f"There is no batch {batch_id[:100]!r}; ended ones expire.", param="batch_id")
        return batch

    async def page(self, owner: str, after: str | None, limit: int) -> Page[StoredBatch]:
        """Return a page of an API key's batches, newest first; raises InvalidRequest if `after` is none of them."""
        page = await self._index.page(
            keys.batches_of(owner), after, limit, is_newest_first=True, wanted=lambda batch: True
        )
        if page is None:
            raise InvalidRequest("after is no batch of this API key; list anew without it.", param="after")
        return page

    async def cancel(self, batch: StoredBatch) -> StoredBatch:
        """Have the batch stopped by whoever drives it; raises InvalidRequest if it has ended."""
        before = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
        status = await self._cancel(
            keys=[keys.batch(batch.id)], args=[*before, BatchStatus.CANCELLING, int(time.time())]
        )
        batch = await self.find(batch.id, batch.owner)
        if status is None or status.decode() not in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
            raise InvalidRequest(f"The batch is {batch.status} and can't be cancelled any more.", param="batch_id")
        return batch

    async def check_unread(self, file: StoredFile) -> None:
        """Raise InvalidRequest if a batch that has not ended still reads the file."""
        for batch in await self._index.all(keys.OPEN_BATCHES):
            if batch.input_file_id == file.id:
                raise InvalidRequest(
                    f"The batch {batch.id} still reads this file; cancel it first, or wait for its end.",
                    param="file_id",
                )

    async def _check_room(self, owner: str) -> None:
        most = self._settings.max_open_batches
        if sum(batch.owner == owner for batch in await self._index.all(keys.OPEN_BATCHES)) >= most:
            raise InvalidRequest(
                f"{most} batches of this API key have not ended, as many as may (--max_open_batches); cancel one, "
                "or try again later."
            )
