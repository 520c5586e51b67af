"""How much memory this process may take on its machine, whoever sets the limit."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_PROCESS = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))
"""Limits of a process, and what is counted against each, by its name in /proc/self/status."""


def tightest() -> tuple[int, int]:
    """Return the limit that leaves least, and what this process has of it: the machine's, a control group's, its own.

    What others have isn't counted, so that workers of one machine find the same, whoever starts first.
    """
    resident = resident_bytes()
    shared = (psutil.virtual_memory().total, *group_limits())
    return min([*((limit, resident) for limit in shared), *_own_limits()], key=lambda bound: bound[0] - bound[1])


def resident_bytes() -> int:
    """Return what this process has in memory and uses."""
    _trim()
    resident: int = psutil.Process().memory_info().rss
    return resident


@contextmanager
def bounded(num_bytes: int) -> Iterator[None]:
    """Let allocations fail that would take more than that, or more than is free, before the kernel ends the process.

    Only Linux knows such a limit.
    """
    taken, (soft, hard) = _status("VmData"), resource.getrlimit(resource.RLIMIT_DATA)
    if taken is None:
        yield
        return
    limit = taken + max(0, min(num_bytes, psutil.virtual_memory().available))
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def reset_peak() -> None:
    """Let the peak of this process begin anew from what it uses now; where that can't be, the old one stays."""
    _trim()
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


def _trim() -> None:
    """Give back what was freed: glibc keeps it, and who takes it again would seem to take nothing."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def group_limits(process: Path = _PROCESS, root: Path = _GROUPS) -> Iterator[int]:
    """Yield the limit of each control group that this process is in, of version 1 or 2; none if there is none."""
    lines = (process / "cgroup").read_text().splitlines() if (process / "cgroup").exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits(root / "memory", path, "memory.limit_in_bytes")


def _limits(root: Path, path: str, name: str) -> Iterator[int]:
    """Yield the limits of a group and of each that it lies in; in a container its own is the root."""
    inner = root / path.lstrip("/")
    for folder in (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)):
        if (folder / name).exists() and (most := (folder / name).read_text().strip()) != "max":
            yield int(most)


def _own_limits() -> Iterator[tuple[int, int]]:
    for limit, counted in _LIMITS:
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and (taken := _status(counted)) is not None:
            yield most, taken


def _status(name: str) -> int | None:
    """Return a number of bytes that the kernel tells of this process; None where it doesn't."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 2**10 for line in lines if line.startswith(f"{name}:")), None)
