"""What a worker tells Prometheus: its engine and its jobs, under the field's names, on a port of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.engine.engine import EngineStats

PHASE_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 600)


class PortTaken(RuntimeError):
    """Prometheus can't be answered there."""


class WorkerMetrics:
    """The counters of one worker and its one model, in a registry of their own."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of the prompts that were prefilled.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens that were generated.")
        self.leases_lost = self._counter("leases_lost", "Jobs that another worker took away from this one.")
        self.redis_reconnects = self._counter("redis_reconnects", "Commands tried again on Redis.")
        self.migrations = Counter(
            "baton:model_migration",
            "Jobs continued here that another worker began: `worker_lost`, or `handed_over` by a draining one.",
            ("model_name", "migration_type"),
            registry=self.registry,
        )
        self.jobs = Counter(
            "baton:jobs",
            "Jobs that ended here, by finish reason or error code.",
            ("model_name", "outcome"),
            registry=self.registry,
        )
        self.queue_time = self._phase("request_queue_time", "Time from acceptance to the claim.")
        self.prepare_time = self._phase("request_prepare_time", "Time to decode the media and render the prompt.")
        self.prefill_time = self._phase("request_prefill_time", "Time from the finished prompt to the first token.")
        self.decode_time = self._phase("request_decode_time", "Time from the first token to the last.")

    def watch(self, num_jobs: Callable[[], int], stats: Callable[[], EngineStats]) -> None:
        """Show the jobs held and where the engine stands, read at each scrape in the scraper's thread."""
        self.registry.register(_Engine(self._model, num_jobs, stats))

    def migrated(self, migration_type: str) -> None:
        """Count a job that another worker began."""
        self.migrations.labels(self._model, migration_type).inc()

    def ended(self, outcome: str) -> None:
        """Count a job that ended."""
        self.jobs.labels(self._model, outcome).inc()

    @contextmanager
    def served(self, host: str, port: int | None) -> Iterator[None]:
        """Answer Prometheus in a thread until left; not at all without a port."""
        if port is None:
            yield
            return
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise PortTaken(f"--metrics_port {port} of {host} can't be listened on: {error.strerror}") from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _counter(self, name: str, words: str) -> Counter:
        return Counter(f"baton:{name}", words, ("model_name",), registry=self.registry).labels(self._model)

    def _phase(self, name: str, words: str) -> Histogram:
        histogram = Histogram(
            f"baton:{name}_seconds", words, ("model_name",), registry=self.registry, buckets=PHASE_BUCKETS_S
        )
        return histogram.labels(self._model)


class _Engine(Collector):
    """What the engine counts by itself."""

    def __init__(self, model: str, num_jobs: Callable[[], int], stats: Callable[[], EngineStats]) -> None:
        self._model = model
        self._num_jobs = num_jobs
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield each number as it is now."""
        stats = self._stats()
        media = stats.media
        gauge, counter = GaugeMetricFamily, CounterMetricFamily
        yield self._told(gauge, "num_requests_running", "Jobs that this worker holds.", self._num_jobs())
        yield self._told(gauge, "num_sequences_waiting", "Sequences that no row is free for.", stats.num_waiting)
        yield self._told(gauge, "mm_cache_usage_bytes", "Size of the media features kept.", media.size_bytes)
        yield self._told(counter, "prefix_cache_queries", "Prompt tokens looked for in rows.", stats.prompt_tokens)
        yield self._told(counter, "prefix_cache_hits", "Of these, tokens found in a row.", stats.cached_tokens)
        yield self._told(counter, "mm_cache_queries", "Pieces of media looked for.", media.hits + media.misses)
        yield self._told(counter, "mm_cache_hits", "Of these, pieces that were not encoded again.", media.hits)

    def _told(
        self, family: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, words: str, number: float
    ) -> Metric:
        metric = family(f"baton:{name}", words, labels=("model_name",))
        metric.add_metric([self._model], number)
        return metric
