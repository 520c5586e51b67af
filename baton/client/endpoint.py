"""Where a server is, how to be let in, and in plain words what kept a request from its answer."""

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx2

from baton.curl import base_url

DEFAULT_TIMEOUT_S = 1800.0
TIMEOUT_VARIABLE = "TIMEOUT"
"""The name that scripts for ms-swift set."""
LOOPBACK = ("127.", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server, or several that share their workers; each `url` ends in /v1."""

    urls: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    """The longest silence; None is no limit."""

    @property
    def url(self) -> str:
        """The server that is asked first."""
        return self.urls[0]

    def open(self) -> httpx2.Client:
        """Return a client for this server; whoever opens it closes it."""
        return httpx2.Client(**self._options())

    def open_async(self, max_connections: int | None = None) -> httpx2.AsyncClient:
        """Return a client for this server that holds at most so many connections."""
        limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        return httpx2.AsyncClient(limits=limits, **self._options())

    def _options(self) -> dict[str, Any]:
        host = httpx2.URL(self.url).host
        return {
            "base_url": self.url,
            "headers": {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"},
            "timeout": httpx2.Timeout(self.timeout_s, pool=None),
            "trust_env": not host.startswith(LOOPBACK),  # a proxy can't reach this machine
            "verify": _tls(),
        }


def endpoint_of(
    host: str,
    port: str | int,
    api_key: str | None = None,
    url: str | Sequence[str] | None = None,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> Endpoint:
    """Return the server at `url`, which ends in /v1, or those at several, or else at host and port.

    Raises ValueError.
    """
    named = (f"{base_url(host, int(port))}/v1",) if url is None else (url,) if isinstance(url, str) else tuple(url)
    if not named:
        raise ValueError("no URL of a server is named")
    for each in named:
        _check_url(each)
    return Endpoint(tuple(each.rstrip("/") for each in named), api_key, timeout_s)


def _check_url(named: str) -> None:
    try:
        parsed = httpx2.URL(named)
    except httpx2.InvalidURL as error:
        raise ValueError(f"{named} is not a URL: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"{named} is not the URL of a server; it looks like http://127.0.0.1:8000/v1")


def timeout_from_environment() -> float | None:
    """Return the seconds that the variable TIMEOUT allows; 0 and below is no limit. Raises ValueError."""
    said = os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_S)
    try:
        timeout_s = float(said)
    except ValueError:
        raise ValueError(f"the variable TIMEOUT is {said!r}; it has to be a number of seconds") from None
    return timeout_s if timeout_s > 0 else None


@contextmanager
def plain_errors(endpoint: Endpoint) -> Iterator[None]:
    """Raise ConnectionError and TimeoutError, which name the server, for what the HTTP library raises."""
    try:
        yield
    except httpx2.ConnectError as error:
        raise ConnectionError(
            f"no server answers at {' or '.join(endpoint.urls)} ({error}); `baton deploy` starts one"
        ) from None
    except httpx2.TimeoutException:
        raise TimeoutError(f"the server at {endpoint.url} was silent for {endpoint.timeout_s:g} s") from None
    except httpx2.RequestError as error:
        raise ConnectionError(f"the connection to {endpoint.url} broke: {error}") from None


@cache
def _tls() -> ssl.SSLContext:
    """Read the certificates once; a client for each call would cost tens of milliseconds."""
    return httpx2.create_ssl_context()
