"""Each mechanism is switched off once, in a copy of the tree, and the test that claims to show it has to fail.

`python -m tests.mutation [name …]` runs all of them, or those that are named; `make mutants` does so.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults import mutants as faults
from tests.mutant import Mutant
from tests.worker.engine import mutants as engine

ROOT = Path(__file__).parents[1]
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "*.egg-info", ".*_cache")
HAS_FAILED = 1
"""pytest's status when a test failed, and nothing else went wrong."""
MUTANTS = (*faults.MUTANTS, *engine.MUTANTS)


def fate(mutant: Mutant, tree: Path) -> tuple[int, str]:
    """Run the mutant's test on the tree with the mutation; return pytest's status and what it says of the failure."""
    file = tree / mutant.file
    sound = file.read_text()
    if sound.count(mutant.before) != 1:
        sys.exit(f"{mutant.name}: {mutant.file} has {sound.count(mutant.before)} places like {mutant.before!r}")
    file.write_text(sound.replace(mutant.before, mutant.after))
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutant.test],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        file.write_text(sound)
    return run.returncode, next((line for line in run.stdout.splitlines() if line.startswith("E  ")), "")


def main(names: list[str]) -> None:
    """Tell of each mutant whether its test noticed; the status is 1 if one did not."""
    survivors = []
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_BEHIND)
        for mutant in MUTANTS:
            if names and mutant.name not in names:
                continue
            status, told = fate(mutant, tree)
            if status != HAS_FAILED:
                survivors.append(mutant.name)
            print(f"{'red ' if status == HAS_FAILED else f'LIVES ({status})'} {mutant.name}: {told[:160]}", flush=True)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
