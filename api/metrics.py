"""What a gateway tells Prometheus: its requests as their clients saw them, under the field's names."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from shared.errors import JobError
from shared.events import Failed, Finished, JobEvent, TextDelta
from shared.job import ChatJob

MODEL = ("model_name",)
"""A model or adapter that is served; names that clients invent never become labels."""
LEFT = "cancelled"
TTFT_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 3.5, 5, 10, 20, 40, 80, 160, 600)
ITL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.35, 0.5, 1, 2, 5, 10)
E2E_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 10, 15, 30, 60, 120, 240, 600, 1800)
HTTP_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class GatewayMetrics:
    """The counters of one gateway, in a registry of their own; names end as vLLM's and SGLang's do."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.http_requests = Counter(
            "baton:http_requests", "Answered HTTP requests.", ("method", "path", "status"), registry=own
        )
        self.http_duration = Histogram(
            "baton:http_request_duration_seconds",
            "Time to the last byte of the answer.",
            ("path",),
            registry=own,
            buckets=HTTP_BUCKETS_S,
        )
        self.rejections = Counter(
            "baton:admission_rejections",
            "Requests refused with 429: `queue` of the model, `waiting`, `open` or `rate` of the API key.",
            ("reason",),
            registry=own,
        )
        self.successes = Counter(
            "baton:request_success", "Answers that were finished.", (*MODEL, "finished_reason"), registry=own
        )
        self.failures = Counter(
            "baton:request_failure",
            "Accepted requests without a finished answer, by error code; `cancelled` is a client that left.",
            (*MODEL, "code"),
            registry=own,
        )
        self.open = Gauge("baton:num_requests_open", "Accepted requests not ended.", MODEL, registry=own)
        self.waiting = Gauge(
            "baton:num_requests_waiting",
            "Requests in the model's queue; every gateway says the same.",
            MODEL,
            registry=own,
        )
        self.ttft = _histogram("time_to_first_token", "Time from acceptance to the first token.", TTFT_BUCKETS_S, own)
        self.itl = _histogram("inter_token_latency", "Time between tokens, as they arrive here.", ITL_BUCKETS_S, own)
        self.e2e = _histogram("e2e_request_latency", "Time from acceptance to the end.", E2E_BUCKETS_S, own)
        self.requeues = Counter("baton:requeues", "Jobs queued again after Redis forgot them.", registry=own)
        self.batch_lines = Counter(
            "baton:batch_lines",
            "Lines of batches that were written down: `completed`, `failed`.",
            ("outcome",),
            registry=own,
        )
        self.redis_reconnects = Counter("baton:redis_reconnects", "Commands tried again on Redis.", registry=own)

    def account(self, job: ChatJob) -> "Account":
        """Open the account of one accepted job."""
        return Account(self, job)

    def show_waiting(self, lengths: Iterable[tuple[str, int]]) -> None:
        """Say how long each model's queue is."""
        self.waiting.clear()
        for model, length in lengths:
            self.waiting.labels(model).set(length)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return the page that Prometheus scrapes, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class Account:
    """What is counted of one job; left without an ending, its client has left."""

    def __init__(self, metrics: GatewayMetrics, job: ChatJob) -> None:
        model = job.asked_model
        self._metrics = metrics
        self._model = model
        self._created_s = job.created_s
        self._last_s: float | None = None
        self._itl = metrics.itl.labels(model)
        self._outcome: str | None = None

    def __enter__(self) -> Self:
        self._metrics.open.labels(self._model).inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.open.labels(self._model).dec()
        if self._outcome is None:
            self._fail(error.code if isinstance(error, JobError) else LEFT)

    def note(self, events: list[JobEvent]) -> None:
        """Take what arrived at once."""
        num_tokens = sum(len(event.token_ids) for event in events if isinstance(event, TextDelta))
        if num_tokens:
            self._note_tokens(num_tokens)
        match events[-1] if events else None:
            case Finished(reason=reason):
                self._outcome = reason
                self._metrics.successes.labels(self._model, reason).inc()
                self._metrics.e2e.labels(self._model).observe(max(time.time() - self._created_s, 0.0))
            case Failed(code=code):
                self._fail(code)
            case _:
                pass

    def _note_tokens(self, num_tokens: int) -> None:
        now_s = time.perf_counter()
        if self._last_s is None:
            self._metrics.ttft.labels(self._model).observe(max(time.time() - self._created_s, 0.0))
        else:
            self._itl.observe((now_s - self._last_s) / num_tokens)
        self._last_s = now_s

    def _fail(self, code: str) -> None:
        self._outcome = code
        self._metrics.failures.labels(self._model, code).inc()


def _histogram(name: str, words: str, buckets: tuple[float, ...], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"baton:{name}_seconds", words, MODEL, registry=registry, buckets=buckets)
