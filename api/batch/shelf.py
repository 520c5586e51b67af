"""Files in Redis: each a hash of facts, and a hash of pieces so that no value is large and any piece may come late."""

import time
from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

import msgspec
from redis.asyncio import Redis

from api.batch.page import Index, Page
from api.batch.patience import patiently
from shared import keys
from shared.errors import FileNotFound, InternalError, InvalidRequest

PIECE_BYTES = 2**16
PIECES_AT_ONCE = 64
"""Pieces that are read in one round trip: 4 MiB of an uploaded file."""
MAX_FILES = 10_000
"""Most files of one API key, however small."""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file; as it lies in Redis."""

    id: str
    owner: str
    """The name of the API key that may see it."""
    filename: str = ""
    purpose: str
    num_bytes: int
    """Before it is complete: what it may come to."""
    num_pieces: int = 0
    created_s: int
    expires_s: int
    is_complete: bool = False


class FileShelf:
    """Puts files into Redis and takes them out again."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._index = Index(redis, StoredFile, keys.file)

    async def open(self, owner: str, purpose: str, num_bytes: int, ttl_s: float) -> StoredFile:
        """Begin a file; it goes away by itself unless it grows or is completed within `ttl_s`."""
        now_s = int(time.time())
        file = StoredFile(
            id=new_file_id(),
            owner=owner,
            purpose=purpose,
            num_bytes=num_bytes,
            created_s=now_s,
            expires_s=now_s + int(ttl_s),
        )
        await self._write(file)
        return file

    async def put(self, file: StoredFile, number: int, piece: bytes, ttl_s: float) -> None:
        """Add one piece of a file that isn't complete."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.pieces(file.id), str(number), piece)  # type: ignore[arg-type]  # bytes are values
            for key in (keys.pieces(file.id), keys.file(file.id)):
                pipeline.expire(key, int(ttl_s))
            await pipeline.execute()

    async def complete(self, file: StoredFile) -> StoredFile:
        """Let the file be seen, as described."""
        file = msgspec.structs.replace(file, is_complete=True)
        await self._write(file)
        return file

    async def keep_until(self, file: StoredFile, expires_s: int) -> None:
        """Let the file live at least as long as this."""
        if expires_s > file.expires_s:
            await self._write(msgspec.structs.replace(file, expires_s=expires_s))

    async def find(self, file_id: str, owner: str) -> StoredFile:
        """Return the file, or raise FileNotFound; a file that is still being uploaded is not there yet."""
        file = await self._index.find(file_id)
        if file is None or not file.is_complete or file.owner != owner:
            raise FileNotFound(f"There is no file {file_id[:100]!r}; files expire.", param="file_id")
        return file

    async def page(
        self, owner: str, purpose: str | None, after: str | None, limit: int, *, is_newest_first: bool
    ) -> Page[StoredFile]:
        """Return a page of an API key's files; raises InvalidRequest if `after` is none of them."""
        page = await self._index.page(
            keys.files_of(owner),
            after,
            limit,
            is_newest_first=is_newest_first,
            wanted=lambda file: file.is_complete and purpose in {None, file.purpose},
        )
        if page is None:
            raise InvalidRequest("after is no file of this API key; list anew without it.", param="after")
        return page

    async def of_all(self) -> list[StoredFile]:
        """Return all files, whoever's they are, with those that are being uploaded."""
        return await self._index.all(keys.FILES)

    async def delete(self, file: StoredFile) -> None:
        """Forget the file."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            for key in (keys.FILES, keys.files_of(file.owner)):
                pipeline.zrem(key, file.id)
            pipeline.unlink(keys.file(file.id), keys.pieces(file.id))
            await pipeline.execute()

    async def read(self, file: StoredFile, *, is_patient: bool = False) -> AsyncIterator[bytes]:
        """Yield the bytes piece by piece; raises InternalError where Redis has lost some.

        A patient reader waits for a Redis that is away.
        """
        num_read = 0
        for start in range(0, file.num_pieces, PIECES_AT_ONCE):
            fetch = partial(self._fetch, file, start)
            for piece in await (patiently(fetch) if is_patient else fetch()):
                num_read += len(piece)
                yield piece
        if num_read != file.num_bytes:
            raise InternalError

    async def _fetch(self, file: StoredFile, start: int) -> list[bytes]:
        numbers = [str(n) for n in range(start, min(start + PIECES_AT_ONCE, file.num_pieces))]
        pieces = await self._redis.hmget(keys.pieces(file.id), numbers)  # type: ignore[misc]
        return [piece for piece in pieces if piece is not None]

    async def _write(self, file: StoredFile) -> None:
        facts = {name: _plain(value) for name, value in msgspec.structs.asdict(file).items()}
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.file(file.id), mapping=facts)
            for key in (keys.file(file.id), keys.pieces(file.id)):
                pipeline.expireat(key, file.expires_s)
            for key in (keys.FILES, keys.files_of(file.owner)):
                pipeline.zadd(key, {file.id: int(time.time() * 1000)}, nx=True)
            await pipeline.execute()


def new_file_id() -> str:
    """Return an id that nobody can guess."""
    return f"file-{uuid4().hex}"


def _plain(value: str | int | bool) -> str | int:
    return int(value) if isinstance(value, bool) else value
