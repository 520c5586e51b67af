"""Where one request stands and what to ask next: a server of several, and how to go on with a stream that broke."""

import time
from typing import Any

import httpx2

from baton.client.endpoint import Endpoint
from baton.client.error import HTTPError

RESUME_S = 30.0
"""A stream that nobody goes on with for this long is given up."""
PAUSE_S = 0.3
"""Pause after all servers were asked in vain."""
LEAVING = "server_stopping"
"""The code by which a server says that another one can go on."""

_JSON = {"Content-Type": "application/json"}


class Course:
    """One request on its way through the servers of an endpoint; created for it, and told how each try ended."""

    def __init__(self, endpoint: Endpoint, path: str, body: bytes) -> None:
        self._urls = endpoint.urls
        self._path = path
        self._body = body
        self._num_tries = 0
        self._broken_s: float | None = None
        self._completion_id = self._last_event_id = ""

    def request(self) -> dict[str, Any]:
        """Return what to ask now: for the answer, or for what follows of it."""
        url = f"{self._urls[self._num_tries % len(self._urls)]}/{self._path}"
        if not self._last_event_id:
            return {"method": "POST", "url": url, "content": self._body, "headers": _JSON}
        headers = {"Last-Event-ID": self._last_event_id}
        url = f"{url}/{self._completion_id}/events"
        return {"method": "GET", "url": url, "params": {"include_usage": "true"}, "headers": headers}

    def note(self, completion_id: str, event_id: str) -> None:
        """Take down how far the answer was heard."""
        self._completion_id, self._last_event_id, self._broken_s = completion_id, event_id, None

    def detour_s(self, error: Exception) -> float:
        """Return how long to wait before another try, or raise the error if none would help."""
        self._num_tries += 1
        has_asked_all = self._num_tries % len(self._urls) == 0
        if not self._last_event_id:  # nothing was heard, so that nothing can be heard twice
            if self._num_tries < len(self._urls) and _is_elsewhere_better(error):
                return 0.0
            raise error
        if isinstance(error, httpx2.TimeoutException) and has_asked_all:
            raise error
        if self._broken_s is None:
            self._broken_s = time.monotonic()
        if time.monotonic() > self._broken_s + RESUME_S or (isinstance(error, HTTPError) and not _may_pass(error)):
            raise error
        return PAUSE_S if has_asked_all else 0.0


def _is_elsewhere_better(error: Exception) -> bool:
    """Whether it was this server, and not the request, that kept the answer from coming."""
    if isinstance(error, HTTPError):
        return error.code == LEAVING
    return not isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)


def _may_pass(error: HTTPError) -> bool:
    """Whether another server, or the same one later, might still go on."""
    return error.code == LEAVING or error.status_code in {502, 503}
