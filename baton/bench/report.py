"""From measurements to figures. Pure; the fields are the JSON that scripts read, so they only ever grow in number."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, Self

import msgspec

from baton.bench.gauge import Gauge
from baton.bench.measurement import Measurement

VERSION = 1


class Distribution(msgspec.Struct, frozen=True):
    """Of a set of times in ms."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float | None]) -> Self | None:
        """Sum up what is there; None if nothing is."""
        ms = sorted(1000 * time for time in seconds if time is not None)
        if not ms:
            return None
        p50, p90, p99 = (ms[int(len(ms) * share)] for share in (0.5, 0.9, 0.99))
        return cls(sum(ms) / len(ms), p50, p90, p99, ms[-1])


class Goodput(msgspec.Struct, frozen=True):
    """The requests that met every limit."""

    limits_ms: dict[str, float]
    num_requests: int
    requests_per_s: float
    share: float
    """Of all requests, failed ones among them."""


class Client(msgspec.Struct, frozen=True):
    """What the load generator itself did."""

    core_share: float
    loop_lag_ms: Distribution | None
    send_lateness_ms: Distribution | None
    """How long after it was due each request was sent."""


class ModelShare(msgspec.Struct, frozen=True):
    """One model of a mix."""

    num_requests: int
    num_answered: int
    ttft_ms: Distribution | None
    e2e_ms: Distribution | None


class Report(msgspec.Struct, frozen=True):
    """Everything that one run showed. Rates are over the time from the first request to the last answer."""

    version: int
    began: str
    """Local time, ISO 8601."""
    url: str
    models: dict[str, ModelShare]
    load: str
    """The kind of load in words."""
    seed: int
    duration_s: float
    num_requests: int
    num_answered: int
    errors: dict[str, int]
    requests_per_s: float
    tokens_per_s: float
    """Of whole answers, as all counts of tokens and chunks."""
    prompt_tokens_per_s: float
    chunks_per_s: float
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    tokens_counted_by: Literal["usage", "chunks", "both"]
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    tpot_ms: Distribution | None
    e2e_ms: Distribution | None
    goodput: Goodput | None
    client: Client


def report(
    measurements: Sequence[Measurement],
    gauge: Gauge,
    *,
    began: str,
    url: str,
    load: str,
    seed: int,
    limits_ms: dict[str, float],
) -> Report:
    """Sum up a run of at least one request."""
    answered = [m for m in measurements if m.is_answered]
    began_s = min(m.sent_s for m in measurements)
    duration_s = max([m.ended_s or m.sent_s for m in measurements]) - began_s or 1e-9
    answer_tokens, prompt_tokens = sum(m.num_tokens for m in answered), sum(m.prompt_tokens for m in answered)
    return Report(
        version=VERSION,
        began=began,
        url=url,
        models=_models(measurements),
        load=load,
        seed=seed,
        duration_s=duration_s,
        num_requests=len(measurements),
        num_answered=len(answered),
        errors=dict(Counter(m.error for m in measurements if m.error is not None).most_common()),
        requests_per_s=len(answered) / duration_s,
        tokens_per_s=answer_tokens / duration_s,
        prompt_tokens_per_s=prompt_tokens / duration_s,
        chunks_per_s=sum(m.num_chunks for m in answered) / duration_s,
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(m.cached_tokens for m in answered),
        answer_tokens=answer_tokens,
        tokens_counted_by=_counted_by(answered),
        ttft_ms=Distribution.of(m.ttft_s for m in answered),
        itl_ms=Distribution.of(gap for m in answered for gap in m.gaps_s),
        tpot_ms=Distribution.of(m.tpot_s for m in answered),
        e2e_ms=Distribution.of(m.e2e_s for m in answered),
        goodput=_goodput(measurements, limits_ms, duration_s) if limits_ms else None,
        client=Client(
            core_share=gauge.core_share,
            loop_lag_ms=Distribution.of(gauge.lags_s),
            send_lateness_ms=Distribution.of(m.sent_s - m.due_s for m in measurements),
        ),
    )


def _models(measurements: Sequence[Measurement]) -> dict[str, ModelShare]:
    names = sorted({m.model for m in measurements})
    return {name: _share([m for m in measurements if m.model == name]) for name in names}


def _share(measurements: Sequence[Measurement]) -> ModelShare:
    answered = [m for m in measurements if m.is_answered]
    return ModelShare(
        num_requests=len(measurements),
        num_answered=len(answered),
        ttft_ms=Distribution.of(m.ttft_s for m in answered),
        e2e_ms=Distribution.of(m.e2e_s for m in answered),
    )


def _counted_by(answered: Sequence[Measurement]) -> Literal["usage", "chunks", "both"]:
    match {m.usage_tokens is None for m in answered}:
        case kinds if len(kinds) == 2:
            return "both"
        case kinds:
            return "chunks" if True in kinds else "usage"


def _goodput(measurements: Sequence[Measurement], limits_ms: dict[str, float], duration_s: float) -> Goodput:
    num_good = sum(_is_good(m, limits_ms) for m in measurements)
    return Goodput(limits_ms, num_good, num_good / duration_s, num_good / len(measurements))


def _is_good(measurement: Measurement, limits_ms: dict[str, float]) -> bool:
    """Whether it met the limits; an answer of one token has no time between tokens, and meets that one."""
    times_s = {"ttft": measurement.ttft_s, "itl": measurement.tpot_s, "e2e": measurement.e2e_s}
    return measurement.is_answered and all((times_s[name] or 0) * 1000 <= limit for name, limit in limits_ms.items())
