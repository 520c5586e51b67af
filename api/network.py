"""Which hosts the gateway may connect to when it fetches media: those on the public internet.

The check stands where connections are opened, so that names, redirects and rebinding DNS all meet it.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore2

IPAddress = IPv4Address | IPv6Address

_NOT_HOSTS = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
"""Protocols' own addresses, some of which clouds keep secrets behind; Python calls them global."""
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


class ForbiddenAddress(Exception):
    """The host has an address that nothing may be fetched from."""


class ForbiddenHost(Exception):
    """The host is none of those that media may be fetched from."""


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Opens connections to admitted addresses; it resolves each name once and connects to what it checked."""

    def __init__(self, admits: Callable[[IPAddress], bool], hosts: Sequence[str] = ()) -> None:
        self._admits = admits
        self._hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the host's first address that answers; raise ForbiddenAddress if any is not admitted.

        Raises ForbiddenHost where only some hosts are allowed, and this is none of them.
        """
        if self._hosts and not self._lists(host.lower().rstrip(".")):
            raise ForbiddenHost(host)
        addresses = await _resolve(host, port)
        if not all(self._admits(ip_address(address)) for address in addresses):
            raise ForbiddenAddress(host)
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    def _lists(self, host: str) -> bool:
        return any(host.endswith(h[1:]) if h.startswith("*.") else host == h for h in self._hosts)

    async def sleep(self, seconds: float) -> None:
        """Wait between the library's own retries."""
        await self._network.sleep(seconds)


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} does not resolve") from error
    return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


def is_public(address: IPAddress) -> bool:
    """Whether an address, or the IPv4 address it carries, is one host on the public internet."""
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_public(embedded)
        if address not in _GLOBAL_V6:
            return False
    elif any(address in network for network in _NOT_HOSTS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a transition mechanism (mapped, 6to4, Teredo, NAT64) would send packets to."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
