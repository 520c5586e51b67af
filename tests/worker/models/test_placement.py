"""Where a model's weights go, and as what. No GPU is needed: what only one could show is not shown here."""

import pytest
import torch
from torch import nn

from tests.worker.models.golden import CASES, generate, sequence, settings
from worker.engine.call import find_decoder
from worker.models.device import Placement, choose_devices, choose_dtype
from worker.models.family import LoadError
from worker.models.placement import connect, spread
from worker.models.quantization import Quantization
from worker.models.registry import load_model

CPU = torch.device("cpu")
GPUS = tuple(torch.device("cuda", index) for index in range(3))


class Stacked(nn.Module):
    """Twelve layers of a hundred weights, and more outside of them."""

    def __init__(self, outside):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(10, 10, bias=False) for _ in range(12))
        self.outside = nn.Parameter(torch.zeros(outside))


def shares(outside, dtype=torch.float32, quantization=Quantization.NONE):
    """How many layers each of three GPUs gets."""
    model = Stacked(outside)
    homes = spread(model, model.layers, Placement(GPUS, dtype, quantization))
    assert homes == sorted(homes, key=lambda device: device.index)
    return [homes.count(device) for device in GPUS]


def test_devices_share_the_layers_by_bytes_and_the_first_has_the_rest():
    assert shares(outside=0) == [4, 4, 4]
    assert shares(outside=300) == [2, 5, 5]
    assert shares(outside=300, quantization=Quantization.BNB_INT8) == [1, 6, 5]
    assert shares(outside=10_000) == [1, 6, 5]


def test_layers_that_fetch_their_arguments_answer_as_before():
    """On one device, where only the hooks are to see: pictures in chunks, several rows, on the golden model."""
    model = load_model(settings(), report=lambda words: None)
    layers, names = find_decoder(model.runner._model).layers, ("image_photo", "text_only")
    connect(layers, [CPU] * len(layers))

    texts = generate(model.runner, *(sequence(model.prepare(*CASES[name].messages()), name) for name in names))

    assert texts == [CASES[name].facts["greedy_text"] for name in names]


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_automatic_precision_is_what_all_gpus_have(monkeypatch, has_bf16, expected):
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or torch.no_grad())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or len(asked) < 3)

    assert choose_dtype("auto", GPUS) is expected
    assert choose_dtype("fp32", GPUS) is torch.float32
    assert choose_dtype("auto", (CPU,)) is torch.float32
    assert asked == list(GPUS)


@pytest.mark.parametrize(("count", "single"), [(0, CPU), (1, GPUS[0]), (3, GPUS[0])])
def test_model_is_spread_over_the_gpus_it_sees_when_told_to(monkeypatch, count, single):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    assert choose_devices(None) == (single,)
    if count > 1:
        assert choose_devices("auto") == GPUS
    else:
        with pytest.raises(LoadError, match=f"this worker sees {count}: name them, as CUDA_VISIBLE_DEVICES=0,1"):
            choose_devices("auto")
