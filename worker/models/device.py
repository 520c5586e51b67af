"""Where the model runs and in which precision."""

from dataclasses import dataclass
from typing import Literal

import torch

from worker.models.family import LoadError
from worker.models.quantization import Quantization, check_installed
from worker.settings import WorkerSettings

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's weights go, and as what."""

    devices: tuple[torch.device, ...]
    """Several share the language model's layers; the first has everything else."""
    dtype: torch.dtype
    quantization: Quantization = Quantization.NONE

    @property
    def is_direct(self) -> bool:
        """Whether each weight can go where it belongs as it is read."""
        return len(self.devices) == 1 and self.quantization is Quantization.NONE

    @property
    def reads_to(self) -> torch.device:
        """Where weights are read to; more than one device can hold, or than it is to hold, waits on the CPU."""
        return self.devices[0] if self.is_direct else torch.device("cpu")

    @property
    def shrinkage(self) -> float:
        """What is left of a linear layer's bytes."""
        return 1.0 if self.quantization is Quantization.NONE else self.quantization.bits / 8 / self.dtype.itemsize

    def __str__(self) -> str:
        """Name the devices as people know them, as `cuda:0 (NVIDIA H200)`."""
        return ", ".join(map(_describe, self.devices))


def choose_placement(settings: WorkerSettings) -> Placement:
    """Return what the settings ask for on this machine; raises LoadError if it can't be had."""
    quantization = Quantization(settings.quantization)
    check_installed(quantization)
    devices = choose_devices(settings.device_map)
    return Placement(devices, choose_dtype(settings.dtype, devices), quantization)


def choose_devices(device_map: Literal["auto"] | None) -> tuple[torch.device, ...]:
    """Return all visible GPUs, which LoadError is raised for if they aren't several; or the first one, or the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device_map is None:
        return (torch.device("cuda:0" if count else "cpu"),)
    if count < 2:
        raise LoadError(
            f"--device_map {device_map} spreads a model over several GPUs, and this worker sees {count}: "
            "name them, as CUDA_VISIBLE_DEVICES=0,1"
        )
    return tuple(torch.device("cuda", index) for index in range(count))


def choose_dtype(name: str, devices: tuple[torch.device, ...]) -> torch.dtype:
    """Return the named precision; `auto` is bf16 where all the GPUs have it, else fp16, and fp32 on the CPU."""
    if name != "auto":
        return _DTYPES[name]
    if devices[0].type == "cpu":
        return torch.float32
    return torch.bfloat16 if all(map(_has_bf16, devices)) else torch.float16


def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _describe(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"
