"""When each part of one job began and ended: read by the metrics and the trace once the job is over."""

import time

from shared.job import ChatJob
from shared.tracing import Attributes, Tracing
from worker.choices import Choices
from worker.engine.thread import Step
from worker.lease import Claim
from worker.metrics import WorkerMetrics
from worker.steps import Steps


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
        self._choices: Choices | None = None
        self._steps = Steps() if self._span.is_recording else None
        self._is_fenced = False
        metrics.queue_time.observe(max(self._claimed_s - job.created_s, 0.0))
        if claim.attempt > 1:
            metrics.migrated("worker_lost" if claim.num_lost else "handed_over")

    def prepare(self, num_prompt_tokens: int) -> None:
        """The prompt is ready."""
        self._prepared_s = time.time()
        self._num_prompt_tokens = num_prompt_tokens
        self._metrics.prepare_time.observe(self._prepared_s - self._claimed_s)

    def submit(self, choices: Choices) -> None:
        """The engine is to answer."""
        self._choices = choices

    def generate(self, num_tokens: int, step: Step) -> None:
        """The engine gave some tokens, or none."""
        if not num_tokens:
            return
        self._last_s = time.time()
        if not self._first_s:
            self._first_s = self._last_s
            self._metrics.prompt_tokens.inc(self._num_prompt_tokens)
            self._metrics.prefill_time.observe(self._first_s - self._prepared_s)
        if self._steps is not None:
            self._steps.note(step)
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
        if self._steps is None:
            return
        span = self._span
        span.record("queue wait", self._job.created_s, self._claimed_s)
        if self._prepared_s:
            span.record("prepare", self._claimed_s, self._prepared_s)
        if self._first_s:
            self._trace_steps(self._steps)
        span.record("publish", self._last_s or self._prepared_s or self._claimed_s, ended_s)
        span.end(self._attributes(outcome))

    def _trace_steps(self, steps: Steps) -> None:
        self._span.record("prefill", self._prepared_s, self._first_s, self._read())
        for began_s, ended_s, attributes in steps:
            self._span.record("engine step", began_s, ended_s, attributes)
        said = {"gen_ai.usage.output_tokens": self._num_tokens, **steps.attributes}
        self._span.record("decode", self._first_s, self._last_s, said)

    def _read(self) -> Attributes:
        assert self._choices is not None, "tokens came of nothing"
        return {
            "gen_ai.usage.input_tokens": self._num_prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": self._choices.cached_tokens,
            "baton.engine.num_chunks": self._choices.num_chunks,
        }

    def _attributes(self, outcome: str) -> Attributes:
        return {
            "baton.job.id": self._job.id,
            "baton.job.attempt": self._attempt,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self._job.asked_model,
            "gen_ai.response.id": self._job.id,
            "gen_ai.response.finish_reasons": [outcome],
            "gen_ai.usage.input_tokens": self._num_prompt_tokens,
            "gen_ai.usage.output_tokens": self._num_tokens,
        }
