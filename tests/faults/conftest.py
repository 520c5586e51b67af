"""The whole walk's processes, how often each fault strikes, and what it cost."""

import pytest

from tests.acceptance.conftest import new_stack
from tests.faults.mix import Tally

__all__ = ["new_stack"]

FIGURES = pytest.StashKey[list[str]]()


class Figures:
    """Collects one line for each fault; a fault that cost anybody anything fails its test."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def add(self, name: str, num_rounds: int, stage) -> None:
        tally, stage.tally = stage.tally, Tally()
        counts = (len(tally.lost), len(tally.repeated), len(tally.wrong))
        line = f"{name.replace('_', ' ')}: {num_rounds} rounds, {tally.num_asked} answers, "
        line += "{} lost, {} repeated, {} wrong".format(*counts)
        self._lines.append(line + pauses(tally.pauses_s))
        assert counts == (0, 0, 0), "\n".join([*tally.lost, *tally.repeated, *tally.wrong])


def pauses(pauses_s: list[float]) -> str:
    if not pauses_s:
        return ""
    p50, p95 = (percentile(pauses_s, share) for share in (0.5, 0.95))
    return f"; pause of a stream p50 {p50:.2f} s, p95 {p95:.2f} s, longest {max(pauses_s):.2f} s"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@pytest.fixture(scope="session")
def num_rounds(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--rounds")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.config.stash.setdefault(FIGURES, []))


def pytest_terminal_summary(terminalreporter, config) -> None:
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)
