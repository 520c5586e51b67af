"""Keeps a child from outliving this process, even where this process is killed (on Linux).

The child runs this file first, which asks the kernel for that and then becomes the command.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h; it survives exec."""


def leash(*command: str) -> list[str]:
    """Return what to start instead of `command`, from the main thread, so that it dies with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Put the leash on, unless the parent is dead already, and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
