"""Media bytes in Redis, under their content hash: the same picture in every turn of a chat lies there once."""

import asyncio
import hashlib
import math
import time
from collections.abc import Iterable

from redis.asyncio import Redis

from shared import keys

MARGIN_S = 60
"""Media outlive their request's deadline by this."""
MAX_INLINE_HASH = 2**20
"""Bytes that are hashed in the event loop; more is hashed in a thread."""

_PROLONG = """
local left_s = redis.call('TTL', KEYS[1])
if left_s >= 0 and left_s < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return left_s ~= -2
"""
"""Never shortens: a response that is kept may need the bytes for longer. (`EXPIRE … GT` needs Redis 7.)"""


class MediaStore:
    """Puts bytes where workers find them, for a time."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._prolong = redis.register_script(_PROLONG)

    async def put_all(self, contents: Iterable[bytes], deadline_s: float) -> list[str]:
        """Keep these for as long as a request with this deadline may need them; return their hashes."""
        ttl_s = math.ceil(deadline_s - time.time()) + MARGIN_S
        return await asyncio.gather(*(self.put(content, ttl_s) for content in contents))

    async def put(self, content: bytes, ttl_s: int) -> str:
        """Keep the bytes for this long from now; return their hash. Bytes that are there already aren't sent again."""
        sha256 = _hash(content) if len(content) <= MAX_INLINE_HASH else await asyncio.to_thread(_hash, content)
        if not await self._prolong(keys=[keys.media(sha256)], args=[ttl_s]):
            await self._redis.set(keys.media(sha256), content, ex=ttl_s)
        return sha256

    async def get_all(self, sha256s: Iterable[str]) -> dict[str, bytes]:
        """Return those of these bytes that are still there, by their hashes."""
        if not (wanted := list(dict.fromkeys(sha256s))):
            return {}
        found = await self._redis.mget([keys.media(sha256) for sha256 in wanted])
        return {sha256: content for sha256, content in zip(wanted, found, strict=True) if content is not None}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
