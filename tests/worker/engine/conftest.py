"""Models whose steps are made in several ways."""

import pytest

from tests.cases import QWEN_VL
from tests.worker.engine.steps import Case
from tests.worker.models import golden

MODELS = ("internvl2", "qwen-vl", "qwen2vl", "gemma3", "gptoss")
"""Plain attention, features of rows, positions on three axes, and two with sliding windows."""


@pytest.fixture(scope="module", params=MODELS)
def case(request, load_tiny):
    known = {"internvl2": golden.golden_model, "qwen-vl": lambda: golden.golden_model(folder=QWEN_VL)}
    return Case(known[request.param]() if request.param in known else load_tiny(request.param))


@pytest.fixture(scope="module")
def internvl2():
    return Case(golden.golden_model())
