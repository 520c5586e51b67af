"""Virtual environments of the peers, made once and kept in the user's cache."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "baton" / "benchmarks"


def venv(name: str, *installs: Sequence[str]) -> Path:
    """Return the `bin` of an environment with these packages; each tuple is one call of pip, in this order.

    Raises CalledProcessError.
    """
    directory = CACHE / name
    installed, wanted = directory / "installed", "\n".join(" ".join(packages) for packages in installs)
    if not installed.is_file() or installed.read_text() != wanted:
        print(f"installing {name} into {directory}, which takes minutes", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        pip = [str(directory / "bin" / "pip"), "install", "--disable-pip-version-check", "--quiet"]
        for packages in installs:
            subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
        installed.write_text(wanted)
    return directory / "bin"
