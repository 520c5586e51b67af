"""Two devices that only pretend: run by itself, because torch has one such backend a process.

Tensors have shapes and devices and no values. Whatever mixes devices raises, as it would on two GPUs.
"""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.worker.models import tiny
from worker.engine.adapters import LowRank
from worker.engine.torch_runner import TorchRunner
from worker.models.device import Placement
from worker.models.placement import place

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
tensor = torch.tensor


class Strict(TorchDispatchMode):
    """Indices of another device, too, are refused; fake tensors alone would let them pass."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        devices = {t.device for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim > 0}
        assert len(devices) < 2 or func in COPIES, f"{func} mixes {devices}"
        return func(*args, **kwargs or {})


def blank(values, dtype=None, device=None):
    """Stand in for `torch.tensor`, whose inside would ask the device for memory."""
    like = tensor(values, dtype=dtype)
    return torch.zeros(tuple(like.shape), dtype=like.dtype, device=device)


def move(module, device):
    """Stand in for `Module.to`, which fake parameters refuse."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(torch.empty_like(weight, device=device), requires_grad=False))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty_like(buffer, device=device))
    return module


def change(linear):
    return LowRank(torch.zeros(2, linear.in_features), torch.zeros(linear.out_features, 2), 1.0)


def main():
    _setup_privateuseone_for_python_backend("pretend")
    devices = tuple(torch.device("pretend", index) for index in range(2))
    torch.tensor, nn.Module.to = blank, move
    model_class, config, _ = tiny.llama(600)
    with FakeTensorMode(), Strict(), torch.inference_mode():
        model = model_class(config).eval()
        place(model, Placement(devices, torch.float32))
        runner = TorchRunner(model, 4, 64)
        names = [f"model.layers.{index}.mlp.up_proj" for index in (0, 3)]
        runner.adapters.put(1, {name: change(model.get_submodule(name)) for name in names})
        runner.adapters.select([1])
        for _ in range(2):  # from the beginning, and behind it
            positions, mask = runner._cache.extend(0, 3)
            ids = torch.zeros((1, 3), dtype=torch.long, device=devices[0])
            output = model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=runner._cache)
        assert [layer.keys.device.index for layer in runner._cache.layers] == [0, 1, 1, 1]
        assert output.logits.device == devices[0]


if __name__ == "__main__":
    main()
