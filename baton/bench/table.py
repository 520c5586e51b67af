"""Shows a report in the terminal: figures, and how the times to the first token are spread."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from baton.bench.report import Distribution, Report

NUM_BINS = 12
BAR_WIDTH = 48
ENOUGH_LAG_MS = 20.0
"""The client's own delay (p99) from which on its figures are not to be trusted."""
ENOUGH_CORE = 0.9


def show(report: Report, ttfts_s: Sequence[float]) -> None:
    """Print everything."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # whoever reads it then counts no columns
    console.print(f"\n{', '.join(report.models)} at {report.url}: {report.load}", markup=False)
    console.print(_times(report))
    console.print(_rates(report))
    if len(report.models) > 1:
        console.print(_mix(report))
    if len(ttfts_s) > 1:
        console.print("time to first token", style="bold")
        console.print(histogram([1000 * seconds for seconds in ttfts_s]), markup=False)
    if warning := doubt(report):
        console.print(warning, style="yellow", markup=False)


def histogram(ms: Sequence[float]) -> str:
    """Draw bars, one a line; the last one also has whatever is above the 99th percentile."""
    ordered = sorted(ms)
    least, most = ordered[0], ordered[int(len(ordered) * 0.99)]
    width = (most - least) / NUM_BINS or 1.0
    counts = [0] * NUM_BINS
    for time in ordered:
        counts[min(NUM_BINS - 1, int((time - least) / width))] += 1
    return "\n".join(
        f"{least + index * width:9.1f} ms {'█' * round(BAR_WIDTH * number / max(counts)):{BAR_WIDTH}} {number}"
        for index, number in enumerate(counts)
    )


def doubt(report: Report) -> str:
    """Say why the figures may be the client's rather than the server's; empty if nothing speaks for it."""
    lag = report.client.loop_lag_ms
    if report.client.core_share > ENOUGH_CORE:
        return "This client used a whole core: the server may be faster than these figures."
    if lag is not None and lag.p99 > ENOUGH_LAG_MS:
        return f"This client woke up as much as {lag.p99:.0f} ms late (p99): short times are too long by that much."
    return ""


def _times(report: Report) -> Table:
    table = Table("ms", *(Column(name, justify="right") for name in ("mean", "p50", "p90", "p99", "max")), box=None)
    named = {
        "time to first token": report.ttft_ms,
        "between chunks (ITL)": report.itl_ms,
        "per token after the first (TPOT)": report.tpot_ms,
        "end to end": report.e2e_ms,
    }
    for name, times in named.items():
        if times is not None:
            table.add_row(name, *_figures(times))
    return table


def _figures(times: Distribution) -> list[str]:
    return [f"{time:.1f}" for time in (times.mean, times.p50, times.p90, times.p99, times.max)]


def _rates(report: Report) -> Table:
    table = Table(show_header=False, box=None)
    table.add_row("answered", f"{report.num_answered} of {report.num_requests} in {report.duration_s:.1f} s")
    for kind, number in report.errors.items():
        table.add_row("  error", f"{number} x {kind}", style="red")
    table.add_row("requests/s", f"{report.requests_per_s:.2f}")
    table.add_row("answer tokens/s", f"{report.tokens_per_s:.0f} ({_counting(report)})")
    cached = f", {report.cached_tokens} of {report.prompt_tokens} from a cache" if report.cached_tokens else ""
    table.add_row("prompt tokens/s", f"{report.prompt_tokens_per_s:.0f}{cached}")
    table.add_row("chunks/s", f"{report.chunks_per_s:.0f}")
    if (good := report.goodput) is not None:
        limits = ", ".join(f"{name} <= {limit:g} ms" for name, limit in good.limits_ms.items())
        table.add_row("goodput", f"{good.requests_per_s:.2f} requests/s, {good.share:.1%} within {limits}")
    table.add_row("this client", _client(report))
    return table


def _counting(report: Report) -> str:
    match report.tokens_counted_by:
        case "usage":
            return "as the server counts them"
        case "chunks":
            return "chunks: the server does not count tokens"
        case "both":
            return "as the server counts them, or chunks where it does not"


def _client(report: Report) -> str:
    client = report.client
    lag = "" if client.loop_lag_ms is None else f"; woke up {client.loop_lag_ms.p99:.1f} ms late (p99)"
    late = "" if client.send_lateness_ms is None else f"; sent {client.send_lateness_ms.p99:.1f} ms late (p99)"
    return f"{client.core_share:.0%} of a core{lag}{late}"


def _mix(report: Report) -> Table:
    table = Table("model", "answered", "TTFT p50 ms", "p99", "end to end p50 ms", "p99", box=None)
    for name, share in report.models.items():
        times = [_median_and_tail(times) for times in (share.ttft_ms, share.e2e_ms)]
        table.add_row(name, f"{share.num_answered} of {share.num_requests}", *times[0], *times[1])
    return table


def _median_and_tail(times: Distribution | None) -> tuple[str, str]:
    return ("", "") if times is None else (f"{times.p50:.1f}", f"{times.p99:.1f}")
