"""The gateway's port: whether a gateway answers there, somebody else, or nobody."""

import socket
from importlib.metadata import version

import httpx2

from baton.curl import base_url
from baton.doctor.finding import Colour, Finding

AREA = "gateway"
TIMEOUT_S = 5.0


def look_at_gateway(host: str, port: int) -> list[Finding]:
    """Return what is found at the gateway's address."""
    url = base_url(host, port)
    if not _is_listening(url):
        return [Finding(AREA, "port", Colour.GREEN, f"port {port} is free: no gateway runs here")]
    try:
        live = httpx2.get(f"{url}/health/live", timeout=TIMEOUT_S, trust_env=False).raise_for_status().json()
        ready = httpx2.get(f"{url}/health/ready", timeout=TIMEOUT_S, trust_env=False)
        said, is_ready = ready.json(), ready.is_success
        running = live["version"]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError):
        advice = "stop it, or give the gateway another --port"
        return [Finding(AREA, "port", Colour.RED, f"something else listens on port {port}", advice)]
    return [_version(running), _ready(said, is_ready=is_ready)]


def _version(running: str) -> Finding:
    if running == version("baton"):
        return Finding(AREA, "version", Colour.GREEN, f"baton {running}")
    return Finding(
        AREA, "version", Colour.YELLOW, f"baton {running}", f"this machine has {version('baton')}; restart the gateway"
    )


def _ready(said: dict[str, object], *, is_ready: bool) -> Finding:
    if is_ready:
        return Finding(AREA, "ready", Colour.GREEN, f"serves {', '.join(map(str, said.get('models', ())))}")  # type: ignore[call-overload]
    return Finding(AREA, "ready", Colour.YELLOW, f"not ready: {said.get('reason', 'it does not say why')}")


def _is_listening(url: str) -> bool:
    parts = httpx2.URL(url)
    try:
        socket.create_connection((parts.host, parts.port or 80), TIMEOUT_S).close()
    except OSError:
        return False
    return True
