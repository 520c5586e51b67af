"""The port to listen on: the one that was asked for, or the next free one where none was."""

import errno
import socket

import psutil

NUM_TRIED = 100


class PortTaken(Exception):
    """Nobody can listen there now; the message says why."""


def choose_port(host: str, port: int, *, is_named: bool) -> int:
    """Return a free port: `port` itself if it was named, else the first free one from there on.

    Raises PortTaken.
    """
    candidates = [port] if is_named else range(port, min(port + NUM_TRIED, 65536))
    for candidate in candidates:
        try:
            return _bind(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PortTaken(f"can't listen on {host} port {candidate}: {error.strerror}") from error
    if is_named:
        raise PortTaken(f"port {port} is taken{_by_whom(port)}; name another one with --port")
    raise PortTaken(f"ports {port} to {candidates[-1]} are all taken; name one with --port")


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections don't count
        probe.bind(address)
        bound: int = probe.getsockname()[1]
        return bound


def _by_whom(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
        pids = [c.pid for c in connections if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN]
        return next((f" by {psutil.Process(pid).name()} (process {pid})" for pid in pids if pid), "")
    except psutil.Error:  # not ours to see
        return ""
