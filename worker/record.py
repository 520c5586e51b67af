"""When each part of one job began and ended: read by the metrics and the trace once the job is over."""

import time

from shared.job import ChatJob
from shared.tracing import Tracing
from worker.lease import Claim
from worker.metrics import WorkerMetrics


class JobRecord:
    """Marked by the job's task on its way; `close` tells what came of it."""

    def __init__(self, job: ChatJob, claim: Claim, metrics: WorkerMetrics, tracing: Tracing) -> None:
        self._job = job
        self._metrics = metrics
        self._claimed_s = time.time()
        self._span = tracing.start("chat", job.traceparent, kind="consumer", start_s=job.created_s)
        self._attempt = claim.attempt
        self._prepared_s = self._first_s = self._last_s = 0.0
        self._num_prompt_tokens = self._num_tokens = 0
        self._is_fenced = False
        metrics.queue_time.observe(max(self._claimed_s - job.created_s, 0.0))
        if claim.attempt > 1:
            metrics.migrated("worker_lost" if claim.num_lost else "handed_over")

    def prepare(self, num_prompt_tokens: int) -> None:
        """The prompt is ready."""
        self._prepared_s = time.time()
        self._num_prompt_tokens = num_prompt_tokens
        self._metrics.prepare_time.observe(self._prepared_s - self._claimed_s)

    def generate(self, num_tokens: int) -> None:
        """The engine gave some tokens, or none."""
        if not num_tokens:
            return
        self._last_s = time.time()
        if not self._first_s:
            self._first_s = self._last_s
            self._metrics.prompt_tokens.inc(self._num_prompt_tokens)
            self._metrics.prefill_time.observe(self._first_s - self._prepared_s)
        self._num_tokens += num_tokens
        self._metrics.generation_tokens.inc(num_tokens)

    def fence(self) -> None:
        """Somebody else holds the job."""
        if not self._is_fenced:
            self._is_fenced = True
            self._metrics.leases_lost.inc()

    def close(self, outcome: str) -> None:
        """The job is over here, and all that was said of it is published."""
        if self._first_s:
            self._metrics.decode_time.observe(self._last_s - self._first_s)
        self._metrics.ended(outcome)
        self._trace(outcome, time.time())

    def _trace(self, outcome: str, ended_s: float) -> None:
        span = self._span
        span.record("queue wait", self._job.created_s, self._claimed_s)
        if self._prepared_s:
            span.record("prepare", self._claimed_s, self._prepared_s)
        if self._first_s:
            span.record(
                "prefill", self._prepared_s, self._first_s, {"gen_ai.usage.input_tokens": self._num_prompt_tokens}
            )
            span.record("decode", self._first_s, self._last_s, {"gen_ai.usage.output_tokens": self._num_tokens})
        span.record("publish", self._last_s or self._prepared_s or self._claimed_s, ended_s)
        attributes: dict[str, str | int | float] = {
            "baton.job.id": self._job.id,
            "baton.job.attempt": self._attempt,
            "gen_ai.request.model": self._job.asked_model,
            "gen_ai.response.finish_reasons": outcome,
        }
        span.end(attributes)
