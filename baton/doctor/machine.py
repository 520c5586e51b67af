"""The machine itself: its GPUs and whether torch sees them, and the room for checkpoints. Torch need not be there."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from baton.doctor.finding import Colour, Finding

GIB = 2**30
DISK_BYTES = (20 * GIB, 2 * GIB)
"""Room for a checkpoint of eight billion parameters; less than that of the smallest one."""
TIMEOUT_S = 120.0
_TORCH = (
    "import json, torch; "
    "print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.cuda.device_count()]))"
)


def look_at_gpus() -> list[Finding]:
    """Return what the driver and torch say of the GPUs."""
    listed, findings = _listed(), []
    if listed:
        findings += [Finding("gpu", f"GPU {line.split(', ')[0]}", Colour.GREEN, line) for line in listed]
    else:
        findings.append(
            Finding("gpu", "driver", Colour.YELLOW, "nvidia-smi finds no GPU", "without one, models run on the CPU")
        )
    if (pinned := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        findings.append(Finding("gpu", "pinned", Colour.GREEN, f"CUDA_VISIBLE_DEVICES={pinned}"))
    return [*findings, _torch(len(listed), pinned)]


def _listed() -> list[str]:
    fields = "index,name,driver_version,memory.used,memory.total"
    try:
        shown = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return shown.stdout.splitlines()


def _torch(num_listed: int, pinned: str | None) -> Finding:
    if find_spec("torch") is None:
        return Finding("gpu", "torch", Colour.YELLOW, "not installed", "this machine can run gateways and fake workers")
    shown = subprocess.run(
        [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if shown.returncode:
        last = (shown.stderr.splitlines() or ["no word"])[-1]
        return Finding("gpu", "torch", Colour.RED, f"can't be imported: {last}", "install it again")
    version, cuda, sees, num_seen = json.loads(shown.stdout)
    fact = f"{version}, {f'CUDA {cuda}, sees {num_seen} GPUs' if cuda else 'for the CPU'}"
    if num_listed and not sees and pinned != "":
        advice = "install the torch build for the driver's CUDA version"
        return Finding("gpu", "torch", Colour.RED, f"{fact}; the driver lists {num_listed}", advice)
    return Finding("gpu", "torch", Colour.GREEN, fact)


def look_at_disk() -> list[Finding]:
    """Return the room where each hub keeps its checkpoints."""
    home = Path.home() / ".cache"
    directories = {
        "ModelScope cache": Path(os.environ.get("MODELSCOPE_CACHE") or home / "modelscope"),
        "Hugging Face cache": Path(os.environ.get("HF_HOME") or home / "huggingface"),
    }
    return [_room(name, directory) for name, directory in directories.items()]


def _room(name: str, directory: Path) -> Finding:
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    fact = f"{free / GIB:,.1f} GiB free for {directory}"
    colour = Colour((free < DISK_BYTES[0]) + (free < DISK_BYTES[1]))
    if not os.access(existing, os.W_OK):
        return Finding(
            "disk", name, Colour.YELLOW, f"{existing} can't be written to", "checkpoints can't be downloaded"
        )
    advice = "make room, or point MODELSCOPE_CACHE or HF_HOME elsewhere" if colour else ""
    return Finding("disk", name, colour, fact, advice)
