"""Gets the bytes behind media addresses, within limits of time, bytes and redirects."""

import asyncio
from collections.abc import Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from api.address import decode, is_url
from api.directory import MediaDirectory
from api.media import MediaSource
from api.network import CheckedNetwork, ForbiddenAddress, ForbiddenHost
from api.settings import ApiSettings
from shared.errors import InvalidMedia

MAX_REDIRECTS = 5
MAX_CONNECTIONS = 64
MAX_FETCHES = 8
"""Fetched at once for one request."""
MAX_INLINE_DECODE = 2**20
"""Characters of base64 that are decoded in the event loop; more is decoded in a thread."""


class _Credentials(Exception):
    """A URL carries a user name or a password."""


async def _refuse_credentials(request: httpx2.Request) -> None:
    if request.url.userinfo:
        raise _Credentials


class _Budget:
    """Bytes that one request's media may still take."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def spend(self, num_bytes: int, source: MediaSource) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise InvalidMedia(f"The request's media are larger than {self._max_bytes} bytes.", param=source.param)


class _CheckedTransport(httpx2.AsyncHTTPTransport):
    """The library's transport, over a pool that connects through the checked network."""

    def __init__(self, network: CheckedNetwork) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=0,
            network_backend=network,
        )


class MediaFetcher:
    """One HTTP client for the gateway's life; it keeps no cookies, no credentials and no connections."""

    def __init__(self, settings: ApiSettings, network: CheckedNetwork) -> None:
        self._max_bytes = settings.max_media_bytes
        self._timeout_s = settings.media_timeout_s
        root = settings.allowed_local_media_path
        self._directory = None if root is None else MediaDirectory(root)
        self._client = httpx2.AsyncClient(
            transport=_CheckedTransport(network),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"Accept-Encoding": "identity"},
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=settings.media_timeout_s,
            trust_env=False,
            event_hooks={"request": [_refuse_credentials]},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch(self, sources: Iterable[MediaSource]) -> Mapping[str, bytes]:
        """Return the bytes of each distinct address; the first failure ends it with InvalidMedia."""
        distinct = {source.address: source for source in reversed(tuple(sources))}
        budget, turn = _Budget(self._max_bytes), asyncio.Semaphore(MAX_FETCHES)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {a: group.create_task(self._get(s, budget, turn)) for a, s in distinct.items()}
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return {address: task.result() for address, task in tasks.items()}

    async def _get(self, source: MediaSource, budget: _Budget, turn: asyncio.Semaphore) -> bytes:
        if is_url(source.address):
            async with turn:
                return await self._download(source, budget)
        if self._directory is not None and (path := self._directory.find(source.address)) is not None:
            async with turn:
                content = await asyncio.to_thread(self._directory.read, path, source, self._max_bytes)
        elif len(source.address) <= MAX_INLINE_DECODE:
            content = decode(source)
        else:
            content = await asyncio.to_thread(decode, source)
        budget.spend(len(content), source)
        return content

    async def _download(self, source: MediaSource, budget: _Budget) -> bytes:
        try:
            url = httpx2.URL(source.address)
            async with asyncio.timeout(self._timeout_s):
                return await self._read(url, source, budget)
        except _Credentials:
            why = "has a URL with a user name or password, or was redirected to one: leave them out"
        except (httpx2.TimeoutException, TimeoutError):
            why = f"did not arrive within {self._timeout_s:g} s"
        except ForbiddenAddress:
            why = "is not on a public address, and this server fetches from no other"
        except ForbiddenHost:
            why = "is on a host that this server does not fetch from"
        except httpx2.TooManyRedirects:
            why = f"was redirected more than {MAX_REDIRECTS} times"
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            why = "is not a valid http(s) URL, or was redirected to something else"
        except httpx2.TransportError:
            why = "could not be fetched: its host can't be reached, or broke the connection"
        raise InvalidMedia(f"The {source.kind} {why}.", param=source.param)

    async def _read(self, url: httpx2.URL, source: MediaSource, budget: _Budget) -> bytes:
        content = bytearray()
        async with self._client.stream("GET", url) as response:
            if not response.is_success:
                raise InvalidMedia(
                    f"The {source.kind} could not be fetched: its host answered {response.status_code}.",
                    param=source.param,
                )
            async for chunk in response.aiter_raw():
                budget.spend(len(chunk), source)
                content += chunk
        if not content:
            raise InvalidMedia(f"The {source.kind} is empty.", param=source.param)
        return bytes(content)
