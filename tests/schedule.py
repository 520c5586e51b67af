"""Which tests run in one process one after the other, and which come first."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

SHARED = {
    "stack": ("acceptance", "batches chat clients golden reuse sampling structure surface"),
    "fleet": ("acceptance", "golden_minicpmv golden_qwen2_audio golden_qwen_vl golden_yi_vl responses tools"),
    "served": ("baton", "batch bench chat client infer_client"),
}
"""Session fixtures that start workers with real models, and the files of a folder that ask for them."""
GROUPS = {
    f"tests/{folder}/test_{name}.py": fixture for fixture, (folder, names) in SHARED.items() for name in names.split()
}
FOLDERS = ("acceptance", "faults", "fuzz", "tools", "baton", "api", "worker")
"""What takes long at a time comes first, so that no core waits for another one in the end."""


class Schedule(LoadFileScheduling):
    """Keeps files that share servers together, so that these start once; other files are handed out one by one."""

    def _split_scope(self, nodeid: str) -> str:
        path = super()._split_scope(nodeid)
        return GROUPS.get(path, path)


def place(test: pytest.Item) -> int:
    """Return how late a test comes: by its folder."""
    folder = test.path.relative_to(Path(__file__).parent).parts[0]
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)
