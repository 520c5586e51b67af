"""One page of what an API key has: ids in a sorted set, each with a hash of its own that may have expired."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
from redis.asyncio import Redis

_Record = TypeVar("_Record", bound=msgspec.Struct)

AT_ONCE = 256
"""Hashes that are read in one round trip."""


@dataclass(frozen=True, slots=True)
class Page(Generic[_Record]):
    """Part of a list, and whether more follows."""

    records: list[_Record]
    has_more: bool


def decode(fields: dict[bytes, bytes], kind: type[_Record]) -> _Record | None:
    """Return what a hash holds; None if there is none."""
    if not fields:
        return None
    return msgspec.convert({name.decode(): value.decode() for name, value in fields.items()}, kind, strict=False)


class Index(Generic[_Record]):
    """The ids of one kind; whoever finds that a hash has expired takes its id out."""

    def __init__(self, redis: Redis, kind: type[_Record], spell: Callable[[str], str]) -> None:
        """`spell` gives the key of an id's hash."""
        self._redis = redis
        self._kind = kind
        self._spell = spell

    async def find(self, record_id: str) -> _Record | None:
        """Return what is known of one id."""
        return decode(await self._redis.hgetall(self._spell(record_id)), self._kind)  # type: ignore[misc]

    async def page(
        self, key: str, after: str | None, limit: int, *, is_newest_first: bool, wanted: Callable[[_Record], bool]
    ) -> Page[_Record] | None:
        """Return up to `limit` records that are wanted, behind the id `after`; None if there is no such id."""
        ids = [member.decode() for member in await self._redis.zrange(key, 0, -1, desc=is_newest_first)]
        if after is not None:
            if after not in ids:
                return None
            ids = ids[ids.index(after) + 1 :]
        found: list[_Record] = []
        async for record in self.records(key, ids):
            if wanted(record):
                found.append(record)
            if len(found) > limit:
                break
        return Page(found[:limit], len(found) > limit)

    async def records(self, key: str, ids: list[str]) -> AsyncIterator[_Record]:
        """Yield what these ids of a sorted set stand for, in their order."""
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for record_id in some:
                    pipeline.hgetall(self._spell(record_id))
                records = [decode(fields, self._kind) for fields in await pipeline.execute()]
            if gone := [record_id for record_id, record in zip(some, records, strict=True) if record is None]:
                await self._redis.zrem(key, *gone)
            for record in records:
                if record is not None:
                    yield record

    async def all(self, key: str) -> list[_Record]:
        """Return all records of a sorted set."""
        ids = [member.decode() for member in await self._redis.zrange(key, 0, -1)]
        return [record async for record in self.records(key, ids)]
