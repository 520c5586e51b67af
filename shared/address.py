"""Where Redis is, as one URL says it: a server of its own, or a master that Sentinels know.

redis://[user:password@]host[:port][/db]                         plain
rediss://…?ssl_ca_certs=FILE                                     TLS; the system's authorities without the option
redis+sentinel://[user:password@]host[:port],host[:port]…/master[/db]   and rediss+sentinel:// likewise

After `?` may stand what the Redis client knows, and `sentinel_username` and `sentinel_password`.
"""

from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError

SENTINEL_PORT = 26379
SENTINEL_TIMEOUT_S = 1.0
"""A Sentinel that takes longer is passed over for the next one."""
_SUFFIX = "+sentinel"
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}


def check_address(url: str) -> None:
    """Raise ValueError, without a word of the URL, if it is none."""
    try:
        open_pool(url)
    except (ValueError, TypeError):
        raise ValueError(
            "this is no address of a Redis; it looks like redis://[user:password@]host[:port][/db], rediss://… or "
            "redis+sentinel://host[:port],host[:port]/master, with /, @ and : in a password written as %2F, %40 and %3A"
        ) from None


def open_pool(url: str, **options: Any) -> ConnectionPool:
    """Return connections to that Redis; nothing is connected yet."""
    scheme, _, rest = url.partition("://")
    is_encrypted = scheme.startswith("rediss")
    if is_encrypted:
        options |= {"ssl_check_hostname": True}
    if scheme.endswith(_SUFFIX):
        pool = _sentinel_pool(scheme.removesuffix(_SUFFIX), rest, options, is_encrypted=is_encrypted)
    else:
        pool = _PatientPool.from_url(url, **options)
    pool.make_connection()  # type: ignore[no-untyped-call]  # raises TypeError for an option that it doesn't know
    return pool


class _PatientPool(ConnectionPool):
    """Tries to connect as often as to send a command; redis-py's own does so for Sentinels' masters only."""

    async def get_connection(self, *given: Any, **named: Any) -> Any:
        connect = partial(super().get_connection, *given, **named)
        if (retry := self.connection_kwargs.get("retry")) is None:
            return await connect()
        return await retry.call_with_retry(connect, _pass_on)


async def _pass_on(error: RedisError) -> None:
    """Leave nothing behind: the pool has closed what did not connect."""


class _SentinelPool(SentinelConnectionPool):
    """Closes what it asked the Sentinels over, too."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _sentinel_pool(scheme: str, rest: str, options: dict[str, Any], *, is_encrypted: bool) -> ConnectionPool:
    parts = urlsplit(f"//{rest}")
    credentials, at, hosts = parts.netloc.rpartition("@")
    master, _, db = parts.path.strip("/").partition("/")
    if not (hosts and master):
        raise ValueError("no Sentinel or no master is named")
    options |= dict(parse_url(f"{scheme}://{credentials}{at}unused/{db}?{parts.query}"))
    options.pop("host")
    options.pop("connection_class", None)
    own = {name: options.pop(option) for option, name in _SENTINEL_OPTIONS.items() if option in options}
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")} | {"ssl": is_encrypted}
    timeouts = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [_host_and_port(host) for host in hosts.split(",")],
        sentinel_kwargs=own | timeouts | (tls if is_encrypted else {}),
    )
    return _SentinelPool(  # type: ignore[no-untyped-call]
        unquote(master), sentinel, **options, ssl=is_encrypted
    )


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel has no host")
    return parts.hostname, parts.port or SENTINEL_PORT
