"""What a process gives up before it meets what strangers wrote."""

import math
import resource

MAX_FILES = 3
"""Standard input, output and error, which lead nowhere."""


def give_up(memory_bytes: int) -> None:
    """Let go of what such a process has no use for: most memory, every file and connection that isn't open yet."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))


def limit_cpu(timeout_s: float) -> None:
    """Die of a task that takes too long, even if the worker isn't there any more to see to it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
