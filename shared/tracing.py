"""Traces by OpenTelemetry, from the HTTP request to the engine: on where its standard variables say so, else free.

The libraries are an extra, `otel`; nothing of them is imported unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set. Those variables are OpenTelemetry's own, and it reads the others.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Attributes: TypeAlias = Mapping[str, str | int | float | list[str]]
Kind: TypeAlias = Literal["server", "consumer"]
_NO_ATTRIBUTES: Attributes = {}


class Span(Protocol):
    """Something that takes time, and what it consists of."""

    traceparent: str | None
    """Its W3C trace context, for whoever goes on with it elsewhere."""
    is_recording: bool
    """Whether anything that is told of it arrives anywhere."""

    def record(self, name: str, start_s: float, end_s: float, attributes: Attributes = ...) -> None:
        """Add a part that has ended, between two Unix times."""

    def end(self, attributes: Attributes = ..., *, error: str | None = None) -> None:
        """End it now."""


class Tracing(Protocol):
    """Starts spans; `close` sends what has not been sent."""

    def start(self, name: str, traceparent: str | None, *, kind: Kind, start_s: float | None = None) -> Span:
        """Start a span, as a part of that trace context if there is one."""

    def close(self) -> None:
        """Send what has not been sent."""


class Untraced:
    """A span that nobody records; the client's trace context goes on all the same."""

    is_recording = False

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def record(self, name: str, start_s: float, end_s: float, attributes: Attributes = _NO_ATTRIBUTES) -> None:
        """Record nothing."""

    def end(self, attributes: Attributes = _NO_ATTRIBUTES, *, error: str | None = None) -> None:
        """Record nothing."""


UNTRACED = Untraced(None)


class NoTracing:
    """Tracing switched off."""

    def start(self, name: str, traceparent: str | None, *, kind: Kind, start_s: float | None = None) -> Span:
        """Start nothing."""
        return Untraced(traceparent)

    def close(self) -> None:
        """Send nothing."""


class _Traced:
    def __init__(self, tracer: "Tracer", span: "OtelSpan") -> None:
        context = span.get_span_context()
        self._tracer = tracer
        self._span = span
        self.is_recording = span.is_recording()
        self.traceparent: str | None = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        )

    def record(self, name: str, start_s: float, end_s: float, attributes: Attributes = _NO_ATTRIBUTES) -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(self._span)
        part = self._tracer.start_span(name, context, attributes=dict(attributes), start_time=_ns(start_s))
        part.end(_ns(max(start_s, end_s)))

    def end(self, attributes: Attributes = _NO_ATTRIBUTES, *, error: str | None = None) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(dict(attributes))
        if error is not None:
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end()


class _OtelTracing:
    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("baton")

    def start(self, name: str, traceparent: str | None, *, kind: Kind, start_s: float | None = None) -> Span:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {} if traceparent is None else {"traceparent": traceparent}
        context = TraceContextTextMapPropagator().extract(carrier)
        start_ns = None if start_s is None else _ns(start_s)
        return _Traced(
            self._tracer, self._tracer.start_span(name, context, SpanKind[kind.upper()], start_time=start_ns)
        )

    def close(self) -> None:
        self._provider.shutdown()


@contextmanager
def open_tracing(service: str, instance: str) -> Iterator[Tracing]:
    """Trace as the environment says, until left; `service` is the name unless `OTEL_SERVICE_NAME` gives one."""
    tracing = _tracing(service, instance) if _is_wanted() else NoTracing()
    try:
        yield tracing
    finally:
        tracing.close()


def checked_traceparent(given: str | None) -> str | None:
    """Return a client's trace context if it is one."""
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None


def _is_wanted() -> bool:
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return (
        not is_off and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp" and any(map(os.environ.get, _ENDPOINTS))
    )


def _tracing(service: str, instance: str) -> Tracing:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:  # the variables may be meant for a whole cluster
        logger.warning("no traces: %s is not installed: pip install 'baton[otel]'", error.name)
        return NoTracing()
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.instance.id": instance}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return _OtelTracing(provider)


def _ns(unix_s: float) -> int:
    return int(unix_s * 1e9)
