"""One HTTP request as its observers know it: the access log, the metrics and the trace are written here."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.keyring import ANYBODY, OPEN_PATHS, Caller
from api.metrics import GatewayMetrics
from shared.logs import current_job
from shared.tracing import Span, Tracing, Untraced, checked_traceparent

logger = logging.getLogger("api.access")

METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
UNMATCHED = "unmatched"
CLIENT_LEFT = 499
"""What is noted of a request whose client left before the first byte, as nginx has it."""


@dataclass(slots=True)
class Visit:
    """Filled in on the request's way through the gateway."""

    span: Span
    caller: Caller = ANYBODY
    job_id: str = ""
    status: int = CLIENT_LEFT
    name: str = field(default_factory=lambda: uuid4().hex)
    """What the ids of its jobs are made of."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the client calls the request: told in its trace only."""


class VisitLog:
    """The outermost layer: sees every request, and every answer to its last byte."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and write down what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gateway = scope["app"].state.gateway
        visit = Visit(_start(gateway.tracing, scope))
        scope.setdefault("state", {})["visit"] = visit
        began_s = time.perf_counter()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            _write_down(visit, scope, gateway.metrics, time.perf_counter() - began_s)


def visit_of(request: Request) -> Visit:
    """What is known of the request."""
    visit: Visit = request.state.visit
    return visit


def enter_job(visit: Visit, job_id: str) -> None:
    """Say which job the request became; from here on the log lines of its task name it."""
    visit.job_id = job_id
    current_job.set(job_id)


def label(visit: Visit, user: str | None, metadata: Mapping[str, str] | None = None) -> None:
    """Note what the client calls the request and its own customer."""
    customer = {} if user is None else {"enduser.id": user}
    visit.labels = customer | {f"baton.metadata.{name}": value for name, value in (metadata or {}).items()}


def _start(tracing: Tracing, scope: Scope) -> Span:
    if scope["path"] in OPEN_PATHS:
        return Untraced(None)
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
    return tracing.start(f"{_method(scope)} request", checked_traceparent(given), kind="server")


def _write_down(visit: Visit, scope: Scope, metrics: GatewayMetrics, took_s: float) -> None:
    route = getattr(scope.get("route"), "path", UNMATCHED)  # what was typed may be anything
    metrics.http_requests.labels(_method(scope), route, str(visit.status)).inc()
    metrics.http_duration.labels(route).observe(took_s)
    facts = {"method": _method(scope), "route": route, "status": visit.status, "took_s": round(took_s, 4)}
    facts |= {"key": visit.caller.name} if visit.caller.name else {}
    client = scope["client"][0] if scope.get("client") else "-"
    level = logging.DEBUG if scope["path"] in OPEN_PATHS else logging.INFO
    logger.log(
        level,
        *("%s %s %s %d in %.3f s%s", client, _method(scope), route, visit.status, took_s),
        f", key {visit.caller.name}" if visit.caller.name else "",
        extra={"job": visit.job_id, "fields": facts | {"client": client}},
    )
    attributes = {"http.request.method": _method(scope), "http.route": route, "http.response.status_code": visit.status}
    attributes |= visit.labels
    error = f"HTTP {visit.status}" if visit.status >= 500 else None
    visit.span.end(attributes | ({"baton.job.id": visit.job_id} if visit.job_id else {}), error=error)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "other"
