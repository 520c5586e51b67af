"""The quantising libraries, which `make test` installs in a place of their own."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[3] / "build" / "quantization"


def offer():
    """Let this process import them."""
    if find_spec("torchao") is None:
        sys.path.append(str(DIRECTORY))
    if find_spec("torchao") is None or find_spec("bitsandbytes") is None:
        pytest.skip("make build/quantization/installed")
