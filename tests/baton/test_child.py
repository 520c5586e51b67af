import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from baton.child import Child
from baton.restart import MAX_QUICK_DEATHS, keep_alive


@asynccontextmanager
async def child(directory: Path, source: str) -> AsyncIterator[tuple[Child, list[str]]]:
    """A child that runs this source, and the lines it has said so far."""
    (directory / "spoken.py").write_text(source)
    lines: list[str] = []
    spoken = Child("it", "spoken", os.environ | {"PYTHONPATH": str(directory)}, lambda _, line: lines.append(line))
    try:
        yield spoken, lines
    finally:
        spoken.signal(signal.SIGKILL)


async def test_progress_bar_leaves_its_last_state_only(tmp_path: Path) -> None:
    async with child(tmp_path, "print('begin\\n 1%\\r 50%\\r100%\\nend')") as (spoken, lines):
        await spoken.start()

        assert await spoken.wait() == "ended with status 0"
        assert lines == ["begin", "100%", "end"]


async def test_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    bar = "for n in range(200_000): print(f'{n:8}', end='\\r')"
    async with child(tmp_path, bar) as (spoken, lines):
        await spoken.start()
        await spoken.wait()

        assert lines == ["  199999"]


async def test_broken_bytes_are_shown_as_such(tmp_path: Path) -> None:
    async with child(tmp_path, "import sys; sys.stdout.buffer.write(b'caf\\xc3\\xa9 \\xff')") as (spoken, lines):
        await spoken.start()
        await spoken.wait()

        assert lines == ["café \ufffd"]


async def test_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(60)"
    async with child(tmp_path, deaf) as (spoken, lines):
        await spoken.start()
        async with asyncio.timeout(10):
            while not lines:
                await asyncio.sleep(0.01)

        await spoken.stop(grace_s=0.2)

        assert await spoken.wait() == "was killed by SIGKILL"


async def test_child_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    said: list[str] = []
    async with child(tmp_path, "raise SystemExit(3)") as (spoken, _):
        await spoken.start()
        await keep_alive(spoken, said.append, first_pause_s=0.01)

    assert len(said) == MAX_QUICK_DEATHS
    assert said[0] == "it ended with status 3; starting it again in 0.01 s"
    assert said[-1] == "it ended with status 3, for the 5th time in a row; it is not started again"
