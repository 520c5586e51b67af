"""torch's companions beside a torch that they may not have been built for."""

import subprocess
import sys
from importlib.util import find_spec

import pytest


def run(script, **environment):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_is_importable_and_resizes():
    script = (
        "import torch, worker.models.companions\n"
        "from torchvision.transforms.v2 import functional\n"
        "print(functional.resize(torch.zeros(3, 4, 4), [2, 2]).shape)"
    )

    done = run(script)

    assert done.stdout == "torch.Size([3, 2, 2])\n", done.stderr


@pytest.mark.parametrize("error", ["OSError('libcudart.so')", "ImportError('no')"])
def test_torchaudio_that_does_not_load_counts_as_absent(tmp_path, error):
    (tmp_path / "torchaudio.py").write_text(f"raise {error}")
    (tmp_path / "torchvision.py").touch()  # the real one has a test of its own, and takes long
    script = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport worker.models.companions\n"
        "import transformers.audio_utils  # where all that hears imports it"
    )

    done = run(script)

    assert done.returncode == 0, done.stderr


def test_torchvision_that_names_missing_operators_gets_them_declared(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda *given: None)\n"
    )
    script = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport worker.models.companions, torch\n"
        "print(torch.ops.torchvision.qnms.default)"
    )

    done = run(script)

    assert done.stdout == "torchvision.qnms.default\n", done.stderr
