"""How much memory this process may still take on its machine, whoever sets the limit."""

import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

_PROCESS = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))
"""Limits of a process, and what is counted against each, by its name in /proc/self/status."""


def free_bytes() -> int:
    """Return what the machine has left, or less where a control group or a limit of the process (`ulimit`) says so."""
    return max(0, min(psutil.virtual_memory().available, *left_by_groups(), *_left_by_limits()))


def resident_bytes() -> int:
    """Return what this process has in memory."""
    resident: int = psutil.Process().memory_info().rss
    return resident


def reset_peak() -> None:
    """Let the peak of this process begin anew from what it has now; where that can't be, the old one stays."""
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:  # no Linux, or a sandbox: then more is told than was taken, never less
        return


def peak_bytes() -> int:
    """Return the most that this process had in memory at once."""
    if (told := _status("VmHWM")) is not None:
        return told
    unit = 1 if psutil.MACOS else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def left_by_groups(process: Path = _PROCESS, root: Path = _GROUPS) -> Iterator[int]:
    """Yield what each control group that this process is in, of version 1 or 2, has left; none if there is no limit.

    Pages of files that nobody uses just now are given up by the kernel before it refuses anything.
    """
    lines = (process / "cgroup").read_text().splitlines() if (process / "cgroup").exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "memory", path, *names)


def _left(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Yield what a group and each that it lies in has left; in a container its own is the root."""
    inner = root / path.lstrip("/")
    groups = [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    for group in (group for group in groups if (group / limit).exists()):
        if (most := (group / limit).read_text().strip()) != "max":
            given_up = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield int(most) - int((group / usage).read_text()) + int(given_up.get(reclaimable, 0))


def _left_by_limits() -> Iterator[int]:
    for limit, counted in _LIMITS:
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and (taken := _status(counted)) is not None:
            yield most - taken


def _status(name: str) -> int | None:
    """Return a number of bytes that the kernel tells of this process; None where it doesn't."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 2**10 for line in lines if line.startswith(f"{name}:")), None)
